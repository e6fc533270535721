//! Which rows were there before: in memory up to 40 MB, beyond that on the disk.

use std::{
    collections::HashSet,
    hash::{BuildHasherDefault, Hasher},
    io,
};

use crate::spill::{RowPlace, Spill};

/// Rows that are remembered in memory.
pub(crate) const MAX_ROWS: usize = 3_500_000;
/// Each part grows by itself, so that growing never needs twice the memory of the whole.
const PARTS: usize = 64;

/// The first 64 bits of the digests seen so far: among 3.5 million rows, two that differ are taken for equal with a
/// chance of one in three million.
pub(crate) struct SeenRows {
    parts: Vec<HashSet<u64, BuildHasherDefault<DigestHasher>>>,
    rows: usize,
    max_rows: usize,
    spilled: Option<Spill>,
}

/// What is known of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seen {
    New,
    Before,
    /// The memory is full; [`SeenRows::finish`] will tell.
    Later,
}

impl SeenRows {
    pub fn new(max_rows: usize) -> Self {
        Self { parts: (0..PARTS).map(|_| HashSet::default()).collect(), rows: 0, max_rows, spilled: None }
    }

    /// # Errors
    /// The disk has no room for what memory cannot hold.
    pub fn insert(&mut self, digest: &[u8; 32], place: RowPlace) -> io::Result<Seen> {
        let [a, b, c, d, e, f, g, h, ..] = *digest;
        let key = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
        let part = &mut self.parts[key as usize % PARTS];
        if part.contains(&key) {
            return Ok(Seen::Before);
        }
        if self.rows < self.max_rows {
            part.insert(key);
            self.rows += 1;
            return Ok(Seen::New);
        }
        let spilled = match &mut self.spilled {
            Some(spilled) => spilled,
            none => none.insert(Spill::new()?),
        };
        spilled.push(key, place)?;
        Ok(Seen::Later)
    }

    /// Gives every row that memory could not tell of and that equals an earlier one.
    ///
    /// # Errors
    /// The disk.
    pub fn finish(self, each: &mut dyn FnMut(RowPlace)) -> io::Result<()> {
        let Some(spilled) = self.spilled else { return Ok(()) };
        drop(self.parts);
        spilled.each_group(&mut |_, places| {
            places.iter().skip(1).for_each(|place| each(*place));
            Ok(())
        })
    }
}

/// The keys are parts of a SHA-256, so they are their own hashes.
#[derive(Default)]
pub(crate) struct DigestHasher(u64);

impl Hasher for DigestHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 << 8) | u64::from(*byte);
        }
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = word;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use sha2::{Digest, Sha256};

    #[test]
    fn every_repeated_row_is_told_whether_memory_holds_it_or_not() {
        let digest = |number: u64| -> [u8; 32] { Sha256::digest(number.to_le_bytes()).into() };
        let mut seen = SeenRows::new(1000);
        let insert = |seen: &mut SeenRows, number: u64, row: u64| {
            seen.insert(&digest(number), RowPlace { row, line: row + 1 }).unwrap()
        };
        assert!((0..1000).all(|number| insert(&mut seen, number, number) == Seen::New));
        assert!((0..1000).all(|number| insert(&mut seen, number, 1000 + number) == Seen::Before));
        assert!((1000..1500).all(|number| insert(&mut seen, number, 1000 + number) == Seen::Later));
        assert!((1200..1300).all(|number| insert(&mut seen, number, 1300 + number) == Seen::Later));
        let mut told = Vec::new();
        seen.finish(&mut |place| told.push(place.row)).unwrap();
        told.sort_unstable();
        assert_eq!(told, (2500..2600).collect::<Vec<_>>());
    }
}
