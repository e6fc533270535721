//! Chat rows: OpenAI's `{"messages": [{"role", "content", "weight"?}, ...]}`, and ShareGPT's
//! `{"system"?, "conversations": [{"from", "value"}, ...]}`.

use super::{
    Report,
    fields::Fields,
    tools::{check_calls, read_tools},
    turn::read_turns,
};
use crate::{
    example::{Example, Role, Turn},
    json::{Json, Object},
    rules,
};

pub(super) fn read(object: Object<'_>, report: &mut Report<'_>) -> Option<(Example, f32)> {
    let mut fields = Fields::new(object, String::new(), report);
    fields.refuse("function_call", report);
    let tools = read_tools(&mut fields, report);
    // How a model was asked: that two calls come together, or do not, is to be seen in the answers.
    fields.take("parallel_tool_calls");
    let weight = fields.row_weight(report);
    let (pointer, turns) = read_conversation(&mut fields, report);
    fields.finish(report);
    // What is wrong with one message would only be said again by rules about their order.
    let turns = turns?;
    check_answers(&pointer, &turns, report);
    check_order(&pointer, &turns, report);
    let tools = tools?;
    check_calls(&pointer, &turns, &tools, report);
    Some((Example::Chat { turns, tools }, weight?))
}

/// The turns of `messages`, or of `conversations` behind its `system`; and the pointer to them.
pub(super) fn read_conversation(fields: &mut Fields<'_>, report: &mut Report<'_>) -> (String, Option<Vec<Turn>>) {
    let is_sharegpt = fields.has("conversations") && !fields.has("messages");
    let name = if is_sharegpt { "conversations" } else { "messages" };
    let pointer = fields.pointer(name);
    let system = match if is_sharegpt { fields.take("system") } else { None } {
        None => Some(None),
        Some(system) => fields.as_text("system", system, report).map(Some),
    };
    let messages = match fields.take(name) {
        Some(Json::Array(messages)) => messages,
        Some(other) => {
            fields.wrong_type(name, "an array", &other, report);
            return (pointer, None);
        }
        None => {
            let reason = format!("the field `{name}` is required and must be an array");
            report.add(&rules::FIELD_MISSING, pointer.clone(), reason);
            return (pointer, None);
        }
    };
    if messages.is_empty() {
        report.add(&rules::MESSAGES_EMPTY, pointer.clone(), format!("`{name}` is empty"));
        return (pointer, None);
    }
    let turns = read_turns(&pointer, messages, report);
    let Some(system) = system else { return (pointer, None) };
    let system = system.filter(|text| !text.trim().is_empty()).map(|text| Turn::new(Role::System, text));
    (pointer, turns.map(|turns| system.into_iter().chain(turns).collect()))
}

fn check_answers(pointer: &str, turns: &[Turn], report: &mut Report<'_>) {
    let last_answer = turns.iter().rposition(|turn| turn.role == Role::Assistant);
    match last_answer {
        None => {
            let reason = "the row has no answer: none of its messages has the role assistant";
            report.add(&rules::ANSWER_MISSING, pointer, reason);
        }
        Some(_) if !turns.iter().any(Turn::is_supervised) => {
            let reason = "every answer has the weight 0, so there is nothing to learn";
            report.add(&rules::NO_SUPERVISED_MESSAGE, pointer, reason);
        }
        Some(last) if last + 1 < turns.len() => {
            let reason = "messages after the last answer teach nothing and are left out";
            report.add(&rules::ANSWER_NOT_LAST, format!("{pointer}/{}", last + 1), reason);
        }
        Some(_) => {}
    }
}

pub(super) fn check_order(pointer: &str, turns: &[Turn], report: &mut Report<'_>) {
    let is_system = |role| matches!(role, Role::System | Role::Developer);
    for (index, turn) in turns.iter().enumerate() {
        let before = index.checked_sub(1).map(|before| turns[before].role);
        let reason = match (before, turn.role) {
            (Some(_), role) if is_system(role) => "the system message is not the first",
            (Some(Role::User), Role::User) => "two messages of the user follow each other",
            (Some(Role::Assistant), Role::Assistant) => "two answers follow each other",
            (None, Role::Assistant) => "the answer follows no question",
            (Some(role), Role::Assistant) if index == 1 && is_system(role) => "the answer follows no question",
            _ => continue,
        };
        report.add(&rules::ROLE_ORDER, format!("{pointer}/{index}/role"), reason);
    }
}
