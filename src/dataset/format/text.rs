//! Documents to go on with pretraining on: `{"text"}`.

use super::{Report, fields::Fields};
use crate::{example::Example, json::Object, rules};

pub(super) fn read(object: Object<'_>, report: &mut Report<'_>) -> Option<Example> {
    let mut fields = Fields::new(object, String::new(), report);
    fields.refuse_weight("documents have no weight; repeat a row that shall count more", report);
    let text = fields.text("text", report);
    fields.finish(report);
    let text = text?;
    if text.trim().is_empty() {
        report.add(&rules::TEXT_EMPTY, "/text", "the document is empty; remove the row");
    }
    Some(Example::Text(text.into_owned()))
}
