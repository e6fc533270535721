//! Examples as the turns of a chat.

use std::borrow::Cow;

use finetuned_weights::ChatMessage;

use crate::example::{Example, Role, Turn};

/// The turns of a row: a prompt and an Alpaca instruction (its input on a line of its own, where there is one) are said
/// by the user. `None` for what is no
/// chat.
pub(super) fn turns_of(example: &Example) -> Option<Cow<'_, [Turn]>> {
    let pair = |question: String, answer: &str| {
        Some(Cow::Owned(vec![Turn::new(Role::User, question), Turn::new(Role::Assistant, answer)]))
    };
    match example {
        Example::Chat(turns) => Some(Cow::Borrowed(turns)),
        Example::PromptCompletion { prompt, completion } => pair(prompt.clone(), completion),
        Example::Alpaca { instruction, input, output } if input.is_empty() => pair(instruction.clone(), output),
        Example::Alpaca { instruction, input, output } => pair(format!("{instruction}\n{input}"), output),
        Example::Tokens { .. } | Example::Text(_) | Example::Preference { .. } => None,
    }
}

/// Up to the last answer that carries loss: what follows it teaches nothing.
pub(super) fn up_to_last_answer(turns: &[Turn]) -> &[Turn] {
    let end = turns.iter().rposition(Turn::is_supervised).map_or(0, |last| last + 1);
    &turns[..end]
}

/// As a template sees them.
pub(super) fn messages(turns: &[Turn]) -> Vec<ChatMessage> {
    turns
        .iter()
        .map(|turn| ChatMessage { role: turn.role.template_name().to_owned(), content: turn.content.clone() })
        .collect()
}

/// A prompt for people: the question alone, or who said what where there is more.
pub(super) fn readable(turns: &[Turn]) -> String {
    match turns {
        [question] if question.role == Role::User => question.content.clone(),
        _ => {
            let said: Vec<String> =
                turns.iter().map(|turn| format!("{}: {}", turn.role.as_str(), turn.content)).collect();
            said.join("\n\n")
        }
    }
}
