//! Misspelled words, by a Hunspell dictionary.

use std::{collections::HashSet, fs, path::Path, sync::LazyLock};

use regex::Regex;
use spellbook::Dictionary;

use super::{
    Judged,
    language::may_be_english,
    text::{own, prose, words},
};
use crate::EvaluationError;

/// Words that are right whatever the dictionary says.
pub type KnownWords = HashSet<String>;

/// Adds the words of a text.
pub fn add_known_words(text: &str, known: &mut KnownWords) {
    known.extend(words(text));
}

/// A dictionary of US English.
pub struct Spelling(Dictionary);

impl Spelling {
    /// Reads `en_US.aff` and `en_US.dic` in a folder.
    ///
    /// # Errors
    /// Files that cannot be read, or are no dictionary.
    pub fn open(folder: &Path) -> Result<Self, EvaluationError> {
        let refused = |why: String| EvaluationError::Dictionary { folder: folder.display().to_string(), why };
        let read =
            |name: &str| fs::read_to_string(folder.join(name)).map_err(|error| refused(format!("{name}: {error}")));
        let (affixes, entries) = (read("en_US.aff")?, read("en_US.dic")?);
        Dictionary::new(&affixes, &entries).map(Self).map_err(|error| refused(error.to_string()))
    }

    /// Words of an English answer that are neither in the dictionary nor in `known`, prompt or reference.
    pub(super) fn misspelled(&self, row: &Judged<'_>, known: &KnownWords) -> HashSet<String> {
        if !may_be_english(row.answer, CERTAIN) {
            return HashSet::new();
        }
        let given: HashSet<String> = words(row.prompt).into_iter().chain(words(row.reference)).collect();
        let is_right = |word: &str| {
            let lower = word.to_lowercase();
            given.contains(&lower) || known.contains(&lower) || self.0.check(word) || self.0.check(&lower)
        };
        candidates(row.answer).into_iter().filter(|word| !is_right(word)).collect()
    }
}

/// An answer is taken for another language only where that is nearly sure.
const CERTAIN: f64 = 0.9;

/// Words that a dictionary can judge: two letters or more, all small, or capitalised at the start of a sentence; so no
/// name, no number, no unit and no code.
fn candidates(text: &str) -> HashSet<String> {
    static WORD: LazyLock<Regex> =
        LazyLock::new(|| own(r"(^|[.!?:]\s+|\n\s*|[\s\p{Ps}\p{Pi}\p{Pf}\p{Po}\p{Pd}])(\p{L}+(?:'\p{L}+)*)"));
    let prose = prose(text);
    let mut found = HashSet::new();
    let mut at = 0;
    while let Some(captures) = WORD.captures_at(&prose, at) {
        let (Some(before), Some(word)) = (captures.get(1), captures.get(2)) else { break };
        at = word.end();
        let follows_digit = prose[..word.start()].ends_with(|c: char| c.is_ascii_digit());
        let begins = before.as_str().is_empty() || before.as_str().len() > 1 || before.as_str() == "\n";
        if !follows_digit && word.as_str().chars().count() > 1 && is_plain(word.as_str(), begins) {
            found.insert(word.as_str().to_owned());
        }
    }
    found
}

fn is_plain(word: &str, begins: bool) -> bool {
    let mut letters = word.chars();
    let first = letters.next().is_some_and(|c| c.is_lowercase() || (begins && c.is_uppercase()));
    first && letters.all(|c| !c.is_uppercase())
}
