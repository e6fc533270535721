//! Direct preference optimisation (Rafailov et al. 2023): pairs of answers, scored by the model in training and, once
//! before it, by the reference.

use finetuned_dataset::Encoded;
use finetuned_evaluation::LikelihoodSum;
use finetuned_model::{Adapter, CausalLm, DocumentScores, Documents, ForwardContext, score_documents};
use finetuned_protocol::{
    engine::Phase,
    evaluation::{Likelihood, PreferenceFigures},
    objective::DpoSpec,
};

use crate::{error::EngineError, watch::Watch};

/// Log-probabilities of the two answers of a pair, in nats.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct PairScore {
    pub chosen: f64,
    pub rejected: f64,
}

/// What a pair costs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PairLoss {
    pub loss: f64,
    /// Derivative of the loss by the log-probability of the better answer; by the other's it is the negative.
    pub slope: f64,
    pub chosen_reward: f64,
    pub rejected_reward: f64,
}

impl PairLoss {
    /// The formula of [`DpoSpec`]; with the logistic function `s`, `-log s(h)` is `log(1 + exp(-h))`, whose derivative is
    /// `-s(-h)`.
    pub fn of(spec: &DpoSpec, policy: PairScore, reference: PairScore) -> Self {
        let DpoSpec { beta, label_smoothing } = *spec;
        let chosen_reward = beta * (policy.chosen - reference.chosen);
        let rejected_reward = beta * (policy.rejected - reference.rejected);
        let h = chosen_reward - rejected_reward;
        Self {
            loss: (1.0 - label_smoothing) * softplus(-h) + label_smoothing * softplus(h),
            slope: beta * (label_smoothing * logistic(h) - (1.0 - label_smoothing) * logistic(-h)),
            chosen_reward,
            rejected_reward,
        }
    }
}

/// `log(1 + exp(x))`, without an overflow.
fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

fn logistic(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// Pairs added up.
#[derive(Debug, Clone, Copy, Default)]
pub struct PreferenceSum {
    pairs: u64,
    /// Pairs whose better answer has the higher reward.
    preferred: u64,
    chosen_reward: f64,
    rejected_reward: f64,
}

impl PreferenceSum {
    pub fn add(&mut self, pair: &PairLoss) {
        self.pairs += 1;
        self.preferred += u64::from(pair.chosen_reward > pair.rejected_reward);
        self.chosen_reward += pair.chosen_reward;
        self.rejected_reward += pair.rejected_reward;
    }

    /// `None` where there was no pair.
    pub fn figures(&self) -> Option<PreferenceFigures> {
        let pairs = self.pairs as f64;
        (self.pairs > 0).then(|| PreferenceFigures {
            reward_accuracy: self.preferred as f64 / pairs,
            reward_margin: (self.chosen_reward - self.rejected_reward) / pairs,
            chosen_reward: self.chosen_reward / pairs,
            rejected_reward: self.rejected_reward / pairs,
        })
    }
}

/// A micro-batch of pairs, scored.
pub struct ScoredPairs {
    /// The better answers of all pairs, then the others.
    scores: DocumentScores,
    pairs: usize,
}

impl ScoredPairs {
    /// # Errors
    /// The model's, or a row that is no pair.
    pub fn of(
        model: &CausalLm,
        adapter: Option<&Adapter>,
        rows: &[&Encoded],
        context: ForwardContext,
    ) -> Result<Self, EngineError> {
        let no_pair = || EngineError::Internal("a row of a preference job has one answer only".to_owned());
        let rejected: Vec<_> =
            rows.iter().map(|row| row.rejected.as_ref().ok_or_else(no_pair)).collect::<Result<_, _>>()?;
        let chosen = rows.iter().map(|row| (row.ids.as_slice(), row.labels.as_slice()));
        let others = rejected.iter().map(|other| (other.ids.as_slice(), other.labels.as_slice()));
        let (ids, labels): (Vec<&[u32]>, Vec<&[i64]>) = chosen.chain(others).unzip();
        // Both answers of a pair draw the same dropout, so that only what differs between them differs.
        let dropout = context.dropout.map(|keys| finetuned_model::DropoutKeys { lines: keys.lines.repeat(2), ..keys });
        let documents = Documents::pack(&ids, model.device())?;
        let context = ForwardContext { dropout, ..context };
        Ok(Self { scores: score_documents(model, &documents, &labels.concat(), adapter, &context)?, pairs: rows.len() })
    }

    pub fn pairs(&self) -> impl Iterator<Item = PairScore> + '_ {
        let (chosen, rejected) = self.scores.log_probabilities.split_at(self.pairs);
        chosen.iter().zip(rejected).map(|(&chosen, &rejected)| PairScore { chosen, rejected })
    }

    /// Tokens of the better answers that the model ranked first, and all of them.
    pub fn chosen_tokens(&self) -> (u64, u64) {
        let sum = |counts: &[u64]| counts[..self.pairs].iter().sum();
        (sum(&self.scores.correct), sum(&self.scores.supervised))
    }

    /// Adds `share` times the gradient of the pairs' losses.
    ///
    /// # Errors
    /// The model's.
    pub fn backward(&self, losses: &[PairLoss], share: f64) -> Result<(), EngineError> {
        let chosen = losses.iter().map(|pair| pair.slope * share);
        let rejected = losses.iter().map(|pair| -pair.slope * share);
        let coefficients: Vec<f64> = chosen.chain(rejected).collect();
        Ok(self.scores.weighted_sum(&coefficients)?.f_backward()?)
    }
}

