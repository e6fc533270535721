//! F1 over words as the script of SQuAD counts it (Rajpurkar et al. 2016, evaluate-v1.1): lower case, without ASCII
//! punctuation and articles, split at white space.

use crate::{
    ngrams::{common, is_space},
    rouge::Prf,
};

/// F1 over words, 0 to 1.
pub fn word_f1(reference: &str, prediction: &str) -> f64 {
    let (reference, prediction) = (words(reference), words(prediction));
    Prf::of_counts(common(&reference, &prediction), reference.len(), prediction.len()).f1
}

/// Sorted.
fn words(text: &str) -> Vec<String> {
    let text: String = text.to_lowercase().chars().filter(|c| !c.is_ascii_punctuation()).collect();
    let mut words: Vec<String> = text
        .split(is_space)
        .filter(|word| !word.is_empty() && !matches!(*word, "a" | "an" | "the"))
        .map(ToOwned::to_owned)
        .collect();
    words.sort_unstable();
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn articles_case_and_punctuation_do_not_count() {
        assert_eq!(word_f1("The cat's tail.", "a cats TAIL"), 1.0);
        // Two of three and two of two: 2 * (2/3) / (5/3).
        assert!((word_f1("red green blue", "green red") - 0.8).abs() < 1e-12);
        assert_eq!((word_f1("", "x"), word_f1("the", "the")), (0.0, 0.0));
    }
}
