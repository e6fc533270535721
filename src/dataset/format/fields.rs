//! Fields of an object, taken out one by one; what is left at the end is unknown.

use std::borrow::Cow;

use super::Report;
use crate::{
    json::{Json, Object},
    rules,
};

/// Largest weight of an answer or a row.
const MAX_WEIGHT: f64 = 100.0;

/// An object under inspection, with the JSON pointer that leads to it.
pub(super) struct Fields<'a> {
    pointer: String,
    left: Object<'a>,
}

impl<'a> Fields<'a> {
    /// Reports fields that are named twice; the first of them counts.
    pub fn new(object: Object<'a>, pointer: String, report: &mut Report<'_>) -> Self {
        let mut left: Object<'a> = Vec::with_capacity(object.len());
        for (name, value) in object {
            // Rows have few fields; a hostile one with many is caught by the limit of values only if this stays cheap.
            if left.len() < 64 && left.iter().any(|(known, _)| *known == name) {
                let pointer = join(&pointer, &name);
                report.add(&rules::FIELD_REPEATED, pointer, format!("the field `{}` is there twice", shortened(&name)));
            } else {
                left.push((name, value));
            }
        }
        Self { pointer, left }
    }

    /// The pointer of one of the object's fields.
    pub fn pointer(&self, name: &str) -> String {
        join(&self.pointer, name)
    }

    /// Takes a field out; null counts as absent.
    pub fn take(&mut self, name: &str) -> Option<Json<'a>> {
        let index = self.left.iter().position(|(field, _)| field == name)?;
        let (_, value) = self.left.remove(index);
        (value != Json::Null).then_some(value)
    }

    /// Whether the field is there; null counts as absent.
    pub fn has(&self, name: &str) -> bool {
        self.left.iter().any(|(field, value)| field == name && *value != Json::Null)
    }

    /// The `weight` of an answer, 1 where there is none. `None` where it is no weight.
    pub fn weight(&mut self, report: &mut Report<'_>) -> Option<f32> {
        let weight = match self.take("weight") {
            None => return Some(1.0),
            Some(Json::Integer(number)) => number as f64,
            Some(Json::Float(number)) => number,
            Some(_) => f64::NAN,
        };
        if (0.0..=MAX_WEIGHT).contains(&weight) {
            return Some(weight as f32);
        }
        let reason = "`weight` must be a number from 0 (no loss on this answer) to 100; 1 is usual";
        report.add(&rules::WEIGHT_INVALID, self.pointer("weight"), reason);
        None
    }

    /// The `weight` of a whole row, which must leave something to learn.
    pub fn row_weight(&mut self, report: &mut Report<'_>) -> Option<f32> {
        let weight = self.weight(report)?;
        if weight == 0.0 {
            let reason = "the row has the weight 0, so there is nothing to learn; remove it";
            report.add(&rules::WEIGHT_INVALID, self.pointer("weight"), reason);
            return None;
        }
        Some(weight)
    }

    /// A required string.
    pub fn text(&mut self, name: &str, report: &mut Report<'_>) -> Option<Cow<'a, str>> {
        match self.take(name) {
            Some(value) => self.as_text(name, value, report),
            None => {
                let reason = format!("the field `{name}` is required and must be a string");
                report.add(&rules::FIELD_MISSING, self.pointer(name), reason);
                None
            }
        }
    }

    /// An answer that must be there and say something.
    pub fn answer(&mut self, name: &str, report: &mut Report<'_>) -> Option<Cow<'a, str>> {
        let Some(value) = self.take(name) else {
            let reason = format!("the row has no answer: the field `{name}` is required and must be a string");
            report.add(&rules::ANSWER_MISSING, self.pointer(name), reason);
            return None;
        };
        let text = self.as_text(name, value, report)?;
        if text.trim().is_empty() {
            let reason = format!("the answer in `{name}` is empty; write one or remove the row");
            report.add(&rules::ANSWER_EMPTY, self.pointer(name), reason);
        }
        Some(text)
    }

    /// A field that is there, as a string.
    pub fn as_text(&self, name: &str, value: Json<'a>, report: &mut Report<'_>) -> Option<Cow<'a, str>> {
        match value {
            Json::Text(text) => {
                if matches!(text, Cow::Owned(_)) {
                    report.check_characters(&text, &self.pointer(name));
                }
                Some(text)
            }
            other => {
                self.wrong_type(name, "a string", &other, report);
                None
            }
        }
    }

    pub fn wrong_type(&self, name: &str, wanted: &str, found: &Json<'_>, report: &mut Report<'_>) {
        let reason = format!("`{name}` must be {wanted}; it is {}", found.kind());
        report.add(&rules::FIELD_TYPE, self.pointer(name), reason);
    }

    /// A field whose content training would have to ignore. Null, `[]` and `{}` say nothing and are let pass.
    pub fn refuse(&mut self, name: &str, report: &mut Report<'_>) {
        let says_nothing = |value: &Json<'_>| match value {
            Json::Array(items) => items.is_empty(),
            Json::Object(fields) => fields.is_empty(),
            _ => false,
        };
        if self.take(name).is_some_and(|value| !says_nothing(&value)) {
            let reason = format!("`{name}` is not supported in training yet; remove it, or remove the row");
            report.add(&rules::NOT_SUPPORTED, self.pointer(name), reason);
        }
    }

    /// A `weight` where rows have none.
    pub fn refuse_weight(&mut self, reason: &str, report: &mut Report<'_>) {
        if self.take("weight").is_some() {
            report.add(&rules::NOT_SUPPORTED, self.pointer("weight"), reason);
        }
    }

    /// Reports every field that was not taken.
    pub fn finish(self, report: &mut Report<'_>) {
        for (name, _) in &self.left {
            let reason = format!("the field `{}` is not used in training", shortened(name));
            report.add(&rules::FIELD_UNKNOWN, self.pointer(name), reason);
        }
    }
}

/// A JSON pointer one step deeper (RFC 6901).
pub(super) fn join(pointer: &str, name: &str) -> String {
    format!("{pointer}/{}", shortened(name).replace('~', "~0").replace('/', "~1"))
}

/// Names come from outside; one of megabytes is cut.
pub(super) fn shortened(text: &str) -> Cow<'_, str> {
    const LONGEST: usize = 100;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => Cow::Owned(format!("{}…", &text[..end])),
        None => Cow::Borrowed(text),
    }
}
