//! Rows through the model: one pass of a micro-batch.

use finetuned_dataset::Encoded;
use finetuned_model::{Adapter, CausalLm, Documents, DropoutKeys, ForwardContext, LossParts, Targets, weighted_loss};
use finetuned_protocol::spec::TrainingSpec;

use crate::error::EngineError;

/// Sum of the loss over the supervised tokens of some rows, with what belongs to it. `weights` are as many as tokens.
///
/// # Errors
/// The model's.
pub fn pass(
    model: &CausalLm,
    adapter: Option<&Adapter>,
    rows: &[&Encoded],
    weights: Option<&[f32]>,
    context: &ForwardContext,
) -> Result<LossParts, EngineError> {
    let ids: Vec<&[u32]> = rows.iter().map(|row| row.ids.as_slice()).collect();
    let labels: Vec<i64> = rows.iter().flat_map(|row| row.labels.iter().copied()).collect();
    let documents = Documents::pack(&ids, model.device())?;
    Ok(weighted_loss(model, &documents, Targets { labels: &labels, weights }, adapter, context)?)
}

/// What the loss of each token of some rows is multiplied by; `None` where that is 1 for all.
pub fn weights_of(rows: &[&Encoded]) -> Option<Vec<f32>> {
    rows.iter()
        .any(|row| row.weights.is_some())
        .then(|| rows.iter().flat_map(|row| row.weights.clone().unwrap_or_else(|| vec![1.0; row.ids.len()])).collect())
}

/// What sets a training pass apart from an evaluation.
#[derive(Debug, Clone, Copy)]
pub struct TrainingPass {
    seed: u32,
    neftune_noise_alpha: f64,
    label_smoothing: f64,
}

impl TrainingPass {
    pub fn new(spec: &TrainingSpec) -> Self {
        let &TrainingSpec { seed, neftune_noise_alpha, label_smoothing, .. } = spec;
        Self { seed, neftune_noise_alpha, label_smoothing }
    }

    /// For some rows in an epoch.
    pub fn context(self, epoch: u32, rows: &[&Encoded]) -> ForwardContext {
        let Self { seed, neftune_noise_alpha, label_smoothing } = self;
        // Pieces of one document draw apart from each other.
        let lines = rows.iter().map(|row| row.line | (u64::from(row.piece) << 40)).collect();
        ForwardContext { dropout: Some(DropoutKeys { seed, epoch, lines }), neftune_noise_alpha, label_smoothing }
    }
}
