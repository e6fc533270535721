//! Rows as text: one JSON object a row, whatever the layout of their file; and what two such lists differ in.

use std::time::{Duration, Instant};

use finetuned_protocol::lint::{Finding, ReadingSpec};
use serde::{Serialize, Serializer, ser::SerializeMap};
use sha2::{Digest, Sha256};
use similar::{Algorithm, DiffOp, capture_diff_slices_deadline};

use crate::{
    container::Container,
    json::{Json, Object},
    reader::fault_of_piece,
    splitter::Piece,
};

/// How long rows are compared before the rest is taken for replaced.
const DIFF_TIME: Duration = Duration::from_secs(5);

/// A row as it stands in its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowText {
    /// Line where the row starts, counted from 1.
    pub line: u64,
    /// Without line breaks. JSON, where the row is; the fields of a table or of a text as a JSON object.
    pub text: Vec<u8>,
}

/// Rows of a file whose bytes are pushed, in flat memory. Rows that cannot be trained on are rows here as well.
pub struct RowTexts {
    container: Container,
}

impl RowTexts {
    pub fn new(reading: &ReadingSpec) -> Self {
        Self { container: Container::new(reading) }
    }

    /// The next bytes of the file. A finding says what is no row, and ends the reading of some layouts.
    pub fn feed(&mut self, bytes: &[u8], each: &mut dyn FnMut(Result<RowText, Finding>)) {
        self.container.feed(bytes, &mut |piece| each(text_of(piece)));
    }

    /// The end of the file.
    pub fn finish(self, each: &mut dyn FnMut(Result<RowText, Finding>)) {
        self.container.finish(&mut |piece| each(text_of(piece)));
    }
}

fn text_of(piece: Piece<'_>) -> Result<RowText, Finding> {
    match piece {
        Piece::Row { place, bytes, .. } => {
            // Within JSON, a line break is white space between values; a string has it escaped.
            let text = bytes.trim_ascii().iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte });
            Ok(RowText { line: place.line, text: text.collect() })
        }
        Piece::Object { place, object } => {
            // Plain data, which can always be written.
            let text = serde_json::to_vec(&Fields(&object)).unwrap_or_default();
            Ok(RowText { line: place.line, text })
        }
        other => Err(fault_of_piece(&other)),
    }
}

/// Fields of a table's row: an empty cell is none.
struct Fields<'o, 'a>(&'o Object<'a>);

impl Serialize for Fields<'_, '_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (name, value) in self.0.iter().filter(|(_, value)| *value != Json::Null) {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

/// A difference of two lists of rows, by their places in them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowChange {
    Added {
        after: usize,
    },
    Removed {
        before: usize,
    },
    /// Another row stands in its place.
    Changed {
        before: usize,
        after: usize,
    },
}

/// What was added, removed and changed, in the order of the rows. Rows are equal where their JSON is, whatever the white
/// space. Between rows that both lists have, the first of one list's own is taken for what the first of the other's
/// became, and so on; a row that moved is removed and added.
pub fn diff_rows(before: &[RowText], after: &[RowText]) -> Vec<RowChange> {
    let digests = |rows: &[RowText]| rows.iter().map(|row| digest(&row.text)).collect::<Vec<_>>();
    let (old, new) = (digests(before), digests(after));
    let mut changes = Vec::new();
    for op in capture_diff_slices_deadline(Algorithm::Patience, &old, &new, Some(Instant::now() + DIFF_TIME)) {
        if matches!(op, DiffOp::Equal { .. }) {
            continue;
        }
        let (old, new) = (op.old_range(), op.new_range());
        let both = old.len().min(new.len());
        changes.extend((0..both).map(|at| RowChange::Changed { before: old.start + at, after: new.start + at }));
        changes.extend((old.start + both..old.end).map(|before| RowChange::Removed { before }));
        changes.extend((new.start + both..new.end).map(|after| RowChange::Added { after }));
    }
    changes
}

