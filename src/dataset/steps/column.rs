//! The value of a field that a step goes by.

use std::borrow::Cow;

use super::{Blame, Rows, StepError, StepSource, spool::Record};
use crate::json::{Json, Object};

/// A field by its name, for a step.
#[derive(Clone, Copy)]
pub(super) struct Column<'s> {
    pub name: &'s str,
    /// Of the step, and of its field that names the column.
    step: usize,
    field: &'static str,
    sources: &'s [StepSource<'s>],
}

impl Rows<'_> {
    pub(super) fn column<'s>(&'s self, name: &'s str, step: usize, field: &'static str) -> Column<'s> {
        Column { name, step, field, sources: self.plan.sources }
    }
}

impl Column<'_> {
    /// # Errors
    /// The row has no such field: a step cannot tell then what to do with the row.
    pub fn of<'v, 'f>(&self, record: &Record<'_>, fields: &'v Object<'f>) -> Result<&'v Json<'f>, StepError> {
        let found = fields.iter().find(|(name, value)| name == self.name && *value != Json::Null);
        found.map(|(_, value)| value).ok_or_else(|| {
            let names: Vec<String> = fields.iter().take(10).map(|(name, _)| format!("`{name}`")).collect();
            let line = record.line;
            self.refused(
                record,
                format!("the row of line {line} has no field `{}`; it has {}", self.name, names.join(", ")),
            )
        })
    }

    /// A refusal that names the row's file.
    pub fn refused(&self, record: &Record<'_>, message: String) -> StepError {
        let blame = Blame::Step { index: self.step, field: Some(self.field) };
        let source = self.sources.get(usize::from(record.source));
        let id = source.map_or_else(String::new, |source| format!("`{}`: ", source.record.file_id));
        StepError::refused(blame, id + &message)
    }
}

/// Equal for equal values, whatever their spelling.
pub(super) fn key<'v>(value: &'v Json<'_>) -> Cow<'v, [u8]> {
    match value {
        Json::Text(text) => Cow::Borrowed(text.as_bytes()),
        // Plain data can always be written.
        other => Cow::Owned(serde_json::to_vec(other).unwrap_or_default()),
    }
}
