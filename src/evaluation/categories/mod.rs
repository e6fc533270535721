//! Kinds of error in an answer. What each one is, `ErrorCategory::definition` says; from where on, the thresholds.

mod format;
mod language;
mod length;
mod names;
mod numbers;
mod refusal;
mod repetition;
mod spelling;
mod text;
mod training;

use finetuned_protocol::evaluation_spec::{CategoryThresholds, ErrorCategory, EvaluationSpec};
use regex::{Regex, RegexBuilder};
pub use spelling::{KnownWords, Spelling, add_known_words};
pub use training::typical_words;

use crate::EvaluationError;

/// A compiled pattern may take so much memory.
const PATTERN_BYTES: usize = 1 << 20;

/// An answer and what it is judged by.
#[derive(Debug, Clone, Copy)]
pub struct Judged<'a> {
    pub prompt: &'a str,
    pub reference: &'a str,
    pub answer: &'a str,
    /// Whether it ended by itself rather than at the token limit.
    pub ended: bool,
}

/// Looks for kinds of error.
pub struct Categoriser<'a> {
    thresholds: CategoryThresholds,
    patterns: Vec<(String, Regex)>,
    spelling: Option<(&'a Spelling, KnownWords)>,
}

impl<'a> Categoriser<'a> {
    /// Without `spelling` no answer is found misspelled.
    ///
    /// # Errors
    /// A pattern that does not compile.
    pub fn new(spec: &EvaluationSpec, spelling: Option<(&'a Spelling, KnownWords)>) -> Result<Self, EvaluationError> {
        let patterns = spec.patterns.iter().map(|category| {
            let built = RegexBuilder::new(&category.pattern).size_limit(PATTERN_BYTES).build();
            let regex = built.map_err(|source| EvaluationError::Pattern { name: category.name.clone(), source })?;
            Ok((category.name.clone(), regex))
        });
        Ok(Self { thresholds: spec.thresholds.clone(), patterns: patterns.collect::<Result<_, _>>()?, spelling })
    }

    /// Names of the categories that are looked for.
    pub fn names(&self) -> Vec<String> {
        let built_in = ErrorCategory::ALL.iter().filter(|category| self.judges(**category)).map(ToString::to_string);
        built_in.chain(self.patterns.iter().map(|(name, _)| name.clone())).collect()
    }

    /// Names of the categories that an answer belongs to, in the order of [`Self::names`].
    pub fn of(&self, row: &Judged<'_>) -> Vec<String> {
        let built_in = ErrorCategory::ALL.iter().filter(|category| self.has(**category, row)).map(ToString::to_string);
        let own = self.patterns.iter().filter(|(_, regex)| regex.is_match(row.answer)).map(|(name, _)| name.clone());
        built_in.chain(own).collect()
    }

    fn judges(&self, category: ErrorCategory) -> bool {
        category != ErrorCategory::Misspelled || self.spelling.is_some()
    }

    /// Whether an answer belongs to a category. An empty answer is nothing but empty.
    pub fn has(&self, category: ErrorCategory, row: &Judged<'_>) -> bool {
        if !row.answer.chars().any(char::is_alphanumeric) {
            return category == ErrorCategory::Empty && row.reference.chars().any(char::is_alphanumeric);
        }
        let at = &self.thresholds;
        match category {
            ErrorCategory::Empty => false,
            ErrorCategory::TooLong => length::too_long(row, at.too_long_ratio),
            ErrorCategory::TooShort => length::too_short(row, at.too_short_ratio),
            ErrorCategory::Repetitive => repetition::repetitive(row, at.repeated_share),
            ErrorCategory::CopiesPrompt => repetition::copies_prompt(row, at.copied_share),
            ErrorCategory::Refusal => refusal::is_refusal(row.answer) && !refusal::is_refusal(row.reference),
            ErrorCategory::WrongLanguage => language::is_wrong(row, at.language_confidence),
            ErrorCategory::BrokenFormat => format::is_broken(row),
            ErrorCategory::Misspelled => self
                .spelling
                .as_ref()
                .is_some_and(|(spelling, known)| spelling.misspelled(row, known).len() >= at.misspelled_words as usize),
            ErrorCategory::HallucinatedNumber => numbers::unsupported(row).len() >= at.unsupported_numbers as usize,
            ErrorCategory::HallucinatedName => names::unsupported(row).len() >= at.unsupported_names as usize,
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
