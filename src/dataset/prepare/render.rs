//! Where the answers lie in a rendered chat.
//!
//! Boundaries come from rendering prefixes of the messages, never from searching the text: a user may well say what the
//! template's own markers say.

use finetuned_weights::{ChatMessage, WeightsError};

use super::turns::messages;
use crate::example::Turn;

/// Renders messages, with or without the generation prompt.
pub(super) type Render<'r> = &'r dyn Fn(&[ChatMessage], bool) -> Result<String, WeightsError>;

/// A chat as text.
pub(super) struct RenderedChat {
    pub text: String,
    /// Answers that carry loss, in order.
    pub answers: Vec<AnswerSpan>,
    /// Indices of turns that should carry loss and cannot, because the template does not render them alike every time.
    pub unstable: Vec<usize>,
    /// Whether nothing but white space follows some answer.
    pub lacks_end_marker: bool,
}

/// The bytes of an answer and its end marker. What lies before `start` is the answer's prompt, as the model will see
/// it.
pub(super) struct AnswerSpan {
    /// Index of the turn.
    pub turn: usize,
    pub start: usize,
    pub end: usize,
}

pub(super) fn render_chat(turns: &[Turn], render: Render<'_>) -> Result<RenderedChat, WeightsError> {
    let messages = messages(turns);
    let text = render(&messages, false)?;
    let mut chat = RenderedChat { text, answers: Vec::new(), unstable: Vec::new(), lacks_end_marker: false };
    for (index, turn) in turns.iter().enumerate().filter(|(_, turn)| turn.is_supervised()) {
        let Some((start, end)) = span(&messages, index, &chat.text, render)? else {
            chat.unstable.push(index);
            continue;
        };
        let answer = chat.text[start..end].trim_end();
        // Calls end in marks of their own, which are no end of the answer.
        chat.lacks_end_marker |= turn.calls.is_empty() && answer.ends_with(turn.content.trim_end());
        chat.answers.push(AnswerSpan { turn: index, start, end: start + answer.len() });
    }
    Ok(chat)
}

/// Bytes of what the template writes for message `index` after the generation prompt. `None` unless the prompt is a
/// beginning of the messages up to the answer, and those a beginning of the whole.
fn span(
    messages: &[ChatMessage],
    index: usize,
    text: &str,
    render: Render<'_>,
) -> Result<Option<(usize, usize)>, WeightsError> {
    let before = render(&messages[..index], true)?;
    let end = if index + 1 == messages.len() {
        text.len()
    } else {
        let through = render(&messages[..=index], false)?;
        if !text.starts_with(&through) {
            return Ok(None);
        }
        through.len()
    };
    Ok(text[..end].starts_with(&before).then_some((before.len(), end)))
}
