//! A linear layer that an adapter may change.

use finetuned_torch::Tensor;

use crate::{adapter::Adapter, context::Run, error::ModelError, weight::Weight};

#[derive(Debug)]
pub(crate) struct Linear {
    /// Place in the model's list of linear modules, by which an adapter is looked up.
    pub index: usize,
    pub weight: Weight,
    /// `[out_features]`
    pub bias: Option<Tensor>,
}

impl Linear {
    /// `x W^T + b` as the run's adapter changes it. `x` is `[tokens, in_features]`.
    pub fn forward(&self, x: &Tensor, run: &Run) -> Result<Tensor, ModelError> {
        if let Some(mixed) = run.mixed {
            return mixed.linear(self, x);
        }
        match run.adapter {
            Some(Adapter::Lora(lora)) => lora.apply(self, x, run.dropout),
            Some(Adapter::Ia3(ia3)) => ia3.apply(self, x),
            Some(Adapter::PromptTuning(_) | Adapter::PrefixTuning(_)) | None => self.plain(x),
        }
    }

    /// `x W^T + b`, `[tokens, out_features]`.
    pub fn plain(&self, x: &Tensor) -> Result<Tensor, ModelError> {
        self.weight.linear(x, self.bias.as_ref())
    }
}
