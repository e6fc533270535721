//! The next token of one answer, with all that a client may ask of it.

use std::collections::BTreeMap;

use crate::{error::ModelError, log_probabilities::TokenScores, random::Key, sampling::Sampling};

/// How tokens of one answer are chosen.
#[derive(Debug, Clone)]
pub struct ChoiceOptions {
    pub sampling: Sampling,
    /// Subtracted from the logits of tokens that the answer has, once each.
    pub presence_penalty: f64,
    /// Subtracted as often as the answer has the token.
    pub frequency_penalty: f64,
    /// Added to logits of tokens.
    pub logit_bias: BTreeMap<u32, f64>,
    /// Whether to tell how likely each token was, and beside how many of the likeliest.
    pub log_probabilities: Option<u32>,
}

/// Chooses the tokens of one answer; what is answered beside it changes nothing.
#[derive(Debug)]
pub struct Chooser {
    options: ChoiceOptions,
    key: Key,
    /// How often the answer has each token.
    counts: BTreeMap<u32, u32>,
    chosen: u64,
}

impl Chooser {
    /// For the answer to a prompt.
    ///
    /// # Errors
    /// A setting out of range, by name.
    pub fn new(options: ChoiceOptions, prompt: &[u32]) -> Result<Self, ModelError> {
        options.sampling.check()?;
        for (field, penalty) in
            [("presence_penalty", options.presence_penalty), ("frequency_penalty", options.frequency_penalty)]
        {
            if !(-2.0..=2.0).contains(&penalty) {
                return Err(ModelError::Setting { field, reason: format!("must be from -2 to 2; it is {penalty}") });
            }
        }
        let key = options.sampling.key(prompt);
        Ok(Self { options, key, counts: BTreeMap::new(), chosen: 0 })
    }

    /// Whether the token is the highest logit and nothing more is asked, so that logits need not leave the device.
    pub fn is_plain(&self) -> bool {
        let options = &self.options;
        options.sampling == Sampling::Greedy
            && options.presence_penalty == 0.0
            && options.frequency_penalty == 0.0
            && options.logit_bias.is_empty()
            && options.log_probabilities.is_none()
    }

    /// The next token by its `logits`, `[vocab]`, which are changed; only one that is `allowed`, where some are not.
    pub fn choose(&mut self, logits: &mut [f32], allowed: Option<&dyn Fn(u32) -> bool>) -> (u32, Option<TokenScores>) {
        let own = self.options.log_probabilities.map(|top| (top, logits.to_vec()));
        for (&id, &count) in &self.counts {
            if let Some(logit) = logits.get_mut(id as usize) {
                let penalty = self.options.presence_penalty + f64::from(count) * self.options.frequency_penalty;
                *logit -= penalty as f32;
            }
        }
        for (&id, &bias) in &self.options.logit_bias {
            if let Some(logit) = logits.get_mut(id as usize) {
                *logit += bias as f32;
            }
        }
        if let Some(allowed) = allowed {
            for (id, logit) in logits.iter_mut().enumerate() {
                if !allowed(id as u32) {
                    *logit = f32::NEG_INFINITY;
                }
            }
        }
        let token = self.options.sampling.choose(logits, self.key.uniform(self.chosen));
        self.note(token);
        (token, own.map(|(top, own)| TokenScores::of(&own, token, top)))
    }

    /// Notes a token that was chosen as [`Self::is_plain`] says.
    pub fn note(&mut self, token: u32) {
        *self.counts.entry(token).or_default() += 1;
        self.chosen += 1;
    }
}
