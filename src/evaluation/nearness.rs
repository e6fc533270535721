//! How alike rows are: by vectors of an encoder, or by their words.

use std::collections::BTreeSet;

use unicode_segmentation::UnicodeSegmentation;

/// What of a row is compared with others.
#[derive(Debug, Clone, PartialEq)]
pub enum Features {
    /// An embedding of length one.
    Embedding(Vec<f32>),
    /// Hashes of its words, each once.
    Words(BTreeSet<u64>),
}

impl Features {
    /// The words of a text in lower case, by the rules of Unicode (UAX #29).
    pub fn words(text: &str) -> Self {
        // FNV-1a (Fowler, Noll & Vo): two words of one hash would only look like one.
        let hash = |word: &str| {
            word.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
            })
        };
        Self::Words(text.to_lowercase().unicode_words().map(hash).collect())
    }

    /// Cosine of two embeddings of length one (-1 to 1); of words, those in common over those of both (Jaccard, 0 to 1). 0
    /// where the two are of different kinds.
    pub fn similarity(&self, other: &Self) -> f64 {
        match (self, other) {
            (Self::Embedding(one), Self::Embedding(other)) => {
                one.iter().zip(other).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
            }
            (Self::Words(one), Self::Words(other)) => {
                let common = one.intersection(other).count();
                let all = one.len() + other.len() - common;
                if all == 0 { 0.0 } else { common as f64 / all as f64 }
            }
            _ => 0.0,
        }
    }
}

/// The nearest of `candidates`, the nearest first and of equal ones the earlier, with their similarity.
pub fn nearest(of: &Features, candidates: &[Features], most: usize) -> Vec<(usize, f64)> {
    let mut all: Vec<(usize, f64)> =
        candidates.iter().enumerate().map(|(place, candidate)| (place, of.similarity(candidate))).collect();
    all.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    all.truncate(most);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_in_common_over_words_of_both() {
        let words = Features::words;
        assert_eq!(words("The sky is blue.").similarity(&words("the SKY")), 0.5);
        assert_eq!(words("a b").similarity(&words("c d")), 0.0);
        assert_eq!(words("…").similarity(&words("")), 0.0);
        assert_eq!(words("Небо синее").similarity(&words("небо")), 0.5);
    }

    #[test]
    fn the_nearest_come_first() {
        let vector = |x: f32, y: f32| Features::Embedding(vec![x, y]);
        let candidates = [vector(0.0, 1.0), vector(1.0, 0.0), vector(0.6, 0.8), vector(1.0, 0.0)];
        let found = nearest(&vector(1.0, 0.0), &candidates, 3);
        assert_eq!(found.iter().map(|(place, _)| *place).collect::<Vec<_>>(), [1, 3, 2]);
        assert!((found[2].1 - 0.6).abs() < 1e-6);
        assert_eq!(vector(1.0, 0.0).similarity(&Features::words("a")), 0.0);
    }
}
