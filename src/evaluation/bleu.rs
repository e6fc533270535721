//! BLEU (Papineni et al. 2002) as the Python package sacrebleu computes it: tokens of mteval-v13a, n-grams up to four,
//! exponential smoothing (Chen & Cherry 2014, method 3).

use crate::ngrams::{common, is_space};

/// Longest n-gram.
const ORDERS: usize = 4;

/// Counts from which BLEU follows; those of rows add up to those of a corpus.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BleuCounts {
    reference_tokens: usize,
    prediction_tokens: usize,
    /// n-grams of the prediction, by n.
    total: [usize; ORDERS],
    /// Those that the reference has too.
    correct: [usize; ORDERS],
}

impl BleuCounts {
    pub fn new(reference: &str, prediction: &str) -> Self {
        let (reference, prediction) = (tokens(reference), tokens(prediction));
        let mut counts =
            Self { reference_tokens: reference.len(), prediction_tokens: prediction.len(), ..Self::default() };
        for n in 1..=ORDERS {
            let (of_reference, of_prediction) = (sorted_ngrams(&reference, n), sorted_ngrams(&prediction, n));
            counts.total[n - 1] = of_prediction.len();
            counts.correct[n - 1] = common(&of_reference, &of_prediction);
        }
        counts
    }

    /// Adds the counts of another row.
    pub fn add(&mut self, other: &Self) {
        self.reference_tokens += other.reference_tokens;
        self.prediction_tokens += other.prediction_tokens;
        for n in 0..ORDERS {
            self.total[n] += other.total[n];
            self.correct[n] += other.correct[n];
        }
    }

    /// BLEU of one sentence, 0 to 100: orders for which the prediction is too short do not count.
    pub fn sentence(&self) -> f64 {
        self.score(true)
    }

    /// BLEU of a corpus, 0 to 100: zero where the predictions have no n-gram of the longest order.
    pub fn corpus(&self) -> f64 {
        self.score(false)
    }

    fn score(&self, effective_order: bool) -> f64 {
        if self.correct.iter().all(|count| *count == 0) {
            return 0.0;
        }
        let mut smoothing = 1.0;
        let mut log_sum = 0.0;
        let mut orders = 0;
        for (correct, total) in self.correct.iter().zip(self.total) {
            if total == 0 {
                break;
            }
            orders += 1;
            log_sum += if *correct == 0 {
                smoothing *= 2.0;
                (100.0 / (smoothing * total as f64)).ln()
            } else {
                (100.0 * *correct as f64 / total as f64).ln()
            };
        }
        if orders < ORDERS && !effective_order {
            return 0.0;
        }
        self.brevity_penalty() * (log_sum / orders as f64).exp()
    }

    fn brevity_penalty(&self) -> f64 {
        let (predicted, referenced) = (self.prediction_tokens as f64, self.reference_tokens as f64);
        if self.prediction_tokens >= self.reference_tokens { 1.0 } else { (1.0 - referenced / predicted).exp() }
    }
}

fn sorted_ngrams(tokens: &[String], n: usize) -> Vec<&[String]> {
    let mut ngrams: Vec<&[String]> = tokens.windows(n).collect();
    ngrams.sort_unstable();
    ngrams
}

/// Tokens of mteval-v13a.
fn tokens(text: &str) -> Vec<String> {
    let mut line = text.trim_end_matches(is_space).replace("<skipped>", "").replace("-\n", "").replace('\n', " ");
    if line.contains('&') {
        for (entity, character) in [("&quot;", "\""), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">")] {
            line = line.replace(entity, character);
        }
    }
    let mut letters: Vec<char> = Vec::with_capacity(line.len() * 2);
    for letter in format!(" {line} ").chars() {
        if is_symbol(letter) { letters.extend([' ', letter, ' ']) } else { letters.push(letter) }
    }
    let stop = |c: char| matches!(c, '.' | ',');
    let letters = pairs(&letters, |a, b| !a.is_ascii_digit() && stop(b), |a, b| [a, ' ', b, ' ']);
    let letters = pairs(&letters, |a, b| stop(a) && !b.is_ascii_digit(), |a, b| [' ', a, ' ', b]);
    let letters = pairs(&letters, |a, b| a.is_ascii_digit() && b == '-', |a, b| [a, ' ', b, ' ']);
    letters.split(|c| is_space(*c)).filter(|token| !token.is_empty()).map(|token| token.iter().collect()).collect()
}

/// ASCII punctuation that always stands alone: all but apostrophe, comma, dash and full stop.
fn is_symbol(c: char) -> bool {
    matches!(c, '{'..='~' | '['..='`' | ' '..='&' | '('..='+' | ':'..='@' | '/')
}

/// Replaces each pair of neighbours that `matches`, from left to right; a letter is part of one pair at most.
fn pairs(
    letters: &[char],
    matches: impl Fn(char, char) -> bool,
    replacement: impl Fn(char, char) -> [char; 4],
) -> Vec<char> {
    let mut found = Vec::with_capacity(letters.len() + 8);
    let mut at = 0;
    while at < letters.len() {
        match letters[at..] {
            [a, b, ..] if matches(a, b) => {
                found.extend(replacement(a, b));
                at += 2;
            }
            _ => {
                found.push(letters[at]);
                at += 1;
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stops_part_from_words_but_not_from_numbers() {
        assert_eq!(
            tokens("It's 3.5, or 1,000-fold: \"a.b\" & (c).."),
            [
                "It's", "3.5", ",", "or", "1,000", "-", "fold", ":", "\"", "a", ".", "b", "\"", "&", "(", "c", ")",
                ".", "."
            ]
        );
        assert_eq!(tokens("a&lt;b hy-\nphen"), ["a", "<", "b", "hyphen"]);
    }

    #[test]
    fn closed_forms() {
        assert_eq!(BleuCounts::new("", "").sentence(), 0.0);
        assert_eq!(BleuCounts::new("a", "b").sentence(), 0.0);
        assert!((BleuCounts::new("a b c d e", "a b c d e").corpus() - 100.0).abs() < 1e-9);
        // Two tokens, both right, reference of four: precision 1, brevity exp(-1).
        let short = BleuCounts::new("a b c d", "a b");
        assert!((short.sentence() - 100.0 * (-1.0_f64).exp()).abs() < 1e-9);
        assert_eq!(short.corpus(), 0.0);
    }
}
