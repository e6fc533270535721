//! Two answers to one question, in the spellings in use:
//!
//! - OpenAI's `{"input": {"messages"}, "preferred_output": [message], "non_preferred_output": [message]}`; its specification
//!   says `preferred_completion` and `non_preferred_completion`;
//! - ShareGPT's `{"system"?, "conversations", "chosen": {"from", "value"}, "rejected"}`;
//! - `chosen` and `rejected` beside `messages`, a `prompt` (a text or messages), or an `instruction` with its `input`;
//! - `chosen` and `rejected` as whole chats that differ in their last message.

use super::{
    Report,
    chat::{check_order, read_conversation},
    fields::Fields,
    pairs::check_prompt,
    tools::check_calls,
    turn::{read_turn, read_turns},
};
use crate::{
    example::{Example, Role, Turn},
    json::{Json, Object},
    rules,
};

/// Fields that no row of another format has.
pub(super) const FIELDS: [&str; 6] = [
    "preferred_output",
    "non_preferred_output",
    "preferred_completion",
    "non_preferred_completion",
    "chosen",
    "rejected",
];

pub(super) fn read(object: Object<'_>, report: &mut Report<'_>) -> Option<Example> {
    let mut fields = Fields::new(object, String::new(), report);
    fields.refuse_weight("pairs have no weight; repeat a row that shall count more", report);
    for name in ["tools", "functions", "function_call"] {
        fields.refuse(name, report);
    }
    let [chosen_name, rejected_name] = if FIELDS[..2].iter().any(|name| fields.has(name)) {
        ["preferred_output", "non_preferred_output"]
    } else if FIELDS[2..4].iter().any(|name| fields.has(name)) {
        ["preferred_completion", "non_preferred_completion"]
    } else {
        ["chosen", "rejected"]
    };
    let prompt = read_prompt(&mut fields, report);
    let chosen = read_answer(chosen_name, &mut fields, report);
    let rejected = read_answer(rejected_name, &mut fields, report);
    fields.finish(report);
    let (chosen, rejected) = (chosen?, rejected?);
    let (pointer, mut prompt) = match prompt? {
        Prompt::Given { pointer, turns } => {
            check_before(&turns, &chosen, report);
            check_before(&turns, &rejected, report);
            (pointer, turns)
        }
        Prompt::InAnswers => (format!("/{chosen_name}"), shared_turns(&chosen, &rejected, report)?),
    };
    if !prompt.iter().any(|turn| turn.role == Role::User) {
        report.add(&rules::PROMPT_EMPTY, pointer.clone(), "no message of a user comes before the answers");
    }
    prompt.iter_mut().for_each(|turn| turn.weight = 0.0);
    let [chosen, rejected] = [chosen.answer, rejected.answer];
    check_calls(&pointer, &prompt, &[], report);
    check_order(&pointer, &[prompt.as_slice(), std::slice::from_ref(&chosen)].concat(), report);
    if chosen.content == rejected.content {
        let reason = "both answers are the same, so neither can be preferred; mend or remove the row";
        report.add(&rules::ANSWERS_EQUAL, format!("/{rejected_name}"), reason);
    }
    Some(Example::Preference { prompt, chosen: chosen.content, rejected: rejected.content })
}

/// What the answers follow.
enum Prompt {
    Given {
        pointer: String,
        turns: Vec<Turn>,
    },
    /// The answers are whole chats.
    InAnswers,
}

/// An answer and, where it came as the end of a whole chat, what stands before it.
struct AnswerRead {
    pointer: String,
    before: Vec<Turn>,
    answer: Turn,
}

