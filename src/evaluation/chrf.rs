//! chrF2 (Popović 2015) as the Python package sacrebleu computes it: character n-grams up to six, white space left out,
//! recall weighed twice.

use crate::ngrams::{common, is_space};

/// Longest n-gram.
const ORDERS: usize = 6;
/// Square of beta, which is 2.
const BETA_SQUARED: f64 = 4.0;
/// Bits that any character fits in, so that six of them are one number.
const BITS: usize = 21;

/// Counts from which chrF follows; those of rows add up to those of a corpus.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ChrfCounts {
    predicted: [usize; ORDERS],
    referenced: [usize; ORDERS],
    common: [usize; ORDERS],
}

impl ChrfCounts {
    pub fn new(reference: &str, prediction: &str) -> Self {
        let (reference, prediction) = (sorted_places(reference), sorted_places(prediction));
        let mut counts = Self::default();
        for n in 1..=ORDERS {
            let (of_reference, of_prediction) = (ngrams(&reference, n), ngrams(&prediction, n));
            counts.referenced[n - 1] = of_reference.len();
            // Where the reference is too short for an order, sacrebleu counts the prediction's n-grams as none too.
            counts.predicted[n - 1] = if of_reference.is_empty() { 0 } else { of_prediction.len() };
            counts.common[n - 1] = common(&of_reference, &of_prediction);
        }
        counts
    }

    /// Adds the counts of another row.
    pub fn add(&mut self, other: &Self) {
        for n in 0..ORDERS {
            self.predicted[n] += other.predicted[n];
            self.referenced[n] += other.referenced[n];
            self.common[n] += other.common[n];
        }
    }

    /// chrF2, 0 to 100: precision and recall averaged over the orders that both texts are long enough for.
    pub fn score(&self) -> f64 {
        let (mut precision, mut recall, mut orders) = (0.0, 0.0, 0.0_f64);
        for n in 0..ORDERS {
            if self.predicted[n] > 0 && self.referenced[n] > 0 {
                precision += self.common[n] as f64 / self.predicted[n] as f64;
                recall += self.common[n] as f64 / self.referenced[n] as f64;
                orders += 1.0;
            }
        }
        let (precision, recall) = (precision / orders.max(1.0), recall / orders.max(1.0));
        if precision + recall == 0.0 {
            return 0.0;
        }
        100.0 * (1.0 + BETA_SQUARED) * precision * recall / (BETA_SQUARED * precision + recall)
    }
}

/// What begins at each character that is no white space: it and the five after it as one number, zeros beyond the end,
/// sorted. The first n of six sort alike, so that one sort serves every order.
fn sorted_places(text: &str) -> Vec<u128> {
    // No character is zero, since each is counted from one.
    let letters: Vec<u128> = text.chars().filter(|c| !is_space(*c)).map(|c| u128::from(u32::from(c)) + 1).collect();
    let place =
        |at: usize| (at..at + ORDERS).fold(0, |word, index| (word << BITS) | letters.get(index).copied().unwrap_or(0));
    let mut places: Vec<u128> = (0..letters.len()).map(place).collect();
    places.sort_unstable();
    places
}

/// The n-grams at sorted places, sorted; the last n - 1 places of a text have none.
fn ngrams(places: &[u128], n: usize) -> Vec<u128> {
    let last = (1 << BITS) - 1;
    places.iter().map(|place| place >> (BITS * (ORDERS - n))).filter(|ngram| ngram & last != 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closed_forms() {
        assert!((ChrfCounts::new("some text", "so me te xt").score() - 100.0).abs() < 1e-9);
        assert_eq!(ChrfCounts::new("", "a").score(), 0.0);
        // One letter of two: precision 1/2, recall 1, F2 = 5 * 0.5 / (4 * 0.5 + 1) = 5/6; the second order is missing
        // in the reference.
        assert!((ChrfCounts::new("a", "ab").score() - 100.0 * 5.0 / 6.0).abs() < 1e-9);
    }
}
