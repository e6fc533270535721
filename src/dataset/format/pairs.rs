//! Rows of one question and one answer: `{"prompt", "completion"}` and Alpaca's `{"instruction", "input", "output"}`.

use std::borrow::Cow;

use super::{Report, fields::Fields};
use crate::{
    example::{Example, Role, Turn},
    json::{Json, Object},
    rules,
};

pub(super) fn read_prompt_completion(object: Object<'_>, report: &mut Report<'_>) -> Option<(Example, f32)> {
    let mut fields = Fields::new(object, String::new(), report);
    let prompt = fields.text("prompt", report);
    let completion = fields.answer("completion", report);
    check_prompt("prompt", prompt.as_deref(), report);
    let weight = fields.row_weight(report);
    fields.finish(report);
    let example = Example::PromptCompletion { prompt: prompt?.into_owned(), completion: completion?.into_owned() };
    Some((example, weight?))
}

pub(super) fn read_alpaca(object: Object<'_>, report: &mut Report<'_>) -> Option<(Example, f32)> {
    let mut fields = Fields::new(object, String::new(), report);
    let instruction = fields.text("instruction", report);
    let input = fields.take("input").unwrap_or(Json::Text("".into()));
    let input = fields.as_text("input", input, report);
    let output = fields.answer("output", report);
    let system = fields.take("system").map(|value| fields.as_text("system", value, report).map(Cow::into_owned));
    let history = read_history(&mut fields, report);
    check_prompt("instruction", instruction.as_deref(), report);
    let weight = fields.row_weight(report);
    fields.finish(report);
    let (instruction, input, output) = (instruction?.into_owned(), input?.into_owned(), output?.into_owned());
    let system = match system {
        Some(system) => Some(system?).filter(|system| !system.is_empty()),
        None => None,
    };
    let history = history?;
    if system.is_none() && history.is_empty() {
        return Some((Example::Alpaca { instruction, input, output }, weight?));
    }
    let mut turns: Vec<Turn> = system.map(|system| Turn::new(Role::System, system)).into_iter().collect();
    for [question, answer] in history {
        turns.extend([Turn::new(Role::User, question), Turn::new(Role::Assistant, answer)]);
    }
    let question = if input.is_empty() { instruction } else { format!("{instruction}\n{input}") };
    turns.extend([Turn::new(Role::User, question), Turn::new(Role::Assistant, output)]);
    Some((Example::Chat { turns, tools: Vec::new() }, weight?))
}

/// Earlier questions and their answers: `[["q", "a"], ...]`; absent, null and empty are none.
fn read_history(fields: &mut Fields<'_>, report: &mut Report<'_>) -> Option<Vec<[String; 2]>> {
    const WANTED: &str = "an array of pairs of strings, a question and its answer";
    let pairs = match fields.take("history") {
        None => return Some(Vec::new()),
        Some(Json::Text(text)) if text.is_empty() => return Some(Vec::new()),
        Some(Json::Array(pairs)) => pairs,
        Some(other) => {
            fields.wrong_type("history", WANTED, &other, report);
            return None;
        }
    };
    let mut history = Vec::with_capacity(pairs.len());
    for (index, pair) in pairs.into_iter().enumerate() {
        let texts = match pair {
            Json::Array(texts) => <[Json<'_>; 2]>::try_from(texts).ok(),
            _ => None,
        };
        let Some([Json::Text(question), Json::Text(answer)]) = texts else {
            let reason = format!("item {index} of `history` is no pair; it must be {WANTED}");
            report.add(&rules::FIELD_TYPE, format!("/history/{index}"), reason);
            return None;
        };
        for (place, text) in [&question, &answer].into_iter().enumerate() {
            report.check_characters(text, &format!("/history/{index}/{place}"));
        }
        history.push([question.into_owned(), answer.into_owned()]);
    }
    Some(history)
}

pub(super) fn check_prompt(name: &str, text: Option<&str>, report: &mut Report<'_>) {
    if text.is_some_and(|text| text.trim().is_empty()) {
        report.add(&rules::PROMPT_EMPTY, format!("/{name}"), format!("`{name}` is empty: the answer follows nothing"));
    }
}
