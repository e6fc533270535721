//! Rows that are nearly alike, by MinHash (Broder 1997) with one permutation (Li, Owen & Zhang 2012), empty bins filled
//! as by Shrivastava (2017), and banding to find candidates. What memory cannot hold lies in temporary files.
//!
//! What is compared is the set of runs of three words of a row's questions and answers, without its system message. Two
//! rows count as nearly alike where an estimated four fifths of these are common to both: at a true share of 0.85, one
//! pair in ten thousand is no candidate, and the estimate's standard deviation is 0.045.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    os::unix::fs::FileExt,
};

use crate::{
    example::Example,
    spill::{RowPlace, Spill},
    texts::{Speaker, each_text},
};

const BINS: usize = 64;
const BANDS: usize = 16;
const BAND_BINS: usize = BINS / BANDS;
/// Rows with fewer runs of three words are not compared: a word less would be a large share of them.
const FEWEST_SHINGLES: usize = 8;
/// Equal bins of two rows that are nearly alike, at least: four fifths.
const LEAST_EQUAL_BINS: usize = 51;
/// Rows that are compared; they need about 5 GB of disk.
const MAX_ROWS: u64 = 10_000_000;
/// Earlier rows of a band that a row is compared with.
const MOST_CANDIDATES: usize = 8;
const RECORD_BYTES: usize = 8 + 2 * BINS;

type Signature = [u16; BINS];

/// Rows to be compared at the end.
pub(crate) struct NearRows {
    bands: Spill,
    signatures: BufWriter<File>,
    places: u64,
    words: Words,
}

impl NearRows {
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            bands: Spill::new()?,
            signatures: BufWriter::new(tempfile::tempfile()?),
            places: 0,
            words: Words::default(),
        })
    }

    /// Whether the row will be compared with others: not where it is too short, nor beyond the first ten million.
    pub fn add(&mut self, example: &Example, line: u64, row: u64) -> io::Result<bool> {
        if self.places == MAX_ROWS {
            return Ok(false);
        }
        self.words.clear();
        each_text(example, &mut |text| {
            if text.speaker != Speaker::System {
                self.words.add(text.text.as_bytes());
            }
        });
        let Some(signature) = self.words.signature() else { return Ok(false) };
        let index = self.places;
        self.places += 1;
        for (band, bins) in signature.chunks_exact(BAND_BINS).enumerate() {
            let key = bins.iter().fold(band as u64 + 1, |key, bin| mix(key ^ u64::from(*bin)));
            self.bands.push(key, RowPlace { row: index, line })?;
        }
        self.signatures.write_all(&row.to_le_bytes())?;
        for bin in signature {
            self.signatures.write_all(&bin.to_le_bytes())?;
        }
        Ok(true)
    }

    /// Gives every row that is nearly like an earlier one, with the earlier one's line; each row once.
    pub fn finish(self, each: &mut dyn FnMut(RowPlace, u64)) -> io::Result<()> {
        self.compare(&|_| true, &|_| true, &|row, other| other.row < row.row, each)
    }

    /// Gives every held-out row that is nearly like a row that is not, with that one's line; each row once. `held_out` has
    /// a mark for each row that [`Self::add`] took.
    pub fn leaks(self, held_out: &[bool], each: &mut dyn FnMut(RowPlace, u64)) -> io::Result<()> {
        let is_held_out = |place: &RowPlace| held_out.get(place.row as usize).copied().unwrap_or(false);
        self.compare(&is_held_out, &|place| !is_held_out(place), &|_, _| true, each)
    }

    /// Of each group of candidates, compares the `judged` with the first of the `others` that are `eligible`.
    fn compare(
        self,
        judged: &dyn Fn(&RowPlace) -> bool,
        others: &dyn Fn(&RowPlace) -> bool,
        eligible: &dyn Fn(&RowPlace, &RowPlace) -> bool,
        each: &mut dyn FnMut(RowPlace, u64),
    ) -> io::Result<()> {
        let signatures = self.signatures.into_inner().map_err(io::IntoInnerError::into_error)?;
        let mut told = vec![0_u64; (self.places as usize).div_ceil(64)];
        self.bands.each_group(&mut |_, group| {
            let others: Vec<&RowPlace> = group.iter().filter(|place| others(place)).take(MOST_CANDIDATES).collect();
            for place in group.iter().filter(|place| judged(place)) {
                let (word, bit) = ((place.row / 64) as usize, 1 << (place.row % 64));
                let mut eligible = others.iter().filter(|other| eligible(place, other)).peekable();
                if told[word] & bit != 0 || eligible.peek().is_none() {
                    continue;
                }
                let (row, signature) = read(&signatures, place.row)?;
                for other in eligible {
                    if is_near(&signature, &read(&signatures, other.row)?.1) {
                        told[word] |= bit;
                        each(RowPlace { row, line: place.line }, other.line);
                        break;
                    }
                }
            }
            Ok(())
        })
    }
}

