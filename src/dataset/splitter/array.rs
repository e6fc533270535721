//! Rows that are the elements of one JSON array.
//!
//! Only brackets, commas and strings are looked at: enough to find where rows end, whatever is wrong within them. A
//! string ends at a line break at the latest, which JSON does not allow in one, so that a missing quote spoils no more
//! than it must.

use super::{Emit, Piece, Place, Position, RowBuffer};

pub(super) struct ArrayRows {
    buffer: RowBuffer,
    state: State,
    /// Where the row in the buffer starts.
    start: Place,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// After the opening bracket.
    First,
    /// After a comma.
    AfterComma,
    /// After a row.
    AfterRow,
    /// Within a row: open brackets, and whether a string is open.
    Within { depth: u64, text: Text },
    /// After the closing bracket.
    Closed,
    /// After text behind the closing bracket: nothing more is read.
    GivenUp,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Text {
    Outside,
    Inside,
    /// After a backslash.
    Escaped,
}

impl ArrayRows {
    pub fn new(max_row_bytes: usize) -> Self {
        Self { buffer: RowBuffer::new(max_row_bytes), state: State::First, start: Place { line: 1, column: 0 } }
    }

    pub fn feed(&mut self, mut bytes: &[u8], position: &mut Position, emit: Emit<'_>) {
        while !bytes.is_empty() {
            bytes = match self.state {
                State::Within { depth, text } => self.within(bytes, depth, text, position, emit),
                State::GivenUp => return,
                _ => self.between(bytes, position, emit),
            };
        }
    }

    pub fn finish(self, position: &Position, emit: Emit<'_>) {
        match self.state {
            State::Closed | State::GivenUp => {}
            State::Within { .. } => emit(Piece::Unclosed { place: self.start }),
            State::First | State::AfterComma | State::AfterRow => emit(Piece::Unclosed { place: position.place() }),
        }
    }

    /// Up to the next row, or the end of the portion.
    fn between<'b>(&mut self, bytes: &'b [u8], position: &mut Position, emit: Emit<'_>) -> &'b [u8] {
        let Some(index) = bytes.iter().position(|byte| !byte.is_ascii_whitespace()) else {
            position.advance(bytes);
            return &[];
        };
        position.advance(&bytes[..index]);
        let place = position.place();
        let mut misplaced = |what| emit(Piece::Misplaced { place, what });
        match (bytes[index], self.state) {
            (_, State::Closed) => {
                emit(Piece::Trailing { place });
                self.state = State::GivenUp;
                return &[];
            }
            (b',', state) => {
                if state != State::AfterRow {
                    misplaced("a comma without a row before it");
                }
                self.state = State::AfterComma;
            }
            (b']', state) => {
                if state == State::AfterComma {
                    misplaced("a comma before the closing bracket");
                }
                self.state = State::Closed;
            }
            (_, state) => {
                if state == State::AfterRow {
                    misplaced("a comma is missing between two rows");
                }
                self.start = place;
                self.state = State::Within { depth: 0, text: Text::Outside };
                return &bytes[index..];
            }
        }
        position.advance(&bytes[index..=index]);
        &bytes[index + 1..]
    }

    /// Up to the end of the row, or of the portion.
    fn within<'b>(
        &mut self,
        bytes: &'b [u8],
        mut depth: u64,
        mut text: Text,
        position: &mut Position,
        emit: Emit<'_>,
    ) -> &'b [u8] {
        let mut index = 0;
        while index < bytes.len() {
            match text {
                Text::Escaped => {
                    // A line break is looked at again: it ends the string.
                    index += usize::from(bytes[index] != b'\n');
                    text = Text::Inside;
                }
                Text::Inside => {
                    let Some(skipped) = memchr::memchr3(b'"', b'\\', b'\n', &bytes[index..]) else {
                        index = bytes.len();
                        continue;
                    };
                    index += skipped + 1;
                    text = if bytes[index - 1] == b'\\' { Text::Escaped } else { Text::Outside };
                }
                Text::Outside => match bytes[index] {
                    b',' | b']' if depth == 0 => return self.end(bytes, index, position, emit),
                    b'}' | b']' if depth == 1 => return self.end(bytes, index + 1, position, emit),
                    byte => {
                        match byte {
                            b'"' => text = Text::Inside,
                            b'{' | b'[' => depth += 1,
                            b'}' | b']' => depth = depth.saturating_sub(1),
                            _ => {}
                        }
                        index += 1;
                    }
                },
            }
        }
        self.buffer.push(bytes);
        self.state = State::Within { depth, text };
        position.advance(bytes);
        &[]
    }

    fn end<'b>(&mut self, bytes: &'b [u8], length: usize, position: &mut Position, emit: Emit<'_>) -> &'b [u8] {
        self.buffer.end(self.start, &bytes[..length], true, emit);
        self.state = State::AfterRow;
        position.advance(&bytes[..length]);
        &bytes[length..]
    }
}