/// Log-probabilities of both answers of all pairs, `size` pairs at a time.
///
/// # Errors
/// The model's, or the reason to break off.
pub fn score_all(
    model: &CausalLm,
    adapter: Option<&Adapter>,
    rows: &[&Encoded],
    size: usize,
    mut told: impl FnMut(u64) -> Result<(), EngineError>,
) -> Result<Vec<PairScore>, EngineError> {
    let mut all = Vec::with_capacity(rows.len());
    for rows in rows.chunks(size.max(1)) {
        told(all.len() as u64)?;
        let scored = tch::no_grad(|| ScoredPairs::of(model, adapter, rows, ForwardContext::default()))?;
        all.extend(scored.pairs());
    }
    Ok(all)
}

/// What held-out pairs are judged with.
pub struct Judge<'a> {
    pub spec: DpoSpec,
    /// As many as rows.
    pub reference: &'a [PairScore],
    /// Pairs computed at once.
    pub size: usize,
}

/// Judges the held-out pairs. Nothing is drawn, so the size of a micro-batch changes no more than the rounding.
///
/// # Errors
/// The model's, or the reason to break off.
pub fn evaluate(
    model: &CausalLm,
    adapter: Option<&Adapter>,
    rows: &[&Encoded],
    judge: &Judge,
    watch: &mut Watch,
) -> Result<Likelihood, EngineError> {
    let (mut chosen, mut preference, mut loss) = (LikelihoodSum::default(), PreferenceSum::default(), 0.0);
    let size = judge.size.max(1);
    for (rows_now, reference) in rows.chunks(size).zip(judge.reference.chunks(size)) {
        watch.tick(Phase::Evaluating, chosen.rows, rows.len() as u64)?;
        let scored = tch::no_grad(|| ScoredPairs::of(model, adapter, rows_now, ForwardContext::default()))?;
        for (policy, &reference) in scored.pairs().zip(reference) {
            let pair = PairLoss::of(&judge.spec, policy, reference);
            preference.add(&pair);
            loss += pair.loss;
            chosen.loss_sum -= policy.chosen;
        }
        let (correct, supervised) = scored.chosen_tokens();
        chosen.merge(&LikelihoodSum {
            loss_sum: 0.0,
            correct_tokens: correct,
            supervised_tokens: supervised,
            rows: rows_now.len() as u64,
            supervised_bytes: 0,
        });
    }
    watch.tick(Phase::Evaluating, chosen.rows, rows.len() as u64)?;
    let likelihood = chosen.finish();
    Ok(Likelihood { loss: loss / chosen.rows.max(1) as f64, preference: preference.figures(), ..likelihood })
}

#[cfg(test)]
mod tests {
    use std::f64::consts::LN_2;

