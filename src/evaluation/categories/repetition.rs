//! Answers that say the same again, or the prompt again.

use std::collections::HashSet;

use super::{Judged, text::words};

/// Words of a run that counts as said before.
const RUN: usize = 4;
/// An answer has so many runs before a share of them means anything.
const LEAST_RUNS: usize = 8;
/// A text at the end said so often is a loop.
const TIMES: usize = 3;
/// A loop is so many words long in all.
const LEAST_LOOP: usize = 6;
/// Words of the prompt in a row that are a copy.
const LEAST_COPY: usize = 6;

pub(super) fn repetitive(row: &Judged<'_>, share: f64) -> bool {
    repeats(&words(row.answer), share) && !repeats(&words(row.reference), share)
}

fn repeats(words: &[String], share: f64) -> bool {
    let runs = words.len().saturating_sub(RUN - 1);
    let different: HashSet<&[String]> = words.windows(RUN).collect();
    let repeated = (runs - different.len()) as f64;
    (runs >= LEAST_RUNS && repeated >= share * runs as f64) || ends_in_a_loop(words)
}

/// Whether the last words are one run of words three times.
fn ends_in_a_loop(words: &[String]) -> bool {
    (1..=words.len() / TIMES).any(|period| {
        let times = if period * TIMES < LEAST_LOOP { LEAST_LOOP.div_ceil(period) } else { TIMES };
        let Some(start) = words.len().checked_sub(period * times) else { return false };
        let tail = &words[start..];
        tail.iter().zip(&tail[period..]).all(|(a, b)| a == b)
    })
}

pub(super) fn copies_prompt(row: &Judged<'_>, share: f64) -> bool {
    let prompt = words(row.prompt);
    let copies = |text: &str| {
        let words = words(text);
        let run = longest_common_run(&words, &prompt);
        run >= LEAST_COPY && run as f64 >= share * words.len() as f64
    };
    copies(row.answer) && !copies(row.reference)
}

/// Length of the longest run of words that both have.
fn longest_common_run(a: &[String], b: &[String]) -> usize {
    let mut row = vec![0_usize; b.len() + 1];
    let mut longest = 0;
    for word in a {
        let mut diagonal = 0;
        for (column, other) in b.iter().enumerate() {
            let above = row[column + 1];
            row[column + 1] = if word == other { diagonal + 1 } else { 0 };
            longest = longest.max(row[column + 1]);
            diagonal = above;
        }
    }
    longest
}
