//! ROUGE (Lin 2004) as the Python package rouge-score 0.1.2 computes it, with and without stemming.

mod lcs;
mod stem;
mod words;

use std::collections::HashMap;

use words::words;

/// Precision, recall and their harmonic mean, each 0 to 1.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Prf {
    pub precision: f64,
    pub recall: f64,
    pub f1: f64,
}

impl Prf {
    /// Of `predicted` units and `referenced` ones, `common` agree. All zero where either side is empty.
    fn of_counts(common: usize, referenced: usize, predicted: usize) -> Self {
        let share = |of: usize| common as f64 / of.max(1) as f64;
        let (precision, recall) = (share(predicted), share(referenced));
        let sum = precision + recall;
        let f1 = if sum > 0.0 { 2.0 * precision * recall / sum } else { 0.0 };
        Self { precision, recall, f1 }
    }
}

/// ROUGE-L without stemming.
pub fn rouge_l(reference: &str, prediction: &str) -> Prf {
    Rouge { stemmer: false }.l(reference, prediction)
}

/// The scores of a prediction against its reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rouge {
    /// Whether words of more than three letters are reduced to their Porter stem first.
    pub stemmer: bool,
}

impl Rouge {
    /// ROUGE-N: overlap of n-grams, each counted at most as often as the other side has it.
    pub fn n(self, n: usize, reference: &str, prediction: &str) -> Prf {
        let (reference, prediction) = (words(reference, self.stemmer), words(prediction, self.stemmer));
        let (reference, prediction) = (ngrams(&reference, n), ngrams(&prediction, n));
        let common =
            reference.iter().map(|(ngram, count)| (*count).min(prediction.get(ngram).copied().unwrap_or(0))).sum();
        Prf::of_counts(common, reference.values().sum(), prediction.values().sum())
    }

    /// ROUGE-L: the longest common subsequence of words.
    pub fn l(self, reference: &str, prediction: &str) -> Prf {
        let (reference, prediction) = (words(reference, self.stemmer), words(prediction, self.stemmer));
        Prf::of_counts(lcs::length(&reference, &prediction), reference.len(), prediction.len())
    }

    /// ROUGE-Lsum: line by line, the words of a reference line that any line of the prediction has in order, each word
    /// counted at most as often as both sides have it.
    pub fn lsum(self, reference: &str, prediction: &str) -> Prf {
        let lines = |text: &str| -> Vec<Vec<String>> {
            text.split('\n').filter(|line| !line.is_empty()).map(|line| words(line, self.stemmer)).collect()
        };
        let (reference, prediction) = (lines(reference), lines(prediction));
        let total = |lines: &[Vec<String>]| lines.iter().map(Vec::len).sum::<usize>();
        Prf::of_counts(union_hits(&reference, &prediction), total(&reference), total(&prediction))
    }
}

fn ngrams(words: &[String], n: usize) -> HashMap<&[String], usize> {
    let mut counts = HashMap::new();
    for ngram in words.windows(n.max(1)) {
        *counts.entry(ngram).or_insert(0) += 1;
    }
    counts
}

/// Hits of ROUGE-Lsum. A hit uses up one occurrence of its word on both sides, so that no word counts twice.
fn union_hits(reference: &[Vec<String>], prediction: &[Vec<String>]) -> usize {
    let mut left_in_reference = occurrences(reference);
    let mut left_in_prediction = occurrences(prediction);
    let mut hits = 0;
    for line in reference {
        for index in lcs::union(line, prediction) {
            let word = line[index].as_str();
            if let (Some(a @ 1..), Some(b @ 1..)) = (left_in_reference.get_mut(word), left_in_prediction.get_mut(word))
            {
                *a -= 1;
                *b -= 1;
                hits += 1;
            }
        }
    }
    hits
}

fn occurrences(lines: &[Vec<String>]) -> HashMap<&str, usize> {
    let mut counts = HashMap::new();
    for word in lines.iter().flatten() {
        *counts.entry(word.as_str()).or_insert(0) += 1;
    }
    counts
}

#[cfg(test)]
mod tests;
