//! Which rows were there before, in at most nine bytes a row and 40 MB in all.

use std::{
    collections::HashSet,
    hash::{BuildHasherDefault, Hasher},
};

/// Rows that are remembered; later ones are not compared.
pub(crate) const MAX_ROWS: usize = 3_500_000;
/// Each part grows by itself, so that growing never needs twice the memory of the whole.
const PARTS: usize = 64;

/// The first 64 bits of the digests seen so far: among 3.5 million rows, two that differ are taken for equal with a
/// chance of one in three million.
pub(crate) struct SeenRows {
    parts: Vec<HashSet<u64, BuildHasherDefault<DigestHasher>>>,
    rows: usize,
    max_rows: usize,
}

/// What is known of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seen {
    New,
    Before,
    /// The memory is full.
    Unknown,
}

impl SeenRows {
    pub fn new(max_rows: usize) -> Self {
        Self { parts: (0..PARTS).map(|_| HashSet::default()).collect(), rows: 0, max_rows }
    }

    pub fn insert(&mut self, digest: &[u8; 32]) -> Seen {
        let [a, b, c, d, e, f, g, h, part, ..] = *digest;
        let key = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
        let part = &mut self.parts[usize::from(part) % PARTS];
        if part.contains(&key) {
            return Seen::Before;
        }
        if self.rows == self.max_rows {
            return Seen::Unknown;
        }
        part.insert(key);
        self.rows += 1;
        Seen::New
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
    use super::*;
    use sha2::{Digest, Sha256};

    #[test]
    fn rows_are_remembered_up_to_the_limit() {
        let digest = |number: u32| -> [u8; 32] { Sha256::digest(number.to_le_bytes()).into() };
        let mut seen = SeenRows::new(1000);
        assert!((0..1000).all(|number| seen.insert(&digest(number)) == Seen::New));
        assert!((0..1000).all(|number| seen.insert(&digest(number)) == Seen::Before));
        assert_eq!(seen.insert(&digest(1000)), Seen::Unknown);
    }
}
