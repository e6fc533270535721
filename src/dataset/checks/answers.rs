//! Answers that teach little.

use std::collections::HashSet;

use super::Found;
use crate::{rules, texts::TextOf};

/// Shorter prompts may well be repeated.
const SHORTEST_PROMPT_BYTES: usize = 20;
/// An answer of fewer words repeats itself by nature.
const FEWEST_WORDS: usize = 40;
/// Words of a long answer that are looked at.
const MOST_WORDS: usize = 2000;
/// Runs of four words that occur once, as a share of all.
const LEAST_DISTINCT: f64 = 0.35;

pub(super) fn look(answer: &TextOf<'_>, question: &str, found: &mut Found<'_>) {
    let text = answer.text.trim();
    if !text.is_empty() && text.chars().nth(1).is_none() {
        found.add(&rules::ANSWER_SHORT, answer, format!("the answer is the single character `{text}`"));
    }
    let question = question.trim();
    if question.len() >= SHORTEST_PROMPT_BYTES && text.starts_with(question) {
        let reason = "the answer begins with its whole prompt; the model will learn to repeat what it is asked";
        found.add(&rules::ANSWER_REPEATS_PROMPT, answer, reason.to_owned());
    }
    if let Some(distinct) = distinct_share(text).filter(|share| *share < LEAST_DISTINCT) {
        let percent = (100.0 * (1.0 - distinct)).round();
        let reason = format!("{percent} of 100 runs of four words were there before in the same answer");
        found.add(&rules::ANSWER_REPETITIVE, answer, reason);
    }
}

/// Share of the runs of four words that were not there before.
fn distinct_share(text: &str) -> Option<f64> {
    // A word and its space have at least two bytes: most answers are judged without a look.
    if text.len() < 2 * FEWEST_WORDS {
        return None;
    }
    let words: Vec<&str> = text.split_ascii_whitespace().take(MOST_WORDS).collect();
    if words.len() < FEWEST_WORDS {
        return None;
    }
    let runs = words.len() - 3;
    let distinct: HashSet<&[&str]> = words.windows(4).collect();
    Some(distinct.len() as f64 / runs as f64)
}
