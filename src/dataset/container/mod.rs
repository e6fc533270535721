//! Bytes to rows, whatever they are packed in: gzip or zstd around JSON lines, a JSON array, CSV, Parquet or plain text.
//!
//! Bytes are pushed in whatever portions they come. What a file is shows in its first bytes; [`Detected`] says by what
//! sign it was taken for what.

mod csv;
mod detect;
mod parquet;
mod text;
mod unpack;

use finetuned_protocol::lint::{Compression, FileLayout, ReadingSpec};

use crate::{
    rules::{self, Rule},
    splitter::{Emit, Piece, Place, Splitter},
};
use csv::CsvRows;
use detect::Guess;
use parquet::ParquetRows;
use text::TextRows;
use unpack::Unpacker;

/// Why a file cannot be read on.
#[derive(Debug)]
pub(crate) struct Fault {
    pub place: Place,
    pub rule: &'static Rule,
    pub reason: String,
}

impl Fault {
    fn new(rule: &'static Rule, line: u64, reason: impl Into<String>) -> Self {
        Self { place: Place { line, column: 0 }, rule, reason: reason.into() }
    }

    fn emit(self, emit: Emit<'_>) {
        let Self { place, rule, reason } = self;
        emit(Piece::Fault { place, rule, reason });
    }
}

/// What a file was taken for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Detected {
    pub compression: Option<Compression>,
    pub layout: Option<FileLayout>,
    pub evidence: Vec<String>,
}

/// Rows of a file.
pub(crate) struct Container {
    unpacker: Unpacker,
    inner: Inner,
}

impl Container {
    pub fn new(reading: &ReadingSpec) -> Self {
        Self { unpacker: Unpacker::default(), inner: Inner::new(reading) }
    }

    pub fn feed(&mut self, bytes: &[u8], emit: Emit<'_>) {
        let Self { unpacker, inner } = self;
        if inner.is_over() {
            return;
        }
        if let Err(fault) = unpacker.feed(bytes, &mut |bytes| inner.feed(bytes, emit)) {
            inner.stop(fault, emit);
        }
    }

    /// The end of the file; what it was taken for is known now at the latest.
    pub fn finish(self, emit: Emit<'_>) -> Detected {
        let Self { unpacker, mut inner } = self;
        let compression = unpacker.compression();
        if !inner.is_over()
            && let Err(fault) = unpacker.finish(&mut |bytes| inner.feed(bytes, emit))
        {
            inner.stop(fault, emit);
        }
        let mut detected = inner.finish(emit);
        detected.compression = compression;
        if let Some(compression) = compression {
            detected.evidence.insert(0, format!("{compression} by its first bytes"));
        }
        detected
    }
}

/// What lies within the packing.
struct Inner {
    asked: Option<FileLayout>,
    state: State,
    evidence: Option<String>,
    /// The layout of what was read before a fault.
    layout: Option<FileLayout>,
}

enum State {
    /// The first bytes, which do not tell yet.
    Undecided(Vec<u8>),
    Json(Splitter),
    Csv(Box<CsvRows>),
    Text(TextRows),
    Parquet(ParquetRows),
    /// A fault was told; nothing more is read.
    Over,
}

impl Inner {
    fn new(reading: &ReadingSpec) -> Self {
        Self { asked: reading.layout, state: State::Undecided(Vec::new()), evidence: None, layout: None }
    }

    fn is_over(&self) -> bool {
        matches!(self.state, State::Over)
    }

    fn stop(&mut self, fault: Fault, emit: Emit<'_>) {
        self.layout = match &self.state {
            State::Undecided(_) | State::Over => self.layout,
            State::Json(splitter) => splitter.layout(),
            State::Csv(_) => Some(FileLayout::Csv),
            State::Text(_) => Some(FileLayout::Text),
            State::Parquet(_) => Some(FileLayout::Parquet),
        };
        self.state = State::Over;
        fault.emit(emit);
    }

    fn feed(&mut self, bytes: &[u8], emit: Emit<'_>) {
        if let State::Undecided(first) = &mut self.state {
            // The usual case needs no copy: the first portion tells all.
            if first.is_empty()
                && let Some(guess) = detect::guess(self.asked, bytes, false)
            {
                self.decide(guess, emit);
            } else {
                first.extend_from_slice(bytes);
                let Some(guess) = detect::guess(self.asked, first, false) else { return };
                let first = std::mem::take(first);
                self.decide(guess, emit);
                return self.read(&first, emit);
            }
        }
        self.read(bytes, emit);
    }

    fn decide(&mut self, guess: Guess, emit: Emit<'_>) {
        match guess {
            Guess::Layout(layout, evidence) => {
                self.evidence = evidence;
                self.state = match layout {
                    FileLayout::JsonLines | FileLayout::JsonArray => State::Json(Splitter::new()),
                    FileLayout::Text => State::Text(TextRows::default()),
                    FileLayout::Csv => State::Csv(Box::default()),
                    FileLayout::Parquet => match ParquetRows::new() {
                        Ok(rows) => State::Parquet(rows),
                        Err(fault) => return self.stop(fault, emit),
                    },
                };
            }
            Guess::Foreign(what, remedy) => {
                let reason = format!("the file is {what}, which is not read here; {remedy}");
                self.stop(Fault::new(&rules::CONTAINER_UNKNOWN, 1, reason), emit);
            }
            Guess::Utf16 => {
                let reason = "the file is UTF-16, of two bytes a character; save it as UTF-8";
                self.stop(Fault::new(&rules::NOT_UTF8, 1, reason), emit);
            }
        }
    }

    fn read(&mut self, bytes: &[u8], emit: Emit<'_>) {
        let fault = match &mut self.state {
            State::Undecided(_) | State::Over => return,
            State::Json(splitter) => return splitter.feed(bytes, emit),
            State::Text(rows) => return rows.feed(bytes, emit),
            State::Csv(rows) => rows.feed(bytes, emit),
            State::Parquet(rows) => rows.feed(bytes),
        };
        if let Err(fault) = fault {
            self.stop(fault, emit);
        }
    }

    fn finish(mut self, emit: Emit<'_>) -> Detected {
        if let State::Undecided(first) = &mut self.state {
            let first = std::mem::take(first);
            if let Some(guess) = detect::guess(self.asked, &first, true) {
                self.decide(guess, emit);
                self.read(&first, emit);
            }
        }
        let mut layout = self.layout;
        let ended = match self.state {
            State::Undecided(_) | State::Over => Ok(()),
            State::Json(splitter) => {
                layout = splitter.layout();
                splitter.finish(emit);
                Ok(())
            }
            State::Text(rows) => {
                layout = Some(FileLayout::Text);
                rows.finish(emit);
                Ok(())
            }
            State::Csv(rows) => {
                layout = Some(FileLayout::Csv);
                rows.finish(emit)
            }
            State::Parquet(rows) => {
                layout = Some(FileLayout::Parquet);
                rows.finish(emit)
            }
        };
        if let Err(fault) = ended {
            fault.emit(emit);
        }
        let evidence = match (self.evidence, layout) {
            (Some(evidence), _) => Some(evidence),
            (None, Some(FileLayout::JsonArray)) => Some("a JSON array: the file begins with `[`".to_owned()),
            (None, Some(FileLayout::JsonLines)) => Some("JSON lines: nothing speaks for another layout".to_owned()),
            (None, _) => None,
        };
        Detected { compression: None, layout, evidence: evidence.into_iter().collect() }
    }
}

#[cfg(test)]
mod tests;
