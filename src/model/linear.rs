//! A linear layer that an adapter may change.

use finetuned_torch::Tensor;

use crate::{adapter::Adapter, context::Run, error::ModelError};

#[derive(Debug)]
pub(crate) struct Linear {
    /// Place in the model's list of linear modules, by which an adapter is looked up.
    pub index: usize,
    /// `[out_features, in_features]`, or the other way round where it is `transposed`.
    pub weight: Tensor,
    /// Whether the weight is stored as transformers' Conv1D has it.
    pub transposed: bool,
    /// `[out_features]`
    pub bias: Option<Tensor>,
}

impl Linear {
    /// `x W^T + b` as the run's adapter changes it. `x` is `[tokens, in_features]`.
    pub fn forward(&self, x: &Tensor, run: &Run) -> Result<Tensor, ModelError> {
        match run.adapter {
            Some(Adapter::Lora(lora)) => lora.apply(self, x, run.dropout),
            Some(Adapter::Ia3(ia3)) => ia3.apply(self, x),
            Some(Adapter::PromptTuning(_) | Adapter::PrefixTuning(_)) | None => self.plain(x),
        }
    }

    /// `x W^T + b`, `[tokens, out_features]`.
    pub fn plain(&self, x: &Tensor) -> Result<Tensor, ModelError> {
        Ok(x.f_linear(&self.matrix()?, self.bias.as_ref())?)
    }

    /// The weight as `[out_features, in_features]`, however it is stored; no copy.
    pub fn matrix(&self) -> Result<Tensor, ModelError> {
        Ok(if self.transposed { self.weight.f_tr()? } else { self.weight.shallow_clone() })
    }
}
