//! Edits of a file's rows, one JSON object a line.

use std::collections::BTreeMap;

use finetuned_dataset::RowText;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use crate::http::error::{ApiError, Code};

/// Particulars of an error, at most.
const MAX_DETAILS: usize = 100;

/// One edit. Read from JSON lines, so this type describes a line.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RowEdit {
    /// Line where the row starts in the file, counted from 1; without it, `row` is added at the end.
    #[schema(minimum = 1)]
    line: Option<u64>,
    /// The row as it shall be.
    #[schema(value_type = Option<Object>)]
    row: Option<Map<String, Value>>,
    /// True to leave the row out.
    #[serde(default)]
    remove: bool,
    /// What a list of rows to mend says beside a row; read over.
    #[allow(dead_code)]
    object: Option<Value>,
    #[allow(dead_code)]
    pointer: Option<Value>,
    #[allow(dead_code)]
    rank: Option<Value>,
    #[allow(dead_code)]
    score: Option<Value>,
    #[allow(dead_code)]
    reason: Option<Value>,
    #[allow(dead_code)]
    categories: Option<Value>,
    #[allow(dead_code)]
    near: Option<Value>,
}

/// What becomes of a row.
#[derive(Debug, PartialEq)]
enum Edit {
    Replace(Value),
    Remove,
}

/// Edits by line, carried out while the rows pass by.
#[derive(Debug, Default)]
pub struct Edits {
    by_line: BTreeMap<u64, Edit>,
    added: Vec<Vec<u8>>,
    done: Done,
}

/// Rows that edits concerned.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Done {
    pub changed: u64,
    pub removed: u64,
    pub added: u64,
}

impl Edits {
    /// # Errors
    /// A 400 that names each line of the body that is no edit.
    pub fn parse(body: &[u8]) -> Result<Self, ApiError> {
        let mut edits = Self::default();
        let mut faults = Vec::new();
        for (number, line) in (1_u64..).zip(body.split(|byte| *byte == b'\n')) {
            if line.trim_ascii().is_empty() {
                continue;
            }
            if let Err(reason) = edits.add(line) {
                faults.push(json!({"line": number, "reason": reason}));
            }
        }
        if let Some(first) = faults.first() {
            let total = faults.len() as u64;
            let message =
                format!("{total} lines of the body are no edits; line {}: {}", first["line"], first["reason"]);
            faults.truncate(MAX_DETAILS);
            return Err(ApiError::new(Code::InvalidBody, message).details(faults, total));
        }
        if edits.by_line.is_empty() && edits.added.is_empty() {
            let message =
                "the body has no edit; send lines like {\"line\": 3, \"row\": {…}} or {\"line\": 3, \"remove\": true}";
            return Err(ApiError::new(Code::InvalidBody, message));
        }
        Ok(edits)
    }

    fn add(&mut self, line: &[u8]) -> Result<(), String> {
        let edit: RowEdit = serde_json::from_slice(line).map_err(|error| error.to_string())?;
        let (line, edit) = match (edit.line, edit.row, edit.remove) {
            (None, Some(row), false) => {
                self.added.push(Value::Object(row).to_string().into_bytes());
                return Ok(());
            }
            (Some(line @ 1..), Some(row), false) => (line, Edit::Replace(Value::Object(row))),
            // The row that stands beside it is the one that a list showed.
            (Some(line @ 1..), _, true) => (line, Edit::Remove),
            _ => return Err("an edit has `line` and `row`, `line` and `remove: true`, or `row` alone".to_owned()),
        };
        match self.by_line.insert(line, edit) {
            None => Ok(()),
            Some(_) => Err(format!("line {line} is edited twice")),
        }
    }

    /// The row as it shall be, or `None` where it is left out.
    pub fn of(&mut self, row: RowText) -> Option<Vec<u8>> {
        match self.by_line.remove(&row.line) {
            None => Some(row.text),
            // A row that is sent back as it was stays as it was written.
            Some(Edit::Replace(wanted)) if serde_json::from_slice::<Value>(&row.text).is_ok_and(|is| is == wanted) => {
                Some(row.text)
            }
            Some(Edit::Replace(wanted)) => {
                self.done.changed += 1;
                Some(wanted.to_string().into_bytes())
            }
            Some(Edit::Remove) => {
                self.done.removed += 1;
                None
            }
        }
    }

    /// The rows to be added, after all others have passed by.
    ///
    /// # Errors
    /// A 400 that names the lines in which no row starts, or says that nothing would differ.
    pub fn finish(self) -> Result<(Vec<Vec<u8>>, Done), ApiError> {
        let total = self.by_line.len() as u64;
        if total > 0 {
            let lines: Vec<Value> = self.by_line.keys().take(MAX_DETAILS).map(|line| json!({ "line": line })).collect();
            let message =
                format!("no row of the file starts in line {}; {total} edits are of no row", lines[0]["line"]);
            return Err(ApiError::invalid("line", message).details(lines, total));
        }
        let done = Done { added: self.added.len() as u64, ..self.done };
        if done == Done::default() {
            return Err(ApiError::invalid("row", "no edit changes its row, so there is no next version to make"));
        }
        Ok((self.added, done))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn carried_out(body: &str, rows: &[&str]) -> Result<Vec<String>, ApiError> {
        let mut edits = Edits::parse(body.as_bytes())?;
        let rows = rows.iter().zip(1..).map(|(text, line)| RowText { line, text: text.as_bytes().to_vec() });
        let mut done: Vec<Vec<u8>> = rows.filter_map(|row| edits.of(row)).collect();
        done.extend(edits.finish()?.0);
        Ok(done.into_iter().map(|row| String::from_utf8(row).unwrap()).collect())
    }

    #[test]
    fn rows_are_replaced_removed_and_added() {
        let body = "{\"line\": 2, \"row\": {\"b\": 20}, \"score\": 0.5}\n\n{\"row\": {\"d\": 4}}\n{\"line\": 1, \"row\": {\"a\": 1}, \"remove\": true}";
        let done = carried_out(body, &[r#"{"a": 1}"#, r#"{"b": 2}"#, r#"{"c": 3}"#]).unwrap();
        assert_eq!(done, [r#"{"b":20}"#, r#"{"c": 3}"#, r#"{"d":4}"#]);
    }

    #[test]
    fn what_is_no_edit_is_refused_with_its_line() {
        let rows = [r#"{"a": 1}"#];
        for (body, told) in [
            ("", "no edit"),
            ("{\"line\": 1}", "line 1"),
            ("{\"line\": 0, \"remove\": true}", "line 1"),
            ("\n{\"line\": 1, \"row\": [1]}", "line 2"),
            ("{\"remove\": true}", "`remove: true`"),
            ("{\"line\": 1, \"remove\": true}\n{\"line\": 1, \"row\": {}}", "twice"),
            ("{\"line\": 1, \"text\": \"x\"}", "text"),
            ("{\"line\": 9, \"remove\": true}", "line 9"),
            ("{\"line\": 1, \"row\": {\"a\": 1}}", "no edit changes"),
        ] {
            let refused = format!("{:?}", carried_out(body, &rows).unwrap_err());
            assert!(refused.contains(told), "{body}: {refused}");
        }
    }
}
