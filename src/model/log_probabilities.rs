//! How likely the model found the tokens of an answer.

/// One token of an answer and what else was likely there, by the model's own logits: before a penalty, a temperature or a
/// cut.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenScores {
    /// Natural logarithm of the chosen token's probability.
    pub log_probability: f64,
    /// The likeliest tokens with the logarithms of their probabilities, likeliest first.
    pub top: Vec<(u32, f64)>,
}

impl TokenScores {
    /// Of the token `chosen` by `logits`, `[vocab]`, with the `top` likeliest.
    pub(crate) fn of(logits: &[f32], chosen: u32, top: u32) -> Self {
        let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = logits.iter().map(|&logit| f64::from(logit - most).exp()).sum();
        let log_probability = |logit: f32| f64::from(logit) - f64::from(most) - sum.ln();
        let mut ids: Vec<u32> = (0..logits.len() as u32).collect();
        let by_logit = |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b));
        let top = (top as usize).min(ids.len());
        if top < ids.len() {
            ids.select_nth_unstable_by(top, by_logit);
            ids.truncate(top);
        }
        ids.sort_unstable_by(by_logit);
        Self {
            log_probability: logits.get(chosen as usize).map_or(f64::NEG_INFINITY, |&logit| log_probability(logit)),
            top: ids.into_iter().map(|id| (id, log_probability(logits[id as usize]))).collect(),
        }
    }
}
