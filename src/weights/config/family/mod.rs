//! The families whose mathematics is implemented, each with what its configs say beyond the sizes.

mod gemma2;
mod gemma3;
mod gpt2;
mod gpt_neox;
mod llama;
mod mistral;
mod mixtral;
mod olmo2;
mod phi3;
mod qwen2;
mod qwen3;
mod smollm3;

use super::{ModelConfig, common::CommonConfig, fields::Fields, layout::Layout};
use crate::error::WeightsError;

pub use gemma2::Gemma2;
pub use gemma3::Gemma3;
pub use gpt_neox::GptNeoX;
pub use gpt2::Gpt2;
pub use llama::Llama;
pub use mistral::Mistral;
pub use mixtral::Mixtral;
pub use olmo2::Olmo2;
pub use phi3::Phi3;
pub use qwen2::Qwen2;
pub use qwen3::Qwen3;
pub use smollm3::SmolLm3;

/// A family of models that share their mathematics.
#[derive(Debug, Clone, PartialEq)]
pub enum Family {
    /// Llama and everything that calls itself so (SmolLM2, TinyLlama, Llama 3).
    Llama(Llama),
    Mistral(Mistral),
    Qwen2(Qwen2),
    Qwen3(Qwen3),
    Gemma2(Gemma2),
    Gemma3(Gemma3),
    Phi3(Phi3),
    Olmo2(Olmo2),
    SmolLm3(SmolLm3),
    Gpt2(Gpt2),
    GptNeoX(GptNeoX),
    Mixtral(Mixtral),
}

type Read = fn(&Fields<'_>) -> Result<ModelConfig, WeightsError>;

/// Each `model_type` with what reads its config.
const READERS: &[(&str, Read)] = &[
    ("llama", llama::read),
    ("mistral", mistral::read),
    ("qwen2", qwen2::read),
    ("qwen3", qwen3::read),
    ("gemma2", gemma2::read),
    ("gemma3_text", gemma3::read),
    ("gemma3", gemma3::read_beside_vision),
    ("phi3", phi3::read),
    ("olmo2", olmo2::read),
    ("smollm3", smollm3::read),
    ("gpt2", gpt2::read),
    ("gpt_neox", gpt_neox::read),
    ("mixtral", mixtral::read),
];

impl Family {
    /// Reads the whole config of whichever family it is.
    pub(super) fn read(fields: &Fields<'_>) -> Result<ModelConfig, WeightsError> {
        let model_type = fields.text("model_type")?;
        let Some((_, read)) = READERS.iter().find(|(known, _)| *known == model_type) else {
            let known: Vec<_> = READERS.iter().map(|(known, _)| *known).collect();
            return Err(WeightsError::unsupported("model architecture", model_type, known.join(", ")));
        };
        let config = read(fields)?;
        fields.refuse_unread(&model_type)?;
        Ok(config)
    }

    /// Its `model_type` in `config.json`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Llama(_) => "llama",
            Self::Mistral(_) => "mistral",
            Self::Qwen2(_) => "qwen2",
            Self::Qwen3(_) => "qwen3",
            Self::Gemma2(_) => "gemma2",
            Self::Gemma3(_) => "gemma3_text",
            Self::Phi3(_) => "phi3",
            Self::Olmo2(_) => "olmo2",
            Self::SmolLm3(_) => "smollm3",
            Self::Gpt2(_) => "gpt2",
            Self::GptNeoX(_) => "gpt_neox",
            Self::Mixtral(_) => "mixtral",
        }
    }

    /// Its tensors and its adaptable linear layers.
    pub(super) fn layout(&self, common: &CommonConfig) -> Layout {
        match self {
            Self::Llama(family) => family.layout(common),
            Self::Mistral(family) => family.layout(common),
            Self::Qwen2(family) => family.layout(common),
            Self::Qwen3(family) => family.layout(common),
            Self::Gemma2(family) => family.layout(common),
            Self::Gemma3(family) => family.layout(common),
            Self::Phi3(family) => family.layout(common),
            Self::Olmo2(family) => family.layout(common),
            Self::SmolLm3(family) => family.layout(common),
            Self::Gpt2(family) => family.layout(common),
            Self::GptNeoX(family) => family.layout(common),
            Self::Mixtral(family) => family.layout(common),
        }
    }
}
