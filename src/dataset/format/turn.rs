//! One message of a chat.

use std::borrow::Cow;

use super::{
    Report,
    fields::{Fields, join, shortened},
    tools::read_calls,
};
use crate::{
    example::{Role, Turn},
    json::Json,
    rules,
};

/// Turns of an array at `pointer`; `None` where one of them cannot be read, after all were looked at.
pub(super) fn read_turns(pointer: &str, messages: Vec<Json<'_>>, report: &mut Report<'_>) -> Option<Vec<Turn>> {
    let mut turns: Vec<Option<Turn>> = Vec::with_capacity(messages.len());
    for (index, message) in messages.into_iter().enumerate() {
        let pointer = format!("{pointer}/{index}");
        match message {
            Json::Array(pair) => turns.extend(read_pair(pointer, pair, report)),
            message => turns.push(read_turn(pointer, message, report)),
        }
    }
    turns.into_iter().collect()
}

/// A question and its answer as two strings, as some ShareGPT files have them.
fn read_pair(pointer: String, pair: Vec<Json<'_>>, report: &mut Report<'_>) -> Vec<Option<Turn>> {
    let Ok([Json::Text(question), Json::Text(answer)]) = <[Json<'_>; 2]>::try_from(pair) else {
        let reason = "a pair must be two strings, a question and its answer; other messages are objects";
        report.add(&rules::FIELD_TYPE, pointer, reason);
        return vec![None];
    };
    let turns = [(Role::User, question), (Role::Assistant, answer)];
    let read = |(place, (role, text)): (usize, (Role, Cow<'_, str>))| {
        let pointer = format!("{pointer}/{place}");
        report.check_characters(&text, &pointer);
        let turn = Turn::new(role, text);
        check_content(&turn, pointer, report);
        Some(turn)
    };
    turns.into_iter().enumerate().map(read).collect()
}

/// A turn in OpenAI's spelling or in ShareGPT's.
pub(super) fn read_turn(pointer: String, message: Json<'_>, report: &mut Report<'_>) -> Option<Turn> {
    let Json::Object(object) = message else {
        let reason = format!("a message must be an object; it is {}", message.kind());
        report.add(&rules::FIELD_TYPE, pointer, reason);
        return None;
    };
    let mut fields = Fields::new(object, pointer, report);
    if fields.has("from") || fields.has("value") {
        return read_sharegpt(fields, report);
    }
    for name in ["audio", "refusal"] {
        fields.refuse(name, report);
    }
    let role = read_role(&mut fields, report);
    let is_tool = matches!(role, Some(Role::Tool | Role::Function));
    let calls = if role == Some(Role::Assistant) { read_calls(&mut fields, report) } else { Some(Vec::new()) };
    let call_id = if is_tool { fields.take("tool_call_id") } else { None };
    let call_id = call_id.and_then(|id| fields.as_text("tool_call_id", id, report));
    let name = if is_tool { fields.take("name") } else { None };
    let name = name.and_then(|name| fields.as_text("name", name, report));
    // Only answers have a weight; elsewhere it is a field like any other that is not used.
    let weight = if role == Some(Role::Assistant) { fields.weight(report) } else { Some(1.0) };
    let has_calls = calls.as_ref().is_none_or(|calls| !calls.is_empty());
    let content = if has_calls && !fields.has("content") {
        fields.take("content");
        Some(Cow::Borrowed(""))
    } else {
        read_content(role, &mut fields, report)
    };
    let content_pointer = fields.pointer("content");
    fields.finish(report);
    let content = content?.into_owned();
    let [call_id, name] = [call_id, name].map(|text| text.map(Cow::into_owned));
    let turn = Turn { role: role?, content, weight: weight?, calls: calls?, call_id, name };
    check_content(&turn, content_pointer, report);
    Some(turn)
}

/// `{"from", "value"}`.
fn read_sharegpt(mut fields: Fields<'_>, report: &mut Report<'_>) -> Option<Turn> {
    let role = fields.text("from", report).and_then(|from| match &*from {
        "human" | "user" => Some(Role::User),
        "gpt" | "assistant" | "chatgpt" => Some(Role::Assistant),
        "system" => Some(Role::System),
        "tool" | "observation" => Some(Role::Tool),
        _ => {
            let from = shortened(&from);
            let reason =
                format!("`{from}` is unknown; `from` must be one of human, user, gpt, assistant, system, tool");
            report.add(&rules::ROLE_UNKNOWN, fields.pointer("from"), reason);
            None
        }
    });
    let weight = if role == Some(Role::Assistant) { fields.weight(report) } else { Some(1.0) };
    let content = fields.text("value", report);
    let pointer = fields.pointer("value");
    fields.finish(report);
    let turn = Turn { weight: weight?, ..Turn::new(role?, content?) };
    check_content(&turn, pointer, report);
    Some(turn)
}

fn check_content(turn: &Turn, pointer: String, report: &mut Report<'_>) {
    if turn.content.trim().is_empty() {
        if !turn.calls.is_empty() {
            // It says what it calls.
        } else if turn.is_supervised() {
            let reason = "the answer is empty; write one, give it the weight 0, or remove the row";
            report.add(&rules::ANSWER_EMPTY, pointer, reason);
        } else if turn.role == Role::User {
            report.add(&rules::PROMPT_EMPTY, pointer, "the user's message is empty");
        }
    }
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
