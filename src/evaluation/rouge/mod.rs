//! ROUGE (Lin 2004) as the Python package rouge-score 0.1.2 computes it, with and without stemming; and over the words
//! of any script, which that package has not.

mod lcs;
mod stem;
mod words;

use finetuned_protocol::text_metric::{RougeMeasure, RougeWords};
use words::Vocabulary;

/// Precision, recall and their harmonic mean, each 0 to 1.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Prf {
    pub precision: f64,
    pub recall: f64,
    pub f1: f64,
}

impl Prf {
    /// Of `predicted` units and `referenced` ones, `common` agree. All zero where either side is empty.
    pub(crate) fn of_counts(common: usize, referenced: usize, predicted: usize) -> Self {
        let share = |of: usize| common as f64 / of.max(1) as f64;
        let (precision, recall) = (share(predicted), share(referenced));
        let sum = precision + recall;
        let f1 = if sum > 0.0 { 2.0 * precision * recall / sum } else { 0.0 };
        Self { precision, recall, f1 }
    }
}

/// ROUGE-L without stemming.
pub fn rouge_l(reference: &str, prediction: &str) -> Prf {
    Rouge::new(RougeWords::Ascii, reference, prediction).score(RougeMeasure::L)
}

/// A prediction and its reference as words, ready for any of the measures.
#[derive(Debug)]
pub struct Rouge {
    reference: Vec<Vec<u32>>,
    prediction: Vec<Vec<u32>>,
    different_words: usize,
}

impl Rouge {
    pub fn new(words: RougeWords, reference: &str, prediction: &str) -> Self {
        let mut vocabulary = Vocabulary::default();
        let (reference, prediction) = (vocabulary.lines(reference, words), vocabulary.lines(prediction, words));
        Self { reference, prediction, different_words: vocabulary.len() }
    }

    pub fn score(&self, measure: RougeMeasure) -> Prf {
        match measure {
            RougeMeasure::N(n) => self.n(usize::from(n)),
            RougeMeasure::L => {
                let (reference, prediction) = (self.reference.concat(), self.prediction.concat());
                Prf::of_counts(lcs::length(&reference, &prediction), reference.len(), prediction.len())
            }
            RougeMeasure::Lsum => {
                let total = |lines: &[Vec<u32>]| lines.iter().map(Vec::len).sum::<usize>();
                Prf::of_counts(self.union_hits(), total(&self.reference), total(&self.prediction))
            }
        }
    }

    /// Overlap of n-grams, each counted at most as often as the other side has it.
    fn n(&self, n: usize) -> Prf {
        fn sorted(words: &[u32], n: usize) -> Vec<&[u32]> {
            let mut ngrams: Vec<&[u32]> = words.windows(n.max(1)).collect();
            ngrams.sort_unstable();
            ngrams
        }
        let (reference, prediction) = (self.reference.concat(), self.prediction.concat());
        let (reference, prediction) = (sorted(&reference, n), sorted(&prediction, n));
        Prf::of_counts(crate::ngrams::common(&reference, &prediction), reference.len(), prediction.len())
    }

    /// Words of a reference line that any line of the prediction has in order. A hit uses up one occurrence of its word
    /// on both sides, so that no word counts twice.
    fn union_hits(&self) -> usize {
        let occurrences = |lines: &[Vec<u32>]| {
            let mut counts = vec![0_usize; self.different_words];
            lines.iter().flatten().for_each(|word| counts[*word as usize] += 1);
            counts
        };
        let (mut left_in_reference, mut left_in_prediction) =
            (occurrences(&self.reference), occurrences(&self.prediction));
        let mut hits = 0;
        for line in &self.reference {
            for index in lcs::union(line, &self.prediction) {
                let word = line[index] as usize;
                if left_in_reference[word] > 0 && left_in_prediction[word] > 0 {
                    left_in_reference[word] -= 1;
                    left_in_prediction[word] -= 1;
                    hits += 1;
                }
            }
        }
        hits
    }
}

#[cfg(test)]
mod tests;
