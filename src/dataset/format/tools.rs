//! Tools and their calls, as OpenAI's chats have them: `tools` (or the older `functions`) beside the messages, an
//! assistant's `tool_calls` (or `function_call`), and the messages of tools, each of which answers a call.

use std::collections::HashSet;

use serde_json::Value;

use super::{
    Report,
    fields::{Fields, shortened},
};
use crate::{
    example::{Role, ToolCall, Turn},
    json::{self, Json},
    rules,
};

/// The functions that a chat may call, each as `{"type": "function", "function": {"name", ...}}`; `None` where a finding
/// says what is wrong.
pub(super) fn read_tools(fields: &mut Fields<'_>, report: &mut Report<'_>) -> Option<Vec<Value>> {
    let mut tools = Vec::new();
    let mut is_good = true;
    for name in ["tools", "functions"] {
        let pointer = fields.pointer(name);
        let given = match fields.take(name) {
            None => continue,
            Some(Json::Array(given)) => given.iter().map(json::to_value).collect(),
            // As files of columns have it.
            Some(Json::Text(text)) if text.trim().is_empty() => continue,
            Some(Json::Text(text)) => match serde_json::from_str(&text) {
                Ok(Value::Array(given)) => given,
                _ => {
                    let reason = format!("`{name}` is a string that holds no JSON array");
                    report.add(&rules::TOOL_INVALID, pointer, reason);
                    is_good = false;
                    continue;
                }
            },
            Some(other) => {
                fields.wrong_type(name, "an array", &other, report);
                is_good = false;
                continue;
            }
        };
        for (index, tool) in given.into_iter().enumerate() {
            let tool = if name == "tools" { tool } else { serde_json::json!({"type": "function", "function": tool}) };
            match fault_of(&tool) {
                Some(fault) => {
                    report.add(&rules::TOOL_INVALID, format!("{pointer}/{index}"), fault);
                    is_good = false;
                }
                None => tools.push(tool),
            }
        }
    }
    let mut names = HashSet::new();
    if let Some(twice) = tools.iter().filter_map(name_of).find(|name| !names.insert(*name)) {
        let reason = format!("two tools are called `{}`; calls could not be told apart", shortened(twice));
        report.add(&rules::TOOL_INVALID, fields.pointer("tools"), reason);
        is_good = false;
    }
    is_good.then_some(tools)
}

fn name_of(tool: &Value) -> Option<&str> {
    tool["function"]["name"].as_str()
}

fn fault_of(tool: &Value) -> Option<&'static str> {
    let function = &tool["function"];
    if tool["type"] != "function" || !function.is_object() {
        Some("a tool must be `{\"type\": \"function\", \"function\": {…}}`; tools of other types cannot be learned")
    } else if function["name"].as_str().is_none_or(|name| !is_name(name)) {
        Some("`name` of a function must be 1 to 64 letters, digits, underscores and hyphens")
    } else if !(function["parameters"].is_null() || function["parameters"].is_object()) {
        Some("`parameters` of a function must be an object, the JSON Schema of its arguments")
    } else if !(function["description"].is_null() || function["description"].is_string()) {
        Some("`description` of a function must be a string")
    } else {
        None
    }
}

/// As OpenAI has it; dots too, which other sources use.
fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
}

/// The calls of an assistant's message; `None` where a finding says what is wrong.
pub(super) fn read_calls(fields: &mut Fields<'_>, report: &mut Report<'_>) -> Option<Vec<ToolCall>> {
    let mut calls = Vec::new();
    let pointer = fields.pointer("tool_calls");
    match fields.take("tool_calls") {
        None => {}
        Some(Json::Array(items)) => {
            for (index, item) in items.into_iter().enumerate() {
                calls.push(read_call(format!("{pointer}/{index}"), item, report));
            }
        }
        Some(other) => {
            fields.wrong_type("tool_calls", "an array", &other, report);
            calls.push(None);
        }
    }
    let pointer = fields.pointer("function_call");
    match fields.take("function_call") {
        None => {}
        Some(function) => {
            calls.push(read_function(pointer, Some(function), report).map(|(name, arguments)| ToolCall {
                id: None,
                name,
                arguments,
            }))
        }
    }
    calls.into_iter().collect()
}

