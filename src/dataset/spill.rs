//! Keys on the disk: more of them than memory holds, sorted part by part to find those that are equal.

use std::{
    fs::File,
    io::{self, BufReader, BufWriter, Read, Seek, Write},
};

/// Each part is sorted in memory by itself.
const PARTS: usize = 64;
const PART_BITS: u32 = PARTS.ilog2();
const BUFFER_BYTES: usize = 8 << 10;
const RECORD_BYTES: usize = 24;

/// A row by its place in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RowPlace {
    /// Counted from 0.
    pub row: u64,
    pub line: u64,
}

/// Keys of rows in unnamed temporary files, 24 bytes each. Keys must be hashes: their first bits choose the file.
pub(crate) struct Spill {
    parts: Vec<BufWriter<File>>,
}

impl Spill {
    pub fn new() -> io::Result<Self> {
        let part = || tempfile::tempfile().map(|file| BufWriter::with_capacity(BUFFER_BYTES, file));
        Ok(Self { parts: (0..PARTS).map(|_| part()).collect::<io::Result<_>>()? })
    }

    pub fn push(&mut self, key: u64, place: RowPlace) -> io::Result<()> {
        let mut record = [0; RECORD_BYTES];
        for (word, bytes) in [key, place.row, place.line].into_iter().zip(record.chunks_exact_mut(8)) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        self.parts[(key >> (u64::BITS - PART_BITS)) as usize].write_all(&record)
    }

    /// Gives the rows of each key, in the order of the file.
    pub fn each_group(self, each: &mut dyn FnMut(u64, &[RowPlace]) -> io::Result<()>) -> io::Result<()> {
        for part in self.parts {
            let records = sorted(part.into_inner().map_err(io::IntoInnerError::into_error)?)?;
            let mut places = Vec::new();
            for group in records.chunk_by(|a, b| a.0 == b.0) {
                places.clear();
                places.extend(group.iter().map(|(_, place)| *place));
                each(group[0].0, &places)?;
            }
        }
        Ok(())
    }
}

fn sorted(mut part: File) -> io::Result<Vec<(u64, RowPlace)>> {
    let bytes = part.stream_position()?;
    part.rewind()?;
    let mut reader = BufReader::new(part);
    let count = usize::try_from(bytes).unwrap_or(usize::MAX) / RECORD_BYTES;
    let mut records = Vec::with_capacity(count);
    let mut record = [0; RECORD_BYTES];
    for _ in 0..count {
        reader.read_exact(&mut record)?;
        let word = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&record[8 * at..8 * at + 8]);
            u64::from_le_bytes(bytes)
        };
        records.push((word(0), RowPlace { row: word(1), line: word(2) }));
    }
    records.sort_unstable();
    Ok(records)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn rows_of_a_key_come_together_and_in_order() {
        let mut spill = Spill::new().unwrap();
        let key = |number: u64| number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        for row in 0..10_000 {
            spill.push(key(row % 3000), RowPlace { row, line: row + 1 }).unwrap();
        }
        let (mut groups, mut rows) = (0, 0);
        spill
            .each_group(&mut |_, places| {
                assert!(places.is_sorted() && places.iter().all(|place| place.row % 3000 == places[0].row));
                groups += 1;
                rows += places.len();
                Ok(())
            })
            .unwrap();
        assert_eq!((groups, rows), (3000, 10_000));
    }
}