/// `None` where a finding says what is wrong.
fn read_prompt(fields: &mut Fields<'_>, report: &mut Report<'_>) -> Option<Prompt> {
    let asked = |pointer: &str, question: String| {
        Some(Prompt::Given { pointer: pointer.to_owned(), turns: vec![Turn::new(Role::User, question)] })
    };
    if fields.has("messages") || fields.has("conversations") {
        let (pointer, turns) = read_conversation(fields, report);
        return Some(Prompt::Given { pointer, turns: turns? });
    }
    if fields.has("instruction") {
        let instruction = fields.text("instruction", report);
        let input = fields.take("input").unwrap_or(Json::Text("".into()));
        let input = fields.as_text("input", input, report);
        check_prompt("instruction", instruction.as_deref(), report);
        let (instruction, input) = (instruction?, input?);
        let question = if input.is_empty() { instruction.into_owned() } else { format!("{instruction}\n{input}") };
        return asked("/instruction", question);
    }
    match fields.take("input") {
        Some(Json::Object(input)) => {
            let mut inner = Fields::new(input, "/input".to_owned(), report);
            for name in ["tools", "functions"] {
                inner.refuse(name, report);
            }
            let (pointer, turns) = read_conversation(&mut inner, report);
            inner.finish(report);
            return Some(Prompt::Given { pointer, turns: turns? });
        }
        Some(other) => {
            fields.wrong_type("input", "an object with `messages`", &other, report);
            return None;
        }
        None => {}
    }
    match fields.take("prompt") {
        None => Some(Prompt::InAnswers),
        Some(Json::Array(messages)) => {
            let turns = read_turns("/prompt", messages, report)?;
            Some(Prompt::Given { pointer: "/prompt".to_owned(), turns })
        }
        Some(value) => {
            let text = fields.as_text("prompt", value, report);
            check_prompt("prompt", text.as_deref(), report);
            asked("/prompt", text?.into_owned())
        }
    }
}

/// A text, a message, or an array whose last message is the answer.
fn read_answer(name: &str, fields: &mut Fields<'_>, report: &mut Report<'_>) -> Option<AnswerRead> {
    let pointer = fields.pointer(name);
    let (before, answer, pointer) = match fields.take(name) {
        None => {
            let reason = format!("the pair lacks an answer: the field `{name}` is required");
            report.add(&rules::ANSWER_MISSING, pointer, reason);
            return None;
        }
        Some(Json::Object(message)) => {
            (Vec::new(), read_turn(pointer.clone(), Json::Object(message), report)?, pointer)
        }
        Some(Json::Array(messages)) => {
            let last = format!("{pointer}/{}", messages.len().saturating_sub(1));
            let mut turns = read_turns(&pointer, messages, report)?;
            let Some(answer) = turns.pop() else {
                report.add(&rules::MESSAGES_EMPTY, pointer, format!("`{name}` is empty"));
                return None;
            };
            (turns, answer, last)
        }
        Some(value) => {
            let text = fields.as_text(name, value, report)?;
            if text.trim().is_empty() {
                let reason = format!("the answer in `{name}` is empty; write one or remove the row");
                report.add(&rules::ANSWER_EMPTY, pointer.clone(), reason);
            }
            (Vec::new(), Turn::new(Role::Assistant, text), pointer)
        }
    };
    if answer.role != Role::Assistant {
        let reason = format!("`{name}` must be an answer of the assistant; its role is {}", answer.role.as_str());
        report.add(&rules::ANSWER_MISSING, pointer.clone(), reason);
    } else if !answer.calls.is_empty() {
        let reason = "calls of tools in the answers of a pair cannot be learned; use rows of `messages` for them";
        report.add(&rules::NOT_SUPPORTED, pointer.clone(), reason);
    } else if answer.weight != 1.0 {
        report.add(&rules::NOT_SUPPORTED, format!("{pointer}/weight"), "the answers of a pair have no weight");
    }
    Some(AnswerRead { pointer, before, answer })
}

/// An answer that repeats its question must repeat it as it is.
fn check_before(prompt: &[Turn], answer: &AnswerRead, report: &mut Report<'_>) {
    if !answer.before.is_empty() && answer.before != prompt {
        let reason = "more than one message is given where the answer is one, and what comes before the last is not the \
                      question";
        report.add(&rules::NOT_SUPPORTED, answer.pointer.clone(), reason);
    }
}

/// What both chats begin with.
fn shared_turns(chosen: &AnswerRead, rejected: &AnswerRead, report: &mut Report<'_>) -> Option<Vec<Turn>> {
    if chosen.before.is_empty() && rejected.before.is_empty() {
        let reason = "the pair has no question: give `input`, `messages`, `conversations`, `prompt` or `instruction`, or \
                      both answers as whole chats";
        report.add(&rules::FIELD_MISSING, "", reason);
        return None;
    }
    if chosen.before != rejected.before {
        let reason = "the two chats differ before their last message; both must answer the same question";
        report.add(&rules::NOT_SUPPORTED, "/rejected", reason);
        return None;
    }
    Some(chosen.before.clone())
}
