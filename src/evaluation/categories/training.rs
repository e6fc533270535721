//! Kinds of error in the answers of training rows, which have no reference beside them.

use finetuned_protocol::evaluation_spec::ErrorCategory;

use super::{Categoriser, Judged, text::words};

impl Categoriser<'_> {
    /// Names of the categories that a training row's answer shows. Its length is held against `typical_words`, the median
    /// of all training answers; everything else against the prompt alone.
    pub fn of_training(&self, prompt: &str, answer: &str, typical_words: usize) -> Vec<String> {
        let typical = "word ".repeat(typical_words.max(1));
        let held_against = |category: ErrorCategory| match category {
            ErrorCategory::Empty | ErrorCategory::TooLong | ErrorCategory::TooShort => typical.as_str(),
            _ => "",
        };
        let shows = |category: &&ErrorCategory| {
            let reference = held_against(**category);
            self.judges(**category) && self.has(**category, &Judged { prompt, reference, answer, ended: true })
        };
        let built_in = ErrorCategory::ALL.iter().filter(shows).map(ToString::to_string);
        let own = self.patterns.iter().filter(|(_, regex)| regex.is_match(answer)).map(|(name, _)| name.clone());
        built_in.chain(own).collect()
    }
}

/// The median number of words of texts; 0 for none.
pub fn typical_words<'t>(texts: impl Iterator<Item = &'t str>) -> usize {
    let mut counts: Vec<usize> = texts.map(|text| words(text).len()).collect();
    counts.sort_unstable();
    counts.get(counts.len() / 2).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use finetuned_protocol::evaluation_spec::{EvaluationSpec, PatternCategory};

    use super::*;

    #[test]
    fn answers_are_held_against_the_prompt_and_the_typical_length() {
        let pattern = PatternCategory { name: "shouted".into(), pattern: "!!".into() };
        let spec = EvaluationSpec { patterns: vec![pattern], ..EvaluationSpec::default() };
        let categoriser = Categoriser::new(&spec, None).unwrap();
        let of = |prompt: &str, answer: &str| categoriser.of_training(prompt, answer, 8);
        let good = "the sky is blue because air scatters light";
        assert_eq!(of("Why is the sky blue?", good), Vec::<String>::new());
        assert_eq!(of("Why?", "  "), ["empty"]);
        assert_eq!(of("Why?", "well"), ["too_short"]);
        assert_eq!(of("Why?", "I'm sorry, but I cannot help you with that!!"), ["refusal", "shouted"]);
        assert_eq!(of("How many?", "there are 417 of them in all, I say"), ["hallucinated_number"]);
        assert_eq!(of("How many of 417?", "there are 417 of them in all, I say"), Vec::<String>::new());
        let again = "one two three four ".repeat(5);
        assert_eq!(of("Count.", &again), ["too_long", "repetitive"]);
        assert_eq!(of("Tell me how it came to be so", "tell me how it came to be so"), ["copies_prompt"]);
    }

    #[test]
    fn the_typical_length_is_the_median() {
        assert_eq!(typical_words(["a", "a b c", "a b", "a b c d e f g h i"].into_iter()), 3);
        assert_eq!(typical_words(std::iter::empty()), 0);
    }
}
