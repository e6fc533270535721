//! Rows between two steps, in an unnamed temporary file: one after the other, whatever their number.

use std::{
    fs::File,
    io::{self, BufReader, BufWriter, Read, Seek, Write},
};

use super::StepError;

const BUFFER_BYTES: usize = 256 << 10;
/// Source (2 bytes), side (1), one that is free, length of the JSON (4), line (8).
const HEAD_BYTES: usize = 16;

/// A row on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Record<'s> {
    /// Place among the rows of the spool, counted from 0.
    pub index: u64,
    /// Which of the sources it comes from.
    pub source: u16,
    /// Line of its source where it starts.
    pub line: u64,
    pub held_out: bool,
    /// One JSON object, without a line break.
    pub json: &'s [u8],
}

/// How many rows there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub rows: u64,
    pub held_out: u64,
    /// Of their JSON, with a line break each.
    pub bytes: u64,
}

impl Counts {
    fn add(&mut self, record: &Record<'_>) {
        self.rows += 1;
        self.held_out += u64::from(record.held_out);
        self.bytes += record.json.len() as u64 + 1;
    }
}

/// Rows that are written.
pub(super) struct SpoolWriter {
    file: BufWriter<File>,
    counts: Counts,
}

impl SpoolWriter {
    pub fn new() -> io::Result<Self> {
        Self::with_buffer(BUFFER_BYTES)
    }

    /// For those of whom there are many.
    pub fn with_buffer(bytes: usize) -> io::Result<Self> {
        Ok(Self { file: BufWriter::with_capacity(bytes, tempfile::tempfile()?), counts: Counts::default() })
    }

    pub fn push(&mut self, record: &Record<'_>) -> io::Result<()> {
        let Record { index: _, source, line, held_out, json } = *record;
        let length = u32::try_from(json.len()).map_err(io::Error::other)?;
        let mut head = [0; HEAD_BYTES];
        head[..2].copy_from_slice(&source.to_le_bytes());
        head[2] = u8::from(held_out);
        head[4..8].copy_from_slice(&length.to_le_bytes());
        head[8..].copy_from_slice(&line.to_le_bytes());
        self.file.write_all(&head)?;
        self.file.write_all(json)?;
        self.counts.add(record);
        Ok(())
    }

    pub fn counts(&self) -> Counts {
        self.counts
    }

    pub fn finish(self) -> io::Result<Spool> {
        let file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        Ok(Spool { file, counts: self.counts })
    }
}

/// Rows that can be read, as often as needed.
pub(super) struct Spool {
    file: File,
    pub counts: Counts,
}

impl Spool {
    /// Gives every row in its order.
    ///
    /// # Errors
    /// The disk, or what `each` says.
    pub fn each(&mut self, each: &mut dyn FnMut(Record<'_>) -> Result<(), StepError>) -> Result<(), StepError> {
        self.file.rewind()?;
        let mut reader = BufReader::with_capacity(BUFFER_BYTES, &self.file);
        let mut head = [0; HEAD_BYTES];
        let mut json = Vec::new();
        for index in 0..self.counts.rows {
            reader.read_exact(&mut head)?;
            let [s0, s1, side, _, l0, l1, l2, l3, line @ ..] = head;
            json.resize(u32::from_le_bytes([l0, l1, l2, l3]) as usize, 0);
            reader.read_exact(&mut json)?;
            each(Record {
                index,
                source: u16::from_le_bytes([s0, s1]),
                line: u64::from_le_bytes(line),
                held_out: side == 1,
                json: &json,
            })?;
        }
        Ok(())
    }
}

/// One bit a row.
#[derive(Default)]
pub(super) struct Marks(Vec<u64>);

impl Marks {
    pub fn set(&mut self, row: u64) {
        let word = (row / 64) as usize;
        if word >= self.0.len() {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << (row % 64);
    }

    pub fn has(&self, row: u64) -> bool {
        self.0.get((row / 64) as usize).is_some_and(|word| word & (1 << (row % 64)) != 0)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn rows_come_back_as_they_went() {
        let mut writer = SpoolWriter::new().unwrap();
        let texts: Vec<String> = (0..1000).map(|n| "x".repeat(n * 7 % 900)).collect();
        let record = |index: usize| Record {
            index: index as u64,
            source: (index % 3) as u16,
            line: index as u64 * 2 + 1,
            held_out: index.is_multiple_of(10),
            json: texts[index].as_bytes(),
        };
        (0..1000).for_each(|index| writer.push(&record(index)).unwrap());
        let mut spool = writer.finish().unwrap();
        assert_eq!((spool.counts.rows, spool.counts.held_out), (1000, 100));
        for _ in 0..2 {
            let mut seen = 0;
            spool
                .each(&mut |row| {
                    assert_eq!(row, record(seen));
                    seen += 1;
                    Ok(())
                })
                .unwrap();
            assert_eq!(seen, 1000);
        }
    }

    #[test]
    fn marks_are_told_apart() {
        let mut marks = Marks::default();
        [0, 63, 64, 1000].into_iter().for_each(|row| marks.set(row));
        let marked: Vec<u64> = (0..2000).filter(|row| marks.has(*row)).collect();
        assert_eq!(marked, [0, 63, 64, 1000]);
    }
}
