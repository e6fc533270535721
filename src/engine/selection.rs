//! Which weights come out in the end: the last step's, the best evaluation's (early stopping), or the mean of the last
//! checkpoints' (weight averaging).

use finetuned_protocol::{
    evaluation::{ExportedWeights, Likelihood, Scores},
    optimization::{EarlyStoppingSpec, HeldOutMetric},
    spec::TrainingSpec,
};
use finetuned_torch::{Device, Kind, Tensor};
use serde::{Deserialize, Serialize};

use crate::{
    error::EngineError,
    setup::Setup,
    tensors::{Named, overwrite},
};

/// How far the choice is. With `Best` and `Mean`, the setup keeps tensors beside it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Selection {
    #[default]
    Last,
    /// Those of the best evaluation are kept.
    Best(BestSoFar),
    /// Their sum over these steps is kept.
    Mean { steps: Vec<u32> },
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct BestSoFar {
    /// `None` before the first evaluation after a step.
    best: Option<MetricAtStep>,
    /// In a row, up to now.
    evaluations_without_improvement: u32,
    /// The step whose evaluation ended the patience.
    stopped_at_step: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct MetricAtStep {
    step: u32,
    #[serde(with = "exact")]
    value: f64,
}

impl Selection {
    pub fn new(spec: &TrainingSpec) -> Self {
        match (&spec.early_stopping, &spec.weight_averaging) {
            (Some(_), _) => Self::Best(BestSoFar::default()),
            (None, Some(_)) => Self::Mean { steps: Vec::new() },
            (None, None) => Self::Last,
        }
    }

    /// Whether training ends before its time.
    pub fn is_stopped(&self) -> bool {
        matches!(self, Self::Best(best) if best.stopped_at_step.is_some())
    }
}

impl BestSoFar {
    /// Takes up an evaluation as transformers' `EarlyStoppingCallback` and `load_best_model_at_end` do: patience is only
    /// renewed by an improvement above `min_delta`, the best is the best by however little. Whether it is the best up to now.
    fn note(&mut self, rule: &EarlyStoppingSpec, now: MetricAtStep) -> bool {
        let improvement = self.best.map_or(f64::INFINITY, |best| match rule.metric.lower_is_better() {
            true => best.value - now.value,
            false => now.value - best.value,
        });
        if improvement > rule.min_delta {
            self.evaluations_without_improvement = 0;
        } else {
            self.evaluations_without_improvement += 1;
        }
        if self.evaluations_without_improvement >= rule.patience {
            self.stopped_at_step = Some(now.step);
        }
        let is_best = improvement > 0.0;
        if is_best {
            self.best = Some(now);
        }
        is_best
    }
}

/// Numbers as text: a JSON number read back may differ in its last digit, and then as good as before would look better.
mod exact {
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// `None` where the answers have no such figure, as JSON's validity where no reference is JSON.
fn value_of(metric: HeldOutMetric, (likelihood, scores): (&Likelihood, &Scores)) -> Option<f64> {
    match metric {
        HeldOutMetric::ValidLoss => Some(likelihood.loss),
        HeldOutMetric::ValidMeanTokenAccuracy => Some(likelihood.token_accuracy),
        HeldOutMetric::Text(metric) => scores.get(&metric).copied(),
    }
}

/// Hears of the evaluation after the last step; the base model's, before the first step, does not count.
///
/// # Errors
/// Too little memory to keep the best weights.
pub fn note_evaluation(
    setup: &mut Setup,
    spec: &TrainingSpec,
    figures: (&Likelihood, &Scores),
) -> Result<(), EngineError> {
    let step = setup.state.step;
    let (Selection::Best(best), Some(rule)) = (&mut setup.state.selection, &spec.early_stopping) else { return Ok(()) };
    let missing = || EngineError::Internal(format!("the answers during training have no {}", rule.metric));
    let value = value_of(rule.metric, figures).ok_or_else(missing)?;
    if step > 0 && best.note(rule, MetricAtStep { step, value }) {
        setup.kept = Some(host_copies(&setup.trainer.weights())?);
    }
    Ok(())
}

/// Takes the weights after the last step into the mean, where they belong to it and are not in it yet.
///
/// # Errors
/// Too little memory.
pub fn note_checkpoint(setup: &mut Setup, spec: &TrainingSpec) -> Result<(), EngineError> {
    let step = setup.state.step;
    let (Selection::Mean { steps }, Some(rule)) = (&mut setup.state.selection, spec.weight_averaging) else {
        return Ok(());
    };
    if steps.contains(&step) || !rule.steps(spec.checkpoint_every, spec.total_steps).contains(&step) {
        return Ok(());
    }
    steps.push(step);
    let weights = setup.trainer.weights();
    match &mut setup.kept {
        None => setup.kept = Some(host_copies(&weights)?),
        Some(sum) => add(sum, &weights)?,
    }
    Ok(())
}

/// Puts the chosen weights into what is trained, and says which they are.
///
/// # Errors
/// Too little memory, or nothing to choose from, which the code should not allow.
pub fn settle(setup: &Setup, spec: &TrainingSpec) -> Result<ExportedWeights, EngineError> {
    let internal = |message: &str| EngineError::Internal(message.to_owned());
    let (weights, tensors) = match (&setup.state.selection, &setup.kept) {
        (Selection::Last, _) => return Ok(ExportedWeights::Last { step: setup.state.step }),
        (Selection::Best(BestSoFar { best: Some(best), stopped_at_step, .. }), Some(kept)) => {
            let metric = spec.early_stopping.map(|rule| rule.metric).ok_or_else(|| internal("nothing stops early"))?;
            let &MetricAtStep { step, value } = best;
            let stopped_at_step = stopped_at_step.filter(|&at| at < spec.total_steps);
            (ExportedWeights::Best { step, metric, value, stopped_at_step }, scaled(kept, 1)?)
        }
        (Selection::Mean { steps }, Some(sum)) => {
            (ExportedWeights::Mean { steps: steps.clone() }, scaled(sum, steps.len())?)
        }
        _ => return Err(internal("no weights were kept to choose from")),
    };
    overwrite(&setup.trainer.weights(), &tensors).map_err(EngineError::Internal)?;
    Ok(weights)
}

fn host_copies(tensors: &[Named]) -> Result<Vec<Named>, EngineError> {
    let _detached = tch::no_grad_guard();
    let copy = |(name, tensor): &Named| {
        let mut copy = Tensor::f_empty(tensor.size(), (Kind::Float, Device::Cpu))?;
        copy.f_copy_(tensor)?;
        Ok((name.clone(), copy))
    };
    tensors.iter().map(copy).collect()
}

fn add(sum: &mut [Named], tensors: &[Named]) -> Result<(), EngineError> {
    let _detached = tch::no_grad_guard();
    for (name, sum) in sum {
        let (_, tensor) = tensors
            .iter()
            .find(|(other, _)| other == name)
            .ok_or_else(|| EngineError::Internal(format!("{name} is trained no more")))?;
        let _ = sum.f_add_(&tensor.f_to_device(Device::Cpu)?)?;
    }
    Ok(())
}

/// Each tensor divided by `count`.
fn scaled(tensors: &[Named], count: usize) -> Result<Vec<Named>, EngineError> {
    let divided = |(name, tensor): &Named| Ok((name.clone(), tensor.f_div_scalar(count as f64)?));
    tensors.iter().map(divided).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noted(metric: HeldOutMetric, patience: u32, min_delta: f64, values: &[f64]) -> (Option<u32>, u32, Option<u32>) {
        let rule = EarlyStoppingSpec { metric, patience, min_delta };
        let mut best = BestSoFar::default();
        for (&value, step) in values.iter().zip(1..) {
            best.note(&rule, MetricAtStep { step, value });
            if best.stopped_at_step.is_some() {
                break;
            }
        }
        (best.best.map(|best| best.step), best.evaluations_without_improvement, best.stopped_at_step)
    }

    #[test]
    fn patience_counts_evaluations_without_an_improvement() {
        let loss = |patience, values: &[f64]| noted(HeldOutMetric::ValidLoss, patience, 0.0, values);
        assert_eq!(loss(2, &[3.0, 2.0, 2.5, 2.1, 1.0]), (Some(2), 2, Some(4)));
        assert_eq!(loss(3, &[3.0, 2.0, 2.5, 2.1, 1.0]), (Some(5), 0, None));
        // As good as before is no improvement.
        assert_eq!(loss(1, &[3.0, 3.0]), (Some(1), 1, Some(2)));
        assert_eq!(loss(2, &[]), (None, 0, None));
    }

    #[test]
    fn small_improvements_are_kept_but_do_not_renew_the_patience() {
        assert_eq!(noted(HeldOutMetric::ValidLoss, 2, 0.5, &[3.0, 2.9, 2.8, 1.0]), (Some(3), 2, Some(3)));
        assert_eq!(noted(HeldOutMetric::ValidLoss, 2, 0.5, &[3.0, 2.9, 2.0, 1.0]), (Some(4), 0, None));
    }

    #[test]
    fn the_best_value_comes_back_to_the_bit() {
        for bits in (0..1000_u64).map(|i| 0x3fe0_0000_0000_0000 + i * 0x0000_1234_5678_9abd) {
            let best = Some(MetricAtStep { step: 3, value: f64::from_bits(bits) });
            let state = Selection::Best(BestSoFar { best, ..BestSoFar::default() });
            let text = serde_json::to_string(&state).unwrap_or_default();
            assert_eq!(serde_json::from_str::<Selection>(&text).ok(), Some(state), "{text}");
        }
    }

    #[test]
    fn accuracy_is_better_where_it_is_higher() {
        let accuracy = |values: &[f64]| noted(HeldOutMetric::ValidMeanTokenAccuracy, 2, 0.0, values);
        assert_eq!(accuracy(&[0.1, 0.3, 0.2, 0.25]), (Some(2), 2, Some(4)));
    }
}
