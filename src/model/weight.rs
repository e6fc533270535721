//! Matrices of a model, as they are stored and as they are computed with.

use std::rc::Rc;

use finetuned_torch::{FrozenFormat, FrozenMatrix, Kind, Tensor};

use crate::error::ModelError;

/// What a model is computed in, and how its frozen matrices are stored. A kind alone stands for itself, with the matrices
/// stored in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Precision {
    /// Activations, embeddings, norms and the output head.
    pub compute: Kind,
    /// Linear layers and experts, where they are stored otherwise. They cannot be trained themselves.
    pub frozen: Option<FrozenFormat>,
}

impl From<Kind> for Precision {
    fn from(compute: Kind) -> Self {
        Self { compute, frozen: None }
    }
}

/// A matrix.
#[derive(Debug)]
pub(crate) enum Weight {
    /// `[out_features, in_features]`.
    Plain(Tensor),
    /// `[in_features, out_features]`, as transformers' Conv1D has it.
    Transposed(Tensor),
    /// In few bits, whichever way round it was in its file.
    Frozen(Rc<FrozenMatrix>),
}

impl Weight {
    /// `x W^T + b`, `[tokens, out_features]`, of `x`, `[tokens, in_features]`.
    pub fn linear(&self, x: &Tensor, bias: Option<&Tensor>) -> Result<Tensor, ModelError> {
        Ok(match self {
            Self::Plain(weight) => x.f_linear(weight, bias)?,
            Self::Transposed(weight) => x.f_linear(&weight.f_tr()?, bias)?,
            Self::Frozen(frozen) => frozen.linear(x, bias)?,
        })
    }

    /// The matrix in f32, `[out_features, in_features]`; no copy where it is stored so.
    pub fn matrix_f32(&self) -> Result<Tensor, ModelError> {
        Ok(match self {
            Self::Plain(weight) => weight.f_to_kind(Kind::Float)?,
            Self::Transposed(weight) => weight.f_tr()?.f_to_kind(Kind::Float)?,
            Self::Frozen(frozen) => frozen.matrix(Kind::Float)?,
        })
    }
}
