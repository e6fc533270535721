//! The output head: scores of the vocabulary.

use finetuned_torch::{Kind, Tensor};

use crate::error::ModelError;

#[derive(Debug)]
pub(crate) struct Head {
    /// `[vocab, hidden]`; the embedding itself where they are tied.
    pub weight: Tensor,
    /// Logits `l` become `cap * tanh(l / cap)`.
    pub soft_cap: Option<f64>,
}

impl Head {
    /// `[rows, vocab]` of hidden states, `[rows, hidden]`.
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor, ModelError> {
        let logits = hidden.f_linear(&self.weight, None::<&Tensor>)?;
        match self.soft_cap {
            None => Ok(logits),
            Some(cap) => Ok(logits.f_div_scalar(cap)?.f_tanh()?.f_mul_scalar(cap)?),
        }
    }

    /// Gradient by the products of hidden states and weight, in their type, where `by_logits` is the one by the `logits`;
    /// both are `[rows, vocab]`, f32.
    pub fn by_products(&self, mut by_logits: Tensor, logits: &Tensor) -> Result<Tensor, ModelError> {
        if let Some(cap) = self.soft_cap {
            // The slope of cap * tanh(x / cap) is 1 - tanh^2.
            let slope = logits.f_div_scalar(cap)?.f_square()?.f_neg()?.f_add_scalar(1.0)?;
            let _ = by_logits.f_mul_(&slope)?;
        }
        Ok(by_logits.f_to_kind(self.weight.f_kind()?)?)
    }

    /// Logits in f32.
    pub fn logits_f32(&self, hidden: &Tensor) -> Result<Tensor, ModelError> {
        Ok(self.logits(hidden)?.f_to_kind(Kind::Float)?)
    }
}