fn read(signatures: &File, index: u64) -> io::Result<(u64, Signature)> {
    let mut record = [0; RECORD_BYTES];
    signatures.read_exact_at(&mut record, index * RECORD_BYTES as u64)?;
    let mut row = [0; 8];
    row.copy_from_slice(&record[..8]);
    let mut signature = [0; BINS];
    for (bin, bytes) in signature.iter_mut().zip(record[8..].chunks_exact(2)) {
        *bin = u16::from_le_bytes([bytes[0], bytes[1]]);
    }
    Ok((u64::from_le_bytes(row), signature))
}

fn is_near(a: &Signature, b: &Signature) -> bool {
    a.iter().zip(b).filter(|(a, b)| a == b).count() >= LEAST_EQUAL_BINS
}

/// Runs of three words of a row, hashed.
pub(crate) struct Words {
    last: [u64; 3],
    words: usize,
    shingles: usize,
    /// The least hash of each bin.
    least: [u64; BINS],
}

impl Default for Words {
    fn default() -> Self {
        Self { last: [0; 3], words: 0, shingles: 0, least: [u64::MAX; BINS] }
    }
}

impl Words {
    fn clear(&mut self) {
        *self = Self::default();
    }

    /// Words are runs of letters and digits, in lower case; each Chinese or Japanese character is one.
    fn add(&mut self, text: &[u8]) {
        const SEED: u64 = 0xcbf2_9ce4_8422_2325;
        const PRIME: u64 = 0x0000_0100_0000_01b3;
        let mut hash = SEED;
        for (at, byte) in text.iter().enumerate() {
            let is_ideograph = (0xe3..=0xe9).contains(byte);
            if is_ideograph || !(byte.is_ascii_alphanumeric() || *byte >= 0x80) {
                self.end_word(&mut hash, SEED);
            }
            if byte.is_ascii_alphanumeric() || *byte >= 0x80 {
                hash = (hash ^ u64::from(byte.to_ascii_lowercase())).wrapping_mul(PRIME);
            }
            if at >= 2 && (0xe3..=0xe9).contains(&text[at - 2]) {
                self.end_word(&mut hash, SEED);
            }
        }
        self.end_word(&mut hash, SEED);
    }

    fn end_word(&mut self, hash: &mut u64, seed: u64) {
        if *hash == seed {
            return;
        }
        let [_, second, third] = self.last;
        self.last = [second, third, *hash];
        *hash = seed;
        self.words += 1;
        if self.words >= 3 {
            let [first, second, third] = self.last;
            let shingle = mix(first ^ mix(second ^ mix(third)));
            let bin = (shingle % BINS as u64) as usize;
            let value = shingle / BINS as u64;
            self.shingles += usize::from(value != self.least[bin]);
            self.least[bin] = self.least[bin].min(value);
        }
    }

    fn signature(&self) -> Option<Signature> {
        if self.shingles < FEWEST_SHINGLES {
            return None;
        }
        let mut signature = [0; BINS];
        for (index, bin) in signature.iter_mut().enumerate() {
            let mut from = index;
            let mut attempt = 0;
            // An empty bin takes the value of one that a hash of its index chooses, the same in every row.
            while self.least[from] == u64::MAX {
                attempt += 1;
                from = (mix((index as u64) << 32 | attempt) % BINS as u64) as usize;
            }
            // Any bits of a hash that was taken for being small, but the highest.
            *bin = self.least[from] as u16;
        }
        Some(signature)
    }
}

/// The finaliser of SplitMix64 (Steele, Lea & Flood 2014).
fn mix(word: u64) -> u64 {
    let z = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn near(rows: &[String]) -> Vec<(u64, u64)> {
        let mut near = NearRows::new().unwrap();
        for (row, text) in rows.iter().enumerate() {
            let example = Example::PromptCompletion { prompt: String::new(), completion: text.clone() };
            near.add(&example, row as u64 + 1, row as u64).unwrap();
        }
        let mut found = Vec::new();
        near.finish(&mut |later, earlier| found.push((later.line, earlier))).unwrap();
        found.sort_unstable();
        found
    }

    /// Words that no other text has.
    fn words(seed: u64, count: u64) -> Vec<String> {
        (0..count).map(|index| format!("w{:x}", mix(seed << 32 | index) >> 40)).collect()
    }

    #[test]
    fn a_word_changed_in_a_hundred_is_near_and_one_in_five_is_not() {
        let mut rows: Vec<String> = Vec::new();
        for seed in 0..200 {
            let mut text = words(seed, 100);
            rows.push(text.join(" "));
            text[50] = "changed".to_owned();
            rows.push(text.join(", "));
            for at in (0..100).step_by(5) {
                text[at] = format!("other{at}");
            }
            rows.push(text.join(" "));
        }
        let found = near(&rows);
        // 3 of 98 runs differ: 95 / 101 are common, far above four fifths.
        assert!(found.iter().all(|(later, earlier)| later % 3 == 2 && earlier + 1 == *later), "{found:?}");
        assert_eq!(found.len(), 200);
    }

    #[test]
    fn short_rows_are_not_compared_and_ideographs_are_words() {
        assert!(near(&["yes it is so".to_owned(), "Yes, it is so!".to_owned()]).is_empty());
        let text = "今日は天気がとても良いので公園まで散歩に行きました";
        assert_eq!(near(&[text.to_owned(), format!("{text}。")]), [(2, 1)]);
    }
}
