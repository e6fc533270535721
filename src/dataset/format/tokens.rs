//! Rows that were tokenised elsewhere: `{"input_ids", "labels"}`.

use super::{Report, fields::Fields};
use crate::{
    example::Example,
    json::{Json, Object},
    prepare::IGNORED_LABEL,
    rules,
};

pub(super) fn read(object: Object<'_>, report: &mut Report<'_>) -> Option<(Example, f32)> {
    let mut fields = Fields::new(object, String::new(), report);
    let ids = numbers("input_ids", &mut fields, report);
    let labels = numbers("labels", &mut fields, report);
    let weight = fields.row_weight(report);
    fields.finish(report);
    let input_ids = token_ids(&ids?, report)?;
    let labels = labels?;
    if labels.len() != input_ids.len() {
        let reason = format!("there are {} labels for {} tokens", labels.len(), input_ids.len());
        report.add(&rules::LABELS_LENGTH, "/labels", reason);
        return None;
    }
    let is_wrong = |(id, label): (&u32, &i64)| *label != IGNORED_LABEL && *label != i64::from(*id);
    if let Some(index) = input_ids.iter().zip(&labels).position(is_wrong) {
        let (id, label) = (input_ids[index], labels[index]);
        let reason = format!(
            "label {index} is {label}; it must be -100 or {id}, the token at its own place (training shifts by one)"
        );
        report.add(&rules::LABELS_MISMATCH, format!("/labels/{index}"), reason);
        return None;
    }
    if labels.iter().skip(1).all(|label| *label == IGNORED_LABEL) {
        let reason = "no token after the first has a label other than -100, so there is nothing to learn";
        report.add(&rules::ANSWER_MISSING, "/labels", reason);
    }
    Some((Example::Tokens { input_ids, labels }, weight?))
}

/// A required array of whole numbers; only its first fault is named.
fn numbers(name: &str, fields: &mut Fields<'_>, report: &mut Report<'_>) -> Option<Vec<i64>> {
    let wanted = "an array of whole numbers";
    let Some(value) = fields.take(name) else {
        let reason = format!("the field `{name}` is required and must be {wanted}");
        report.add(&rules::FIELD_MISSING, fields.pointer(name), reason);
        return None;
    };
    let Json::Array(items) = value else {
        fields.wrong_type(name, wanted, &value, report);
        return None;
    };
    let mut numbers = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        let Json::Integer(number) = item else {
            let reason = format!("`{name}` must be {wanted}; item {index} is {}", item.kind());
            report.add(&rules::FIELD_TYPE, format!("/{name}/{index}"), reason);
            return None;
        };
        numbers.push(*number);
    }
    Some(numbers)
}

fn token_ids(numbers: &[i64], report: &mut Report<'_>) -> Option<Vec<u32>> {
    let ids: Result<Vec<u32>, usize> =
        numbers.iter().enumerate().map(|(index, number)| u32::try_from(*number).map_err(|_| index)).collect();
    ids.map_err(|index| {
        let reason = format!("item {index} of `input_ids` is {}, which is no token id", numbers[index]);
        report.add(&rules::TOKEN_INVALID, format!("/input_ids/{index}"), reason);
    })
    .ok()
}
