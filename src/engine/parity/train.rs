//! Eight training steps, as the reference took them.

use finetuned_model::{Adapter, Optimizer, clip_gradients, gradient_norm};
use finetuned_protocol::optimization::{OptimizerSpec, ScheduleShape, ScheduleSpec};
use finetuned_torch::Tensor;

use super::{
    case::Case,
    check::{Check, tolerance},
};
use crate::schedule::learning_rate;

/// Loss and gradient norm before clipping of a step.
pub type StepFigures = [f64; 2];

/// All weights, or an adapter's.
pub enum Trained<'a> {
    Full,
    Adapter(&'a Adapter),
}

impl Trained<'_> {
    fn adapter(&self) -> Option<&Adapter> {
        match self {
            Self::Full => None,
            Self::Adapter(adapter) => Some(adapter),
        }
    }

    fn peak(&self) -> f64 {
        match self {
            Self::Full => 1e-3,
            Self::Adapter(_) => 5e-3,
        }
    }
}

/// AdamW with weight decay on every trained tensor, clipping at 1, half a cosine without warm-up, one batch a step.
///
/// # Errors
/// Batches that are missing, or the model's.
pub fn train(case: &Case, trained: &Trained<'_>) -> anyhow::Result<Vec<StepFigures>> {
    let named = || match trained {
        Trained::Full => case.model.parameters(),
        Trained::Adapter(adapter) => adapter.named_parameters(),
    };
    let parameters: Vec<(String, Tensor)> = named();
    let peak = trained.peak();
    let spec = OptimizerSpec::adamw(peak, 0.01, [0.9, 0.95], 1e-8, 1.0);
    let schedule = ScheduleSpec { shape: ScheduleShape::Cosine, warmup_ratio: 0.0, warmup_steps: 0 };
    let steps = expected(case, trained).len();
    let mut optimizer = Optimizer::new(named(), &spec, 0)?;
    let mut figures = Vec::with_capacity(steps);
    for step in 0..steps {
        let loss = case.loss(&case.train_batch(step)?, trained.adapter())?;
        optimizer.zero_grad();
        loss.f_backward()?;
        let norm = gradient_norm(&parameters)?;
        clip_gradients(&parameters, norm, spec.max_grad_norm)?;
        optimizer.step(learning_rate(&schedule, peak, step as u32, steps as u32))?;
        figures.push([loss.f_double_value(&[])?, norm]);
    }
    Ok(figures)
}

/// The steps' losses and norms against the reference's.
pub fn compare(case: &Case, trained: &Trained<'_>, found: &[StepFigures]) -> [Check; 2] {
    let pairs = || found.iter().zip(expected(case, trained));
    let largest = |differences: &mut dyn Iterator<Item = f64>| differences.fold(0.0, worse);
    let loss = largest(&mut pairs().map(|(found, expected)| (found[0] - expected[0]).abs()));
    let absolute = largest(&mut pairs().map(|(found, expected)| (found[1] - expected[1]).abs()));
    let relative = largest(&mut pairs().map(|(found, expected)| ((found[1] - expected[1]) / expected[1]).abs()));
    match trained {
        Trained::Full => {
            let allowed = match case.model.facts().architecture.as_str() {
                "mixtral" => tolerance::FULL_NORM_OF_EXPERTS,
                _ => tolerance::FULL_NORM,
            };
            [
                Check::new("full training: loss", loss, tolerance::LOSS),
                Check::new("full training: norm (relative)", relative, allowed),
            ]
        }
        Trained::Adapter(_) => [
            Check::new("adapter training: loss", loss, tolerance::LOSS),
            Check::new("adapter training: norm", absolute, tolerance::ADAPTER_NORM),
        ],
    }
}

fn expected<'a>(case: &'a Case, trained: &Trained<'_>) -> &'a [StepFigures] {
    match trained {
        Trained::Full => &case.figures.full_train_loss_gradnorm,
        Trained::Adapter(_) => &case.figures.lora_train_loss_gradnorm,
    }
}

/// The larger one; what is not a number stays.
pub fn worse(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) }
}
