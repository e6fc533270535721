//! Moments of AdamW in four, two or about one byte an element.

use finetuned_protocol::optimization::MomentType;
use finetuned_torch::{Kind, Tensor};

use super::{blocks::Blocks, rounding::to_bf16};
use crate::{error::ModelError, random::Key};

/// Tensors of fewer elements are not quantised: their moments weigh little, and bitsandbytes leaves them alone too.
const LEAST_QUANTISED: usize = 4096;

/// What a moment's elements can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sign {
    Any,
    Positive,
}

/// A running mean as it is kept between steps.
#[derive(Debug)]
pub(super) enum Moment {
    F32(Tensor),
    Bf16(Tensor),
    Blocks(Blocks),
}

impl Moment {
    /// Of the shape of `like`.
    pub fn zeros(like: &Tensor, kind: MomentType, sign: Sign) -> Result<Self, ModelError> {
        match kind {
            MomentType::Bf16 => Ok(Self::Bf16(like.f_zeros_like()?.f_to_kind(Kind::BFloat16)?)),
            MomentType::Blocks8Bit if like.numel() >= LEAST_QUANTISED => Ok(Self::Blocks(Blocks::zeros(like, sign)?)),
            MomentType::F32 | MomentType::Blocks8Bit => Ok(Self::F32(like.f_zeros_like()?)),
        }
    }

    /// In f32. Of a moment that is kept so, it is the moment itself: what is done to it in place is done to the moment.
    pub fn read(&self) -> Result<Tensor, ModelError> {
        match self {
            Self::F32(tensor) => Ok(tensor.shallow_clone()),
            Self::Bf16(tensor) => Ok(tensor.f_to_kind(Kind::Float)?),
            Self::Blocks(blocks) => blocks.read(),
        }
    }

    /// Keeps what [`Self::read`] gave and the step changed; `key` decides how bf16 rounds.
    pub fn write(&mut self, value: &Tensor, key: Key) -> Result<(), ModelError> {
        match self {
            Self::F32(_) => Ok(()),
            Self::Bf16(tensor) => Ok(tensor.f_copy_(&to_bf16(value, key)?)?),
            Self::Blocks(blocks) => blocks.write(value),
        }
    }

    pub fn state(&self, name: &str) -> Vec<(String, &Tensor)> {
        match self {
            Self::F32(tensor) | Self::Bf16(tensor) => vec![(name.to_owned(), tensor)],
            Self::Blocks(blocks) => {
                vec![(name.to_owned(), blocks.codes()), (format!("{name}.absmax"), blocks.absmax())]
            }
        }
    }
}
