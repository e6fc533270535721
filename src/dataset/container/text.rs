//! Plain text: each run of lines without a blank one is a row, `{"text"}`.

use std::borrow::Cow;

use crate::{
    json::Json,
    rules,
    splitter::{Emit, MAX_ROW_BYTES, Piece, Place},
};

#[derive(Default)]
pub(super) struct TextRows {
    /// Of the row at hand, with its line breaks.
    row: Vec<u8>,
    /// Line where it starts.
    start: u64,
    /// The part of a line that earlier portions brought.
    line: Vec<u8>,
    lines: u64,
    too_long: bool,
}

impl TextRows {
    pub fn feed(&mut self, mut bytes: &[u8], emit: Emit<'_>) {
        while let Some(newline) = memchr::memchr(b'\n', bytes) {
            self.push(&bytes[..newline]);
            self.end_line(emit);
            bytes = &bytes[newline + 1..];
        }
        self.push(bytes);
    }

    pub fn finish(mut self, emit: Emit<'_>) {
        self.end_line(emit);
        self.end_row(emit);
    }

    fn push(&mut self, bytes: &[u8]) {
        if self.row.len() + self.line.len() + bytes.len() > MAX_ROW_BYTES {
            self.too_long = true;
            self.row.clear();
            self.line.clear();
        }
        if !self.too_long {
            self.line.extend_from_slice(bytes);
        }
    }

    fn end_line(&mut self, emit: Emit<'_>) {
        self.lines += 1;
        if self.line.trim_ascii().is_empty() && !self.too_long {
            self.line.clear();
            return self.end_row(emit);
        }
        if self.start == 0 {
            self.start = self.lines;
        }
        self.row.append(&mut self.line);
        self.row.push(b'\n');
    }

    fn end_row(&mut self, emit: Emit<'_>) {
        let place = Place { line: self.start, column: 0 };
        if std::mem::take(&mut self.too_long) {
            let reason = "more than 16 MB of text without a blank line; put one between texts";
            emit(Piece::Fault { place, rule: &rules::ROW_TOO_LONG, reason: reason.to_owned() });
        } else if self.start > 0 {
            match std::str::from_utf8(self.row.trim_ascii_end()) {
                // Owned, so that its characters are checked.
                Ok(text) => emit(Piece::Object {
                    place,
                    object: vec![("text".into(), Json::Text(Cow::Owned(text.to_owned())))],
                }),
                Err(_) => {
                    let reason = "this is not UTF-8; save the file as UTF-8".to_owned();
                    emit(Piece::Fault { place, rule: &rules::NOT_UTF8, reason });
                }
            }
        }
        self.row.clear();
        self.start = 0;
    }
}
