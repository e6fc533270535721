//! Fields to an [`Example`], with every fault named.

mod chat;
mod fields;
mod pairs;
mod preference;
mod report;
mod text;
mod tokens;
mod tools;
mod turn;

use finetuned_protocol::lint::RowFormat;

use crate::{
    example::Example,
    json::{Json, Object},
    rules,
};
pub(crate) use report::Report;

/// The format that an object's fields speak of.
pub(crate) fn detect(object: &Object<'_>) -> Option<RowFormat> {
    let has = |name: &str| object.iter().any(|(field, _)| field == name);
    if preference::FIELDS.iter().any(|name| has(name)) {
        Some(RowFormat::Preference)
    } else if has("messages") || has("conversations") {
        Some(RowFormat::Chat)
    } else if has("input_ids") || has("labels") {
        Some(RowFormat::Tokens)
    } else if has("prompt") || has("completion") {
        Some(RowFormat::PromptCompletion)
    } else if has("instruction") || has("output") {
        Some(RowFormat::Alpaca)
    } else if has("text") {
        Some(RowFormat::Text)
    } else {
        None
    }
}

/// The fields of an object that speak for its format.
pub(crate) fn telling_fields(object: &Object<'_>) -> String {
    const TELLING: &[&str] = &[
        "messages",
        "conversations",
        "prompt",
        "completion",
        "instruction",
        "input",
        "output",
        "input_ids",
        "labels",
        "text",
        "chosen",
        "rejected",
        "preferred_output",
        "non_preferred_output",
        "preferred_completion",
        "non_preferred_completion",
    ];
    let named: Vec<&str> =
        TELLING.iter().copied().filter(|name| object.iter().any(|(field, _)| field == name)).collect();
    named.join(", ")
}

/// Reads an object as a row of `format`, with the row's weight. `None` where a finding of severity `error` was reported.
pub(crate) fn read(
    format: RowFormat,
    format_was_asked: bool,
    object: Object<'_>,
    report: &mut Report<'_>,
) -> Option<(Example, f32)> {
    match detect(&object) {
        Some(other) if other != format && !format_was_asked => {
            report.add(
                &rules::FORMAT_MIXED,
                "",
                format!("this row is {other}, the first readable row of the file is {format}; a file has one format"),
            );
            return None;
        }
        _ => {}
    }
    let read = match format {
        RowFormat::Chat => chat::read(object, report),
        RowFormat::PromptCompletion => pairs::read_prompt_completion(object, report),
        RowFormat::Alpaca => pairs::read_alpaca(object, report),
        RowFormat::Tokens => tokens::read(object, report),
        RowFormat::Text => text::read(object, report).map(|example| (example, 1.0)),
        RowFormat::Preference => preference::read(object, report).map(|example| (example, 1.0)),
    };
    read.filter(|_| !report.has_errors())
}

/// Reports an object that is of no format.
pub(crate) fn report_unknown(object: &Object<'_>, report: &mut Report<'_>) {
    let holds_rows =
        |value: &Json<'_>| matches!(value, Json::Array(items) if matches!(items[..], [Json::Object(_), ..]));
    if let Some((name, _)) = object.iter().find(|(_, value)| holds_rows(value)) {
        let name = fields::shortened(name);
        let reason = format!(
            "the rows seem to lie within the field `{name}`: upload that array alone, or each of its objects on a line"
        );
        return report.add(&rules::FORMAT_UNKNOWN, "", reason);
    }
    const MOST_NAMED: usize = 8;
    let named: Vec<String> =
        object.iter().take(MOST_NAMED).map(|(name, _)| format!("`{}`", fields::shortened(name))).collect();
    let has = if named.is_empty() { "no field".to_owned() } else { format!("the fields {}", named.join(", ")) };
    let reason = format!(
        "the row has {has}, and none of those of a format: `messages`; `conversations`; `prompt` and `completion`; \
         `instruction` and `output`; `text`; `input_ids` and `labels`; `input`, `preferred_output` and \
         `non_preferred_output`; `chosen` and `rejected`; name the file's own names for them in `columns`"
    );
    report.add(&rules::FORMAT_UNKNOWN, "", reason);
}
