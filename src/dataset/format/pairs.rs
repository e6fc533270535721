//! Rows of one question and one answer: `{"prompt", "completion"}` and Alpaca's `{"instruction", "input", "output"}`.

use super::{Report, fields::Fields};
use crate::{
    example::Example,
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
    check_prompt("instruction", instruction.as_deref(), report);
    let weight = fields.row_weight(report);
    fields.finish(report);
    let example = Example::Alpaca {
        instruction: instruction?.into_owned(),
        input: input?.into_owned(),
        output: output?.into_owned(),
    };
    Some((example, weight?))
}

pub(super) fn check_prompt(name: &str, text: Option<&str>, report: &mut Report<'_>) {
    if text.is_some_and(|text| text.trim().is_empty()) {
        report.add(&rules::PROMPT_EMPTY, format!("/{name}"), format!("`{name}` is empty: the answer follows nothing"));
    }
}
