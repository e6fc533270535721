//! Names that an answer has from nowhere.

use std::{
    collections::{BTreeSet, HashSet},
    sync::LazyLock,
};

use regex::Regex;

use super::{
    Judged,
    text::{own, prose, words},
};

/// Capitalised words that name no one in particular.
const COMMON: [&str; 41] = [
    "i",
    "i'm",
    "i've",
    "i'd",
    "i'll",
    "monday",
    "tuesday",
    "wednesday",
    "thursday",
    "friday",
    "saturday",
    "sunday",
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
    "english",
    "ok",
    "mr",
    "mrs",
    "ms",
    "dr",
    "internet",
    "god",
    "earth",
    "christmas",
    "easter",
    "am",
    "pm",
    "usa",
    "tv",
    "ai",
    "dna",
];

/// Names of the answer none of whose words is in prompt or reference.
pub(super) fn unsupported(row: &Judged<'_>) -> BTreeSet<String> {
    let known: HashSet<String> =
        words(row.prompt).into_iter().chain(words(row.reference)).map(|word| bare(&word)).collect();
    names(row.answer)
        .into_iter()
        .filter(|name| words(name).iter().all(|word| !known.contains(&bare(word)) && !COMMON.contains(&word.as_str())))
        .collect()
}

/// Without the ending of a possessive or a plural.
fn bare(word: &str) -> String {
    let word = word.strip_suffix("'s").unwrap_or(word);
    word.strip_suffix('s').filter(|rest| rest.len() > 3).unwrap_or(word).to_owned()
}

/// Runs of capitalised words within a sentence. The first word of a sentence, an item or a quotation is capitalised
/// anyway, and so is every word of a heading.
fn names(text: &str) -> Vec<String> {
    static WITHIN: LazyLock<Regex> = LazyLock::new(|| {
        own(
            r"[\p{Ll}\d,)]['’]?[sS]?,? ((?:(?:the|of|de|van|von|da|al|el|la|le) )?\p{Lu}[\p{L}'’-]+(?: (?:of |de |van |von |da )?\p{Lu}[\p{L}'’-]+)*)",
        )
    });
    let prose = prose(text);
    let mut found = Vec::new();
    for line in prose.lines().filter(|line| !is_heading(line)) {
        let mut at = 0;
        // Matches share the letter before their space, so that each search starts within the last match.
        while let Some(name) = WITHIN.captures_at(line, at).and_then(|captures| captures.get(1)) {
            found.push(name.as_str().to_owned());
            at = name.end().saturating_sub(1).max(at + 1);
            while !line.is_char_boundary(at) {
                at += 1;
            }
        }
    }
    found
}

/// Whether most words of a line are capitalised.
fn is_heading(line: &str) -> bool {
    let long: Vec<&str> = line.split_whitespace().filter(|word| word.chars().count() > 3).collect();
    let capital = long.iter().filter(|word| word.chars().find(|c| c.is_alphabetic()).is_some_and(char::is_uppercase));
    !long.is_empty() && capital.count() * 10 >= long.len() * 7 && !line.trim_end().ends_with('.')
}