fn read_call(pointer: String, call: Json<'_>, report: &mut Report<'_>) -> Option<ToolCall> {
    let Json::Object(object) = call else {
        let reason = "a call must be `{\"id\", \"type\": \"function\", \"function\": {\"name\", \"arguments\"}}`";
        report.add(&rules::TOOL_CALL_INVALID, pointer, reason);
        return None;
    };
    let mut fields = Fields::new(object, pointer, report);
    let id = text_of(&mut fields, "id", "the tool's answer names it as `tool_call_id`", report);
    let kind = fields.take("type");
    if kind.as_ref().is_some_and(|kind| *kind != Json::Text("function".into())) {
        let reason = "`type` of a call must be `function`; calls of other types cannot be learned";
        report.add(&rules::TOOL_CALL_INVALID, fields.pointer("type"), reason);
    }
    // A stream's place of the call, which copies of a stream still have.
    fields.take("index");
    let pointer = fields.pointer("function");
    let function = fields.take("function");
    fields.finish(report);
    let (name, arguments) = read_function(pointer, function, report)?;
    Some(ToolCall { id: Some(id?), name, arguments })
}

/// `{"name", "arguments"}`, where the arguments are an object as a text.
fn read_function(pointer: String, function: Option<Json<'_>>, report: &mut Report<'_>) -> Option<(String, String)> {
    let Some(Json::Object(object)) = function else {
        let reason = "the function of a call must be an object with `name` and `arguments`";
        report.add(&rules::TOOL_CALL_INVALID, pointer, reason);
        return None;
    };
    let mut fields = Fields::new(object, pointer, report);
    let name = text_of(&mut fields, "name", "it is the function's", report);
    let arguments = match fields.take("arguments") {
        Some(Json::Text(text)) => {
            serde_json::from_str(&text).ok().filter(Value::is_object).map(|object: Value| object.to_string())
        }
        _ => None,
    };
    if arguments.is_none() {
        let reason = "`arguments` must be a JSON object written as a string, such as \"{\\\"city\\\": \\\"Oslo\\\"}\"";
        report.add(&rules::TOOL_CALL_INVALID, fields.pointer("arguments"), reason);
    }
    fields.finish(report);
    Some((name?, arguments?))
}

fn text_of(fields: &mut Fields<'_>, name: &str, why: &str, report: &mut Report<'_>) -> Option<String> {
    match fields.take(name) {
        Some(Json::Text(text)) if !text.is_empty() => Some(text.into_owned()),
        _ => {
            let reason = format!("`{name}` of a call must be a string: {why}");
            report.add(&rules::TOOL_CALL_INVALID, fields.pointer(name), reason);
            None
        }
    }
}

/// Whether every call names a tool, every tool's message answers a call of the assistant's message before it, and every
/// call that the chat goes on after is answered.
pub(super) fn check_calls(pointer: &str, turns: &[Turn], tools: &[Value], report: &mut Report<'_>) {
    let names: HashSet<&str> = tools.iter().filter_map(name_of).collect();
    let mut open: Vec<&ToolCall> = Vec::new();
    for (index, turn) in turns.iter().enumerate() {
        let place = format!("{pointer}/{index}");
        match turn.role {
            Role::Tool | Role::Function => match answered(turn, &open) {
                Ok(answered) => drop(open.remove(answered)),
                Err(reason) => report.add(&rules::TOOL_ANSWER_UNMATCHED, place, reason),
            },
            _ => {
                report_unanswered(&open, &place, report);
                open = turn.calls.iter().collect();
            }
        }
        let unknown = turn.calls.iter().enumerate().find(|(_, call)| !names.contains(call.name.as_str()));
        if let Some((call, unknown)) = unknown.filter(|_| !tools.is_empty()) {
            let reason = format!("the call names `{}`, which is none of the row's tools", shortened(&unknown.name));
            report.add(&rules::TOOL_UNKNOWN, format!("{pointer}/{index}/tool_calls/{call}"), reason);
        }
    }
}

fn report_unanswered(open: &[&ToolCall], place: &str, report: &mut Report<'_>) {
    if let Some(call) = open.first() {
        let reason = format!("the chat goes on without the answer of the tool `{}`", shortened(&call.name));
        report.add(&rules::TOOL_CALL_UNANSWERED, place, reason);
    }
}

/// Which of the open calls a tool's message answers: the one of its id, or of its name, or the first where it has neither.
fn answered(turn: &Turn, open: &[&ToolCall]) -> Result<usize, String> {
    if open.is_empty() {
        return Err("the tool's message follows no call of the assistant that is still open".to_owned());
    }
    let found = match (&turn.call_id, &turn.name) {
        (Some(id), _) => open.iter().position(|call| call.id.as_ref() == Some(id)),
        (None, Some(name)) => open.iter().position(|call| call.name == *name),
        (None, None) => Some(0),
    };
    found.ok_or_else(|| {
        let named = turn.call_id.as_ref().or(turn.name.as_ref()).map_or("", String::as_str);
        format!("the tool's message answers `{}`, which was not called or is answered already", shortened(named))
    })
}
