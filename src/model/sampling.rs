//! The next token from logits.
//!
//! Settings act in the order of transformers' logits processors: repetition penalty, temperature, top-k, top-p, min-p.
//! Each of the last three keeps the tokens above a score; tokens of one score stay or go together.

use crate::{error::ModelError, random::Key};

/// How the next token is chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Sampling {
    /// The likeliest.
    Greedy,
    /// Drawn by probability; the draw is a function of the seed, the prompt's tokens and the token's position, so that
    /// what is answered beside it changes nothing.
    Sample {
        /// Divides the logits; above zero.
        temperature: f64,
        /// Only the smallest set of likeliest tokens that holds this probability (0 to 1; 1 keeps all).
        top_p: f64,
        /// Only so many of the likeliest tokens; zero keeps all.
        top_k: u32,
        /// Only tokens that have at least this share of the likeliest one's probability; zero keeps all.
        min_p: f64,
        seed: u64,
    },
}

/// Neither favours nor avoids what is there already.
pub const NO_PENALTY: f64 = 1.0;

/// # Errors
/// A penalty that is not above zero.
pub(crate) fn check_penalty(penalty: f64) -> Result<(), ModelError> {
    let fine = penalty > 0.0 && penalty.is_finite();
    if fine { Ok(()) } else { Err(refused("repetition_penalty", "must be above zero", penalty)) }
}

fn refused(field: &'static str, rule: &str, found: f64) -> ModelError {
    ModelError::Setting { field, reason: format!("{rule}; it is {found}") }
}

/// Makes the logits of tokens that are there already smaller by `penalty` (Keskar et al. 2019, section 4.1), once each.
pub(crate) fn penalise(logits: &mut [f32], seen: impl Iterator<Item = u32>, penalty: f64) {
    let penalty = penalty as f32;
    let mut seen: Vec<usize> = seen.map(|id| id as usize).collect();
    seen.sort_unstable();
    seen.dedup();
    for id in seen {
        if let Some(logit) = logits.get_mut(id) {
            *logit = if *logit < 0.0 { *logit * penalty } else { *logit / penalty };
        }
    }
}

impl Sampling {
    /// # Errors
    /// A setting out of range, by name.
    pub fn check(&self) -> Result<(), ModelError> {
        let Self::Sample { temperature, top_p, min_p, .. } = *self else {
            return Ok(());
        };
        if !(temperature > 0.0 && temperature.is_finite()) {
            return Err(refused("temperature", "must be above zero", temperature));
        }
        if !(top_p > 0.0 && top_p <= 1.0) {
            return Err(refused("top_p", "must be above 0 and at most 1", top_p));
        }
        if !(0.0..=1.0).contains(&min_p) {
            return Err(refused("min_p", "must be from 0 to 1", min_p));
        }
        Ok(())
    }

    /// Where the draws of a prompt come from.
    pub(crate) fn key(&self, prompt: &[u32]) -> Key {
        let seed = match self {
            Self::Greedy => 0,
            Self::Sample { seed, .. } => *seed,
        };
        prompt.iter().fold(Key::new(seed).with_name("sampling"), |key, &id| key.with(u64::from(id)))
    }

    /// The next token by its `logits`, `[vocab]`, and a `draw` in `[0, 1)`. The logits are changed.
    pub(crate) fn choose(&self, logits: &mut [f32], draw: f64) -> u32 {
        let Self::Sample { temperature, .. } = *self else {
            return likeliest(logits);
        };
        let temperature = temperature as f32;
        for logit in logits.iter_mut() {
            *logit /= temperature;
        }
        let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let threshold = self.threshold(logits, most);
        pick(logits, most, threshold, draw)
    }

    /// Scores below it are left out; `most` is the highest score.
    fn threshold(&self, scores: &[f32], most: f32) -> f32 {
        let Self::Sample { top_p, top_k, min_p, .. } = *self else {
            return f32::NEG_INFINITY;
        };
        let mut threshold = f32::NEG_INFINITY;
        if (1..scores.len()).contains(&(top_k as usize)) {
            threshold = *scores.to_vec().select_nth_unstable_by(top_k as usize - 1, |a, b| b.total_cmp(a)).1;
        }
        if top_p < 1.0 {
            threshold = threshold.max(nucleus(scores, most, threshold, top_p));
        }
        if min_p > 0.0 { threshold.max(most + min_p.ln() as f32) } else { threshold }
    }
}

/// The first of the highest scores.
fn likeliest(scores: &[f32]) -> u32 {
    let higher = |best: usize, (id, score): (usize, &f32)| if *score > scores[best] { id } else { best };
    scores.iter().enumerate().fold(0, higher) as u32
}

/// The lowest score of the nucleus (Holtzman et al. 2020): a token belongs to it while those before it, likeliest first,
/// hold less than `top_p` of what is above `threshold`.
fn nucleus(scores: &[f32], most: f32, threshold: f32, top_p: f64) -> f32 {
    let mut left: Vec<f32> = scores.iter().copied().filter(|score| *score >= threshold).collect();
    let weight = |score: f32| f64::from(score - most).exp();
    let wanted = top_p * left.iter().map(|&score| weight(score)).sum::<f64>();
    let mut before = 0.0;
    let mut last = most;
    let mut sorted = 0;
    // A nucleus is small as a rule, so the likeliest are brought to the front a part at a time.
    for part in (0..).map(|power| 64_usize << (2 * power)) {
        let end = (sorted + part).min(left.len());
        let rest = &mut left[sorted..];
        if end < sorted + rest.len() {
            rest.select_nth_unstable_by(end - sorted, |a, b| b.total_cmp(a));
        }
        let part = &mut left[sorted..end];
        part.sort_unstable_by(|a, b| b.total_cmp(a));
        for &score in part.iter() {
            if before >= wanted {
                return last;
            }
            before += weight(score);
            last = score;
        }
        sorted = end;
        if sorted == left.len() {
            break;
        }
    }
    last
}

/// Inverse of the cumulative distribution at `draw` over the tokens at or above the threshold, in the order of their ids:
/// a logit that is off by its rounding cannot change their order.
fn pick(scores: &[f32], most: f32, threshold: f32, draw: f64) -> u32 {
    let kept = || scores.iter().enumerate().filter(|(_, score)| **score >= threshold);
    let weight = |score: f32| f64::from(score - most).exp();
    let wanted = draw * kept().map(|(_, &score)| weight(score)).sum::<f64>();
    let (mut passed, mut last) = (0.0, 0);
    for (id, &score) in kept() {
        let weight = weight(score);
        if weight > 0.0 {
            passed += weight;
            last = id;
        }
        if passed > wanted {
            break;
        }
    }
    last as u32
}

#[cfg(test)]
#[path = "sampling_tests.rs"]
mod tests;
