//! Examples as the turns of a chat.

use std::borrow::Cow;

use finetuned_weights::{ChatCall, ChatMessage};
use serde_json::Value;

use crate::example::{Example, Role, ToolCall, Turn};

/// The turns of a row: a prompt and an Alpaca instruction (its input on a line of its own, where there is one) are said
/// by the user. `None` for what is no
/// chat.
pub(crate) fn turns_of(example: &Example) -> Option<Cow<'_, [Turn]>> {
    let pair = |question: String, answer: &str| {
        Some(Cow::Owned(vec![Turn::new(Role::User, question), Turn::new(Role::Assistant, answer)]))
    };
    match example {
        Example::Chat { turns, .. } => Some(Cow::Borrowed(turns)),
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
        .map(|turn| ChatMessage {
            role: turn.role.template_name().to_owned(),
            content: turn.content.clone(),
            tool_calls: turn.calls.iter().map(call).collect(),
            tool_call_id: turn.call_id.clone(),
            name: turn.name.clone(),
        })
        .collect()
}

fn call(call: &ToolCall) -> ChatCall {
    let ToolCall { id, name, arguments } = call.clone();
    // The text was an object when it was read.
    let arguments = serde_json::from_str(&arguments).unwrap_or(Value::String(arguments));
    ChatCall { id, name, arguments }
}

/// Functions that a row's chat may call.
pub(super) fn tools_of(example: &Example) -> &[Value] {
    if let Example::Chat { tools, .. } = example { tools } else { &[] }
}

/// What a turn says, calls included, as a person would read it.
pub(super) fn said(turn: &Turn) -> String {
    let calls = turn.calls.iter().map(|call| format!("{}({})", call.name, call.arguments));
    let content = Some(turn.content.clone()).filter(|content| !content.is_empty() || turn.calls.is_empty());
    content.into_iter().chain(calls).collect::<Vec<_>>().join("\n")
}

/// A prompt for people: the question alone, or who said what where there is more.
pub(crate) fn readable(turns: &[Turn]) -> String {
    match turns {
        [question] if question.role == Role::User => question.content.clone(),
        _ => {
            let said: Vec<String> =
                turns.iter().map(|turn| format!("{}: {}", turn.role.as_str(), said(turn))).collect();
            said.join("\n\n")
        }
    }
}