    use super::*;

    /// Log-probabilities of five pairs under policy and reference, and the losses of each with beta 0.1, and with beta 0.5
    /// and label smoothing 0.2, as the formula gives them in 60 digits.
    const STORED: [([f64; 4], f64, f64); 5] = [
        ([-12.5, -14.25, -13.0, -13.5], 0.6325990353171691, 0.5537006782765186),
        ([-80.125, -60.5, -75.25, -66.75], 1.3967281841557015, 4.453831815682354),
        ([-4.0, -4.0, -4.0, -4.0], LN_2, LN_2),
        ([-210.5, -250.75, -230.25, -228.5], 0.014884254671918128, 4.200000000758256),
        ([-0.25, -33.0, -6.5, -7.125], 0.03946669034863906, 3.2125001057170075),
    ];

    fn score(chosen: f64, rejected: f64) -> PairScore {
        PairScore { chosen, rejected }
    }

    #[test]
    fn losses_are_those_of_the_closed_form() {
        let plain = DpoSpec { beta: 0.1, label_smoothing: 0.0 };
        let smoothed = DpoSpec { beta: 0.5, label_smoothing: 0.2 };
        for ([chosen, rejected, reference_chosen, reference_rejected], expected, expected_smoothed) in STORED {
            let (policy, reference) = (score(chosen, rejected), score(reference_chosen, reference_rejected));
            let close =
                |got: f64, want: f64| assert!((got - want).abs() <= 1e-12 * want.abs().max(1.0), "{got} {want}");
            close(PairLoss::of(&plain, policy, reference).loss, expected);
            close(PairLoss::of(&smoothed, policy, reference).loss, expected_smoothed);
        }
    }

    #[test]
    fn slopes_are_the_differences_of_losses() {
        let spec = DpoSpec { beta: 0.3, label_smoothing: 0.1 };
        for (policy, reference) in [
            (score(-10.0, -12.0), score(-11.0, -11.5)),
            (score(-3.0, -1.0), score(-2.0, -2.0)),
            (score(-5.0, -5.0), score(-5.0, -5.0)),
        ] {
            let loss = |chosen: f64, rejected: f64| {
                PairLoss::of(&spec, score(policy.chosen + chosen, policy.rejected + rejected), reference).loss
            };
            let slope = PairLoss::of(&spec, policy, reference).slope;
            let d = 1e-6;
            assert!((slope - (loss(d, 0.0) - loss(-d, 0.0)) / (2.0 * d)).abs() < 1e-8);
            assert!((-slope - (loss(0.0, d) - loss(0.0, -d)) / (2.0 * d)).abs() < 1e-8);
        }
    }

    #[test]
    fn far_pairs_are_finite() {
        let spec = DpoSpec { beta: 2.0, label_smoothing: 0.0 };
        let far = PairLoss::of(&spec, score(-5000.0, 0.0), score(0.0, 0.0));
        assert_eq!((far.loss, far.slope), (10_000.0, -2.0));
        let near = PairLoss::of(&spec, score(0.0, -5000.0), score(0.0, 0.0));
        assert_eq!((near.loss, near.slope), (0.0, 0.0));
    }

    #[test]
    fn figures_are_means_over_pairs() {
        let spec = DpoSpec { beta: 1.0, label_smoothing: 0.0 };
        let mut sum = PreferenceSum::default();
        assert_eq!(sum.figures(), None);
        for (policy, reference) in [
            (score(-1.0, -3.0), score(-2.0, -2.0)), // rewards 1 and -1
            (score(-3.0, -2.0), score(-2.0, -2.0)), // -1 and 0
            (score(-2.0, -2.0), score(-2.0, -2.0)), // a tie is no preference
            (score(-1.5, -2.0), score(-2.0, -2.0)), // 0.5 and 0
        ] {
            sum.add(&PairLoss::of(&spec, policy, reference));
        }
        let figures = PreferenceFigures {
            reward_accuracy: 0.5,
            reward_margin: 1.5 / 4.0,
            chosen_reward: 0.5 / 4.0,
            rejected_reward: -0.25,
        };
        assert_eq!(sum.figures(), Some(figures));
    }
}
