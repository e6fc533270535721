//! What training changes: an adapter beside the frozen model, or weights of the model itself.

use std::{ops::ControlFlow, path::Path};

use finetuned_protocol::tuning::{FullSpec, TuningSpec, layer_of};
use finetuned_torch::Tensor;

use crate::{adapter::Adapter, causal_lm::CausalLm, error::ModelError};

/// What training changes, f32.
#[derive(Debug)]
pub enum Trainable {
    Adapter(Adapter),
    /// Weights of the model, by their names in its checkpoints; tied ones once.
    Weights(Vec<(String, Tensor)>),
}

impl Trainable {
    /// What training starts from. Weights that are trained themselves change `model` in place. `progress` hears (modules
    /// done, modules in all) and can stop.
    ///
    /// # Errors
    /// Settings that this model cannot meet, or [`ModelError::Stopped`].
    pub fn new(
        model: &CausalLm,
        spec: &TuningSpec,
        seed: u64,
        progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
    ) -> Result<Self, ModelError> {
        match spec {
            TuningSpec::Adapter(spec) => Ok(Self::Adapter(Adapter::new_with_progress(model, spec, seed, progress)?)),
            TuningSpec::Full { full } => Ok(Self::Weights(trained_weights(model, *full)?)),
        }
    }

    /// As [`Self::new`], from an adapter that was exported to `folder` with the same settings.
    ///
    /// # Errors
    /// Files that cannot be read, tensors that do not fit, or settings that are no adapter's.
    pub fn continued(model: &CausalLm, spec: &TuningSpec, folder: &Path) -> Result<Self, ModelError> {
        match spec {
            TuningSpec::Adapter(spec) => Ok(Self::Adapter(Adapter::load_as(model, spec, folder)?)),
            TuningSpec::Full { .. } => {
                let reason = "names a model; only adapters can be gone on from".to_owned();
                Err(ModelError::Setting { field: "continue_from", reason })
            }
        }
    }

    /// The adapter to compute with; none where the model itself is trained.
    pub fn adapter(&self) -> Option<&Adapter> {
        match self {
            Self::Adapter(adapter) => Some(adapter),
            Self::Weights(_) => None,
        }
    }

    /// Every trained tensor by its name in the exported files.
    pub fn named_parameters(&self) -> Vec<(String, Tensor)> {
        match self {
            Self::Adapter(adapter) => adapter.named_parameters(),
            Self::Weights(weights) => {
                weights.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect()
            }
        }
    }

    /// All that a checkpoint must hold to go on: what is trained, and what that is nothing without.
    pub fn named_state(&self) -> Vec<(String, Tensor)> {
        let constants = self.adapter().map(Adapter::named_constants).unwrap_or_default();
        self.named_parameters().into_iter().chain(constants).collect()
    }

    /// Numbers that training changes.
    pub fn trainable_parameters(&self) -> u64 {
        self.named_parameters().iter().map(|(_, tensor)| tensor.numel() as u64).sum()
    }

    /// The learning rate of the parameter `name` over that of the rest.
    pub fn learning_rate_ratio(&self, name: &str) -> f64 {
        self.adapter().map_or(1.0, |adapter| adapter.learning_rate_ratio(name))
    }
}

/// Lets gradients be made of the weights that are asked for, and of no others.
fn trained_weights(model: &CausalLm, spec: FullSpec) -> Result<Vec<(String, Tensor)>, ModelError> {
    if model.shares_names() {
        let reason =
            "is not supported for the language model of a larger one, whose other weights would be missing from \
                      the export"
                .to_owned();
        return Err(ModelError::Setting { field: "full", reason });
    }
    if model.has_frozen_matrices() {
        let reason = "must be `f32` where the model's own weights are trained".to_owned();
        return Err(ModelError::Setting { field: "base_precision", reason });
    }
    let layers = model.facts().layers;
    let first = match spec.last_layers {
        None => None,
        Some(count) if (1..=layers).contains(&count) => Some(layers - count),
        Some(count) => {
            let reason = format!("must be between 1 and {layers}, the layers of this model; it is {count}");
            return Err(ModelError::Setting { field: "full.last_layers", reason });
        }
    };
    let mut weights = Vec::new();
    for (name, tensor) in model.parameters() {
        let trains = first.is_none_or(|first| layer_of(&name).is_some_and(|layer| layer >= first));
        let tensor = tensor.f_set_requires_grad(trains)?;
        if trains {
            weights.push((name, tensor));
        }
    }
    Ok(weights)
}
