//! Bytes to rows, for both layouts, in flat memory: bytes are pushed in whatever portions they arrive, and a row that
//! lies whole in one portion is handed on without a copy.

mod array;
mod lines;

use array::ArrayRows;
use finetuned_protocol::lint::FileLayout;
use lines::LineRows;

use crate::{json::Object, rules::Rule};

/// Longest row, in bytes.
pub(crate) const MAX_ROW_BYTES: usize = 16 << 20;
/// A row buffer larger than this is given back once its row is done.
const KEPT_BUFFER_BYTES: usize = 1 << 20;
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Where a row starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// Counted from 1.
    pub line: u64,
    /// Bytes before it in its line.
    pub column: u64,
}

/// What is found in a file.
#[derive(Debug, PartialEq)]
pub(crate) enum Piece<'a> {
    /// The text of a row, perhaps with white space around it.
    Row {
        place: Place,
        bytes: &'a [u8],
        /// Whether something (a line break, a bracket) marks its end, rather than the end of the file.
        terminated: bool,
    },
    /// A row of more than [`MAX_ROW_BYTES`], passed over.
    TooLong { place: Place },
    /// The array's punctuation is wrong here.
    Misplaced { place: Place, what: &'static str },
    /// The file ends within a row of the array, or before the array is closed.
    Unclosed { place: Place },
    /// Text after the end of the array; the rest of the file is not read.
    Trailing { place: Place },
    /// A row that came as fields.
    Object { place: Place, object: Object<'a> },
    /// Anything else that is wrong.
    Fault { place: Place, rule: &'static Rule, reason: String },
}

pub(crate) type Emit<'e> = &'e mut dyn FnMut(Piece<'_>);

/// See the module.
pub(crate) struct Splitter {
    max_row_bytes: usize,
    position: Position,
    state: State,
}

enum State {
    /// So many bytes of a byte order mark were seen.
    Start(usize),
    /// White space before the first row.
    Undecided,
    Lines(LineRows),
    Array(ArrayRows),
}

impl Splitter {
    pub fn new() -> Self {
        Self::with_max_row_bytes(MAX_ROW_BYTES)
    }

    pub fn with_max_row_bytes(max_row_bytes: usize) -> Self {
        Self { max_row_bytes, position: Position { line: 1, offset: 0, line_start: 0 }, state: State::Start(0) }
    }

    /// `None` until the first byte that is not white space.
    pub fn layout(&self) -> Option<FileLayout> {
        match self.state {
            State::Start(_) | State::Undecided => None,
            State::Lines(_) => Some(FileLayout::JsonLines),
            State::Array(_) => Some(FileLayout::JsonArray),
        }
    }

    pub fn feed(&mut self, bytes: &[u8], emit: Emit<'_>) {
        let mut rest = bytes;
        if let State::Start(seen) = self.state {
            rest = self.skip_byte_order_mark(seen, rest, emit);
        }
        if matches!(self.state, State::Undecided) {
            rest = self.decide(rest);
        }
        match &mut self.state {
            State::Start(_) | State::Undecided => {}
            State::Lines(lines) => lines.feed(rest, &mut self.position, emit),
            State::Array(array) => array.feed(rest, &mut self.position, emit),
        }
    }

    pub fn finish(mut self, emit: Emit<'_>) {
        if let State::Start(seen @ 1..) = self.state {
            self.state = State::Undecided;
            self.feed(&BYTE_ORDER_MARK[..seen], emit);
        }
        match self.state {
            State::Start(_) | State::Undecided => {}
            State::Lines(lines) => lines.finish(emit),
            State::Array(array) => array.finish(&self.position, emit),
        }
    }

    fn skip_byte_order_mark<'b>(&mut self, mut seen: usize, bytes: &'b [u8], emit: Emit<'_>) -> &'b [u8] {
        for (index, byte) in bytes.iter().enumerate() {
            if *byte == BYTE_ORDER_MARK[seen] {
                seen += 1;
                if seen == BYTE_ORDER_MARK.len() {
                    self.state = State::Undecided;
                    return &bytes[index + 1..];
                }
            } else {
                self.state = State::Undecided;
                // Of no mark after all: what looked like its start belongs to the first row.
                self.feed(&BYTE_ORDER_MARK[..seen], emit);
                return &bytes[index..];
            }
        }
        self.state = State::Start(seen);
        &[]
    }

    /// The first byte that is not white space tells the layout.
    fn decide<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        let Some(first) = bytes.iter().position(|byte| !byte.is_ascii_whitespace()) else {
            self.position.advance(bytes);
            return &[];
        };
        self.position.advance(&bytes[..first]);
        if bytes[first] == b'[' {
            self.position.advance(b"[");
            self.state = State::Array(ArrayRows::new(self.max_row_bytes));
            &bytes[first + 1..]
        } else {
            self.state = State::Lines(LineRows::new(self.max_row_bytes, self.position.place()));
            &bytes[first..]
        }
    }
}

/// Where in the file the next byte lies.
struct Position {
    line: u64,
    offset: u64,
    line_start: u64,
}

impl Position {
    fn place(&self) -> Place {
        Place { line: self.line, column: self.offset - self.line_start }
    }

    fn advance(&mut self, bytes: &[u8]) {
        for newline in memchr::memchr_iter(b'\n', bytes) {
            self.line += 1;
            self.line_start = self.offset + newline as u64 + 1;
        }
        self.offset += bytes.len() as u64;
    }
}

/// The part of a row that earlier portions brought.
struct RowBuffer {
    bytes: Vec<u8>,
    max_bytes: usize,
    too_long: bool,
}

impl RowBuffer {
    fn new(max_bytes: usize) -> Self {
        Self { bytes: Vec::new(), max_bytes, too_long: false }
    }

    fn is_empty(&self) -> bool {
        self.bytes.is_empty() && !self.too_long
    }

    fn push(&mut self, bytes: &[u8]) {
        if self.too_long || self.bytes.len() + bytes.len() > self.max_bytes {
            self.too_long = true;
            self.bytes = Vec::new();
        } else {
            self.bytes.extend_from_slice(bytes);
        }
    }

    /// Ends the row with its last bytes and hands it on.
    fn end(&mut self, place: Place, last: &[u8], terminated: bool, emit: Emit<'_>) {
        if self.is_empty() && last.len() <= self.max_bytes {
            return emit(Piece::Row { place, bytes: last, terminated });
        }
        self.push(last);
        if self.too_long {
            emit(Piece::TooLong { place });
        } else {
            emit(Piece::Row { place, bytes: &self.bytes, terminated });
        }
        self.clear();
    }

    /// Whether the row would be nothing but white space, and no more of it than a row may have.
    fn is_blank_with(&self, last: &[u8]) -> bool {
        let is_blank = |bytes: &[u8]| bytes.iter().all(u8::is_ascii_whitespace);
        !self.too_long && self.bytes.len() + last.len() <= self.max_bytes && is_blank(&self.bytes) && is_blank(last)
    }

    fn clear(&mut self) {
        self.too_long = false;
        self.bytes.clear();
        self.bytes.shrink_to(KEPT_BUFFER_BYTES);
    }
}

#[cfg(test)]
mod tests;
