//! Chat rows as OpenAI's fine-tuning API takes them: `{"messages": [{"role", "content", "weight"?}, ...]}`.

use std::borrow::Cow;

use super::{
    Report,
    fields::{Fields, join, shortened},
};
use crate::{
    example::{Example, Role, Turn},
    json::{Json, Object},
    rules,
};

pub(super) fn read(object: Object<'_>, report: &mut Report<'_>) -> Option<Example> {
    let mut fields = Fields::new(object, String::new(), report);
    for name in ["tools", "functions", "function_call"] {
        fields.refuse(name, report);
    }
    let messages = fields.take("messages");
    fields.finish(report);
    let messages = match messages {
        Some(Json::Array(messages)) => messages,
        Some(other) => {
            let reason = format!("`messages` must be an array; it is {}", other.kind());
            report.add(&rules::FIELD_TYPE, "/messages", reason);
            return None;
        }
        None => {
            report.add(&rules::FIELD_MISSING, "/messages", "the field `messages` is required and must be an array");
            return None;
        }
    };
    if messages.is_empty() {
        report.add(&rules::MESSAGES_EMPTY, "/messages", "`messages` is empty");
        return None;
    }
    let turns: Vec<Option<Turn>> =
        messages.into_iter().enumerate().map(|(index, message)| read_turn(index, message, report)).collect();
    // What is wrong with one message would only be said again by rules about their order.
    let turns: Vec<Turn> = turns.into_iter().collect::<Option<_>>()?;
    check_answers(&turns, report);
    check_order(&turns, report);
    Some(Example::Chat(turns))
}

fn read_turn(index: usize, message: Json<'_>, report: &mut Report<'_>) -> Option<Turn> {
    let pointer = format!("/messages/{index}");
    let Json::Object(object) = message else {
        let reason = format!("a message must be an object; it is {}", message.kind());
        report.add(&rules::FIELD_TYPE, pointer, reason);
        return None;
    };
    let mut fields = Fields::new(object, pointer, report);
    for name in ["tool_calls", "function_call", "audio", "refusal"] {
        fields.refuse(name, report);
    }
    let role = read_role(&mut fields, report);
    // Only answers have a weight; elsewhere it is a field like any other that is not used.
    let weight = if role == Some(Role::Assistant) { read_weight(&mut fields, report) } else { None };
    let content = read_content(role, &mut fields, report);
    let content_pointer = fields.pointer("content");
    fields.finish(report);
    let turn = Turn { role: role?, content: content?.into_owned(), weight };
    if turn.content.trim().is_empty() {
        if turn.is_supervised() {
            let reason = "the answer is empty; write one, give it the weight 0, or remove the row";
            report.add(&rules::ANSWER_EMPTY, content_pointer, reason);
        } else if turn.role == Role::User {
            report.add(&rules::PROMPT_EMPTY, content_pointer, "the user's message is empty");
        }
    }
    Some(turn)
}

fn read_role(fields: &mut Fields<'_>, report: &mut Report<'_>) -> Option<Role> {
    let text = fields.text("role", report)?;
    let role = Role::parse(&text);
    if role.is_none() {
        let reason =
            format!("the role `{}` is unknown; it must be one of {}", shortened(&text), Role::NAMES.join(", "));
        report.add(&rules::ROLE_UNKNOWN, fields.pointer("role"), reason);
    }
    role
}

fn read_weight(fields: &mut Fields<'_>, report: &mut Report<'_>) -> Option<bool> {
    match fields.take("weight")? {
        Json::Integer(0) => Some(false),
        Json::Integer(1) => Some(true),
        _ => {
            let reason = "`weight` must be 0 (no loss on this answer) or 1";
            report.add(&rules::WEIGHT_INVALID, fields.pointer("weight"), reason);
            None
        }
    }
}

/// A string, or an array of text parts, which are put one after the other.
fn read_content<'a>(role: Option<Role>, fields: &mut Fields<'a>, report: &mut Report<'_>) -> Option<Cow<'a, str>> {
    match fields.take("content") {
        Some(Json::Array(parts)) => read_parts(parts, &fields.pointer("content"), report).map(Cow::Owned),
        Some(Json::Text(text)) => fields.as_text("content", Json::Text(text), report),
        Some(other) => {
            fields.wrong_type("content", "a string or an array of text parts", &other, report);
            None
        }
        None => {
            let (rule, what) = match role {
                Some(Role::Assistant) => (&rules::ANSWER_MISSING, "the assistant's message has no content"),
                _ => (&rules::FIELD_MISSING, "the field `content` is required"),
            };
            report.add(
                rule,
                fields.pointer("content"),
                format!("{what}; it must be a string or an array of text parts"),
            );
            None
        }
    }
}

fn read_parts(parts: Vec<Json<'_>>, pointer: &str, report: &mut Report<'_>) -> Option<String> {
    let mut texts: Vec<Option<String>> = Vec::with_capacity(parts.len());
    for (index, part) in parts.into_iter().enumerate() {
        texts.push(read_part(part, join(pointer, &index.to_string()), report));
    }
    texts.into_iter().collect()
}

/// One `{"type": "text", "text"}`.
fn read_part(part: Json<'_>, pointer: String, report: &mut Report<'_>) -> Option<String> {
    let Json::Object(object) = part else {
        let reason = format!("a part of the content must be an object with `type` and `text`; it is {}", part.kind());
        report.add(&rules::FIELD_TYPE, pointer, reason);
        return None;
    };
    let mut fields = Fields::new(object, pointer, report);
    let kind = fields.text("type", report)?;
    if kind != "text" {
        let reason = format!("content of type `{}` is not supported in training; only `text` is", shortened(&kind));
        report.add(&rules::NOT_SUPPORTED, fields.pointer("type"), reason);
        return None;
    }
    let text = fields.text("text", report).map(Cow::into_owned);
    fields.finish(report);
    text
}

fn check_answers(turns: &[Turn], report: &mut Report<'_>) {
    let last_answer = turns.iter().rposition(|turn| turn.role == Role::Assistant);
    match last_answer {
        None => {
            let reason = "the row has no answer: none of its messages has the role assistant";
            report.add(&rules::ANSWER_MISSING, "/messages", reason);
        }
        Some(_) if !turns.iter().any(Turn::is_supervised) => {
            let reason = "every answer has the weight 0, so there is nothing to learn";
            report.add(&rules::NO_SUPERVISED_MESSAGE, "/messages", reason);
        }
        Some(last) if last + 1 < turns.len() => {
            let reason = "messages after the last answer teach nothing and are left out";
            report.add(&rules::ANSWER_NOT_LAST, format!("/messages/{}", last + 1), reason);
        }
        Some(_) => {}
    }
}

fn check_order(turns: &[Turn], report: &mut Report<'_>) {
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
        report.add(&rules::ROLE_ORDER, format!("/messages/{index}/role"), reason);
    }
}