fn digest(text: &[u8]) -> [u8; 32] {
    match serde_json::from_slice::<serde_json::Value>(text) {
        Ok(value) => Sha256::digest(value.to_string()).into(),
        Err(_) => Sha256::digest(text).into(),
    }
}

#[cfg(test)]
mod tests {
    use finetuned_protocol::lint::FileLayout;
    use proptest::prelude::*;

    use super::*;

    fn read(layout: Option<FileLayout>, file: &str) -> Vec<Result<(u64, String), String>> {
        let mut rows = RowTexts::new(&ReadingSpec { layout, ..ReadingSpec::default() });
        let mut found = Vec::new();
        let mut take = |row: Result<RowText, Finding>| {
            found.push(match row {
                Ok(row) => Ok((row.line, String::from_utf8_lossy(&row.text).into_owned())),
                Err(finding) => Err(finding.rule),
            });
        };
        rows.feed(file.as_bytes(), &mut take);
        rows.finish(&mut take);
        found
    }

    #[test]
    fn every_layout_gives_one_object_a_row() {
        let row = |line, text: &str| Ok((line, text.to_owned()));
        assert_eq!(read(None, "{\"a\": 1}\n\n {\"a\"}\n"), [row(1, "{\"a\": 1}"), row(3, "{\"a\"}")]);
        assert_eq!(read(None, "[\n{\"a\":\n 1},\n{\"b\": [2]}]"), [row(2, "{\"a\":  1}"), row(4, "{\"b\": [2]}")]);
        let table = "prompt,completion\n\"a \"\"b\"\"\",c\nd,\n";
        let rows = [row(2, r#"{"prompt":"a \"b\"","completion":"c"}"#), row(3, r#"{"prompt":"d"}"#)];
        assert_eq!(read(Some(FileLayout::Csv), table), rows);
        assert_eq!(read(None, "[{\"a\": 1}"), [row(1, "{\"a\": 1}"), Err("truncated".to_owned())]);
    }

    fn rows(texts: &[&str]) -> Vec<RowText> {
        texts.iter().zip(1..).map(|(text, line)| RowText { line, text: text.as_bytes().to_vec() }).collect()
    }

    #[test]
    fn rows_are_added_removed_and_changed() {
        let before = rows(&[r#"{"a": 1}"#, r#"{"a": 2}"#, r#"{"a": 3}"#, r#"{"a": 4}"#]);
        let after = rows(&[r#"{"a":1}"#, r#"{"a": 20}"#, r#"{"a": 4}"#, r#"{"a": 5}"#]);
        let changed = RowChange::Changed { before: 1, after: 1 };
        assert_eq!(
            diff_rows(&before, &after),
            [changed, RowChange::Removed { before: 2 }, RowChange::Added { after: 3 }]
        );
        assert!(diff_rows(&before, &before).is_empty());
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Carrying the changes out on the one list gives the other.
        #[test]
        fn changes_lead_from_one_list_to_the_other(
            before in prop::collection::vec(0_u8..6, 0..20), after in prop::collection::vec(0_u8..6, 0..20),
        ) {
            let lists = [&before, &after].map(|list| list.iter().map(u8::to_string).collect::<Vec<_>>());
            let of = |list: &[String]| rows(&list.iter().map(String::as_str).collect::<Vec<_>>());
            let changes = diff_rows(&of(&lists[0]), &of(&lists[1]));
            let gone: Vec<usize> = changes.iter().filter_map(|change| match change {
                RowChange::Removed { before } | RowChange::Changed { before, .. } => Some(*before),
                RowChange::Added { .. } => None,
            }).collect();
            let come: Vec<usize> = changes.iter().filter_map(|change| match change {
                RowChange::Added { after } | RowChange::Changed { after, .. } => Some(*after),
                RowChange::Removed { .. } => None,
            }).collect();
            let kept = |list: &[u8], without: &[usize]| {
                let rows = list.iter().enumerate().filter(|(at, _)| !without.contains(at));
                rows.map(|(_, row)| *row).collect::<Vec<_>>()
            };
            prop_assert_eq!(kept(&before, &gone), kept(&after, &come));
        }
    }
}
