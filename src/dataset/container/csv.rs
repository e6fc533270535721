//! Separated values (RFC 4180, any of comma, tab and semicolon): the first record names the columns.

use std::borrow::Cow;

use csv_core::{ReadRecordResult, Reader, ReaderBuilder};

use super::{Fault, detect};
use crate::{
    json::{self, Json, Object},
    rules,
    splitter::{Emit, MAX_ROW_BYTES, Piece, Place},
};

/// Columns whose cells are JSON where they look like it.
const JSON_COLUMNS: &[&str] = &[
    "messages",
    "conversations",
    "history",
    "tools",
    "input_ids",
    "labels",
    "preferred_output",
    "non_preferred_output",
];
/// Columns of numbers.
const NUMBER_COLUMNS: &[&str] = &["weight"];

/// Most cells of a row.
const MOST_CELLS: usize = 1 << 19;

pub(super) struct CsvRows {
    reader: Option<Reader>,
    /// The first bytes, until the line of names is whole.
    first: Vec<u8>,
    header: Option<Vec<String>>,
    /// Text of the record at hand, and where each of its cells ends.
    text: Vec<u8>,
    ends: Vec<usize>,
    text_length: usize,
    cells: usize,
    /// Whether the record at hand has begun, perhaps with no more than a quote.
    begun: bool,
    /// Line where the record at hand starts.
    line: u64,
}

impl Default for CsvRows {
    fn default() -> Self {
        Self {
            reader: None,
            first: Vec::new(),
            header: None,
            text: vec![0; 4096],
            ends: vec![0; 64],
            text_length: 0,
            cells: 0,
            begun: false,
            line: 1,
        }
    }
}

impl CsvRows {
    pub fn feed(&mut self, bytes: &[u8], emit: Emit<'_>) -> Result<(), Fault> {
        if self.reader.is_some() {
            return self.read(bytes, emit);
        }
        self.first.extend_from_slice(bytes);
        match memchr::memchr2(b'\n', b'\r', &self.first) {
            Some(_) => self.begin(emit),
            None if self.first.len() > MAX_ROW_BYTES => Err(too_long(1)),
            None => Ok(()),
        }
    }

    fn begin(&mut self, emit: Emit<'_>) -> Result<(), Fault> {
        let first = std::mem::take(&mut self.first);
        let bytes = first.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&first);
        let header = &bytes[..memchr::memchr2(b'\n', b'\r', bytes).unwrap_or(bytes.len())];
        let mut reader = ReaderBuilder::new().delimiter(detect::delimiter(header)).build();
        // Past its beginning, the reader looks for no byte order mark, which it would find whole in one portion only.
        reader.read_record(b"\n", &mut [0], &mut [0]);
        reader.set_line(1);
        self.reader = Some(reader);
        self.read(bytes, emit)
    }

    pub fn finish(mut self, emit: Emit<'_>) -> Result<(), Fault> {
        if self.reader.is_none() {
            self.begin(emit)?;
        }
        // Without bytes, the reader ends its last record.
        self.read(&[], emit)
    }

    fn read(&mut self, mut bytes: &[u8], emit: Emit<'_>) -> Result<(), Fault> {
        let at_end = bytes.is_empty();
        loop {
            let Some(reader) = &mut self.reader else { return Ok(()) };
            if !self.begun {
                // Blank lines, which the reader passes over too, but as if they began the record.
                let blank = bytes.iter().take_while(|byte| matches!(byte, b'\n' | b'\r')).count();
                let lines = memchr::memchr_iter(b'\n', &bytes[..blank]).count() as u64;
                reader.set_line(reader.line() + lines);
                bytes = &bytes[blank..];
                self.line = reader.line();
            }
            // To the reader, an empty portion is the end.
            if bytes.is_empty() && !at_end {
                return Ok(());
            }
            self.begun = true;
            let (result, read, written, ended) =
                reader.read_record(bytes, &mut self.text[self.text_length..], &mut self.ends[self.cells..]);
            bytes = &bytes[read..];
            self.text_length += written;
            self.cells += ended;
            match result {
                ReadRecordResult::InputEmpty if at_end => {}
                ReadRecordResult::InputEmpty | ReadRecordResult::End => return Ok(()),
                ReadRecordResult::OutputFull if self.text.len() > MAX_ROW_BYTES => return Err(too_long(self.line)),
                ReadRecordResult::OutputFull => self.text.resize(self.text.len() * 2, 0),
                // Empty cells take no text, so these need a limit of their own.
                ReadRecordResult::OutputEndsFull if self.ends.len() > MOST_CELLS => {
                    return Err(Fault::new(&rules::ROW_TOO_LONG, self.line, "the row has more than 524,288 cells"));
                }
                ReadRecordResult::OutputEndsFull => self.ends.resize(self.ends.len() * 2, 0),
                ReadRecordResult::Record => {
                    self.record(emit)?;
                    (self.text_length, self.cells, self.begun) = (0, 0, false);
                }
            }
        }
    }

    fn record(&mut self, emit: Emit<'_>) -> Result<(), Fault> {
        let place = Place { line: self.line, column: 0 };
        let Ok(text) = std::str::from_utf8(&self.text[..self.text_length]) else {
            let reason = "this is not UTF-8; save the file as UTF-8".to_owned();
            emit(Piece::Fault { place, rule: &rules::NOT_UTF8, reason });
            return Ok(());
        };
        let mut start = 0;
        let cells = self.ends[..self.cells].iter().map(|end| {
            let cell = text.get(start..*end).unwrap_or_default();
            start = *end;
            cell
        });
        let Some(header) = &self.header else {
            self.header = Some(cells.map(|name| name.trim().to_owned()).collect());
            return Ok(());
        };
        if header.len() != self.cells {
            let reason = format!(
                "the row has {} cells, and {} columns are named; put quotes around cells that hold the delimiter",
                self.cells,
                header.len()
            );
            emit(Piece::Fault { place, rule: &rules::CSV_CELLS, reason });
            return Ok(());
        }
        let object: Object<'_> =
            header.iter().zip(cells).map(|(name, cell)| (Cow::from(name), value(name, cell))).collect();
        emit(Piece::Object { place, object });
        Ok(())
    }
}

/// An empty cell is an absent field.
fn value<'c>(column: &str, cell: &'c str) -> Json<'c> {
    if cell.is_empty() {
        return Json::Null;
    }
    let parsed = if JSON_COLUMNS.contains(&column) {
        json::parse(cell).ok().filter(|value| matches!(value, Json::Array(_) | Json::Object(_)))
    } else if NUMBER_COLUMNS.contains(&column) {
        json::parse(cell).ok().filter(|value| matches!(value, Json::Integer(_) | Json::Float(_)))
    } else {
        None
    };
    // Owned, so that its characters are checked: unlike JSON, a cell may hold any.
    parsed.unwrap_or_else(|| Json::Text(Cow::Owned(cell.to_owned())))
}

fn too_long(line: u64) -> Fault {
    let reason = "the row has more than 16 MB; split or remove it, or close the quotes that it opens";
    Fault::new(&rules::ROW_TOO_LONG, line, reason)
}
