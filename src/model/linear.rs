//! A linear layer that an adapter may add to.

use finetuned_torch::Tensor;

use crate::{context::Run, dropout::dropout, error::ModelError};

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
    /// `x W^T + b`, plus `scaling * x A^T B^T` where the adapter has this module. `x` is `[tokens, in_features]`.
    pub fn forward(&self, x: &Tensor, run: &Run) -> Result<Tensor, ModelError> {
        let mut y = self.base(x)?; // [tokens, out_features]
        let Some((adapter, pair)) = run.adapter.and_then(|adapter| Some((adapter, adapter.pair(self.index)?))) else {
            return Ok(y);
        };
        let kind = x.f_kind()?;
        let dropped = match run.dropout {
            Some(keys) => Some(dropout(x, adapter.spec().dropout, &pair.path, keys)?),
            None => None,
        };
        let (input, scale) = dropped.as_ref().map_or((x, 1.0), |dropped| (&dropped.x, dropped.scale));
        let a = pair.a.f_to_kind(kind)?;
        let b = pair.b.f_to_kind(kind)?;
        let low = input.f_linear(&a, None::<&Tensor>)?.f_mul_scalar(adapter.scaling() * scale)?; // [tokens, r]
        // Added in place: nothing else needs the base's own output.
        Ok(y.f_addmm_(&low, &b.f_tr()?)?)
    }

    /// `x W^T + b`
    fn base(&self, x: &Tensor) -> Result<Tensor, ModelError> {
        let bias = self.bias.as_ref();
        Ok(if self.transposed { x.f_linear(&self.weight.f_tr()?, bias)? } else { x.f_linear(&self.weight, bias)? })
    }
}
