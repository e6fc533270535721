//! Rows that are lines.

use super::{Emit, Place, Position, RowBuffer};

pub(super) struct LineRows {
    buffer: RowBuffer,
    /// Where the line in the buffer starts.
    start: Place,
}

impl LineRows {
    pub fn new(max_row_bytes: usize, start: Place) -> Self {
        Self { buffer: RowBuffer::new(max_row_bytes), start }
    }

    pub fn feed(&mut self, mut bytes: &[u8], position: &mut Position, emit: Emit<'_>) {
        while let Some(newline) = memchr::memchr(b'\n', bytes) {
            let (line, rest) = (&bytes[..newline], &bytes[newline + 1..]);
            self.end(line, true, emit);
            position.line += 1;
            self.start = Place { line: position.line, column: 0 };
            bytes = rest;
        }
        self.buffer.push(bytes);
    }

    pub fn finish(mut self, emit: Emit<'_>) {
        self.end(&[], false, emit);
    }

    /// Blank lines are no rows.
    fn end(&mut self, last: &[u8], terminated: bool, emit: Emit<'_>) {
        if self.buffer.is_blank_with(last) {
            self.buffer.clear();
        } else {
            self.buffer.end(self.start, last, terminated, emit);
        }
    }
}
