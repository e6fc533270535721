//! The one typed view of a model's config, from either spelling of `config.json` or from GGUF metadata.
//!
//! A new architecture is a variant of [`Architecture`], a file beside `llama.rs` that reads its fields, an arm of
//! [`ModelConfig::tensors`], and the same pair under `gguf`.

mod fields;
mod llama;
mod rope;
mod tensors;

use serde_json::{Map, Value};

use crate::{error::WeightsError, tensor::HostDtype};

pub(crate) use rope::yarn_attention_factor;
pub use rope::{RopeConfig, RopeScaling};
pub use tensors::TensorSpec;

/// Families whose mathematics is implemented.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Architecture {
    /// Llama and everything that calls itself so (SmolLM2, TinyLlama, Llama 3).
    Llama,
}

impl Architecture {
    pub const ALL: &'static [Self] = &[Self::Llama];

    /// `model_type` in `config.json`, `general.architecture` in GGUF.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Llama => "llama",
        }
    }

    /// The architecture of that name.
    ///
    /// # Errors
    /// A name that no variant has.
    pub(crate) fn parse(name: &str) -> Result<Self, WeightsError> {
        let names: Vec<_> = Self::ALL.iter().map(|known| known.as_str()).collect();
        Self::ALL
            .iter()
            .copied()
            .find(|known| known.as_str() == name)
            .ok_or_else(|| WeightsError::unsupported("model architecture", name, names.join(", ")))
    }
}

/// What the mathematics of a model depends on. Names as in Hugging Face's configs.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    pub architecture: Architecture,
    pub vocab_size: u32,
    pub hidden_size: u32,
    pub intermediate_size: u32,
    pub num_hidden_layers: u32,
    pub num_attention_heads: u32,
    pub num_key_value_heads: u32,
    pub head_dim: u32,
    pub max_position_embeddings: u32,
    pub rms_norm_eps: f64,
    pub rope: RopeConfig,
    /// Whether q, k, v and o projections have biases.
    pub attention_bias: bool,
    /// Whether gate, up and down projections have biases.
    pub mlp_bias: bool,
    /// Whether the output head is the embedding matrix.
    pub tie_word_embeddings: bool,
    /// Type the weights were saved in, where the config says so.
    pub dtype: Option<HostDtype>,
    pub bos_token_id: Option<u32>,
    pub eos_token_ids: Vec<u32>,
    pub pad_token_id: Option<u32>,
}

/// Most layers a config may claim; a larger count is a mistake or an attack on memory.
const MOST_LAYERS: u32 = 4096;

impl ModelConfig {
    /// Reads a `config.json`, in its older (`rope_theta`, `rope_scaling`, `torch_dtype`) or newer (`rope_parameters`,
    /// `dtype`) spelling.
    ///
    /// # Errors
    /// Text that is no JSON object, an architecture or a setting that is not implemented, or sizes that do not fit.
    pub fn from_json(text: &str) -> Result<Self, WeightsError> {
        let map: Map<String, Value> = serde_json::from_str(text)
            .map_err(|error| WeightsError::config("config.json", format!("cannot be read: {error}")))?;
        let fields = fields::Fields::new("", &map);
        let config = match Architecture::parse(&fields.text("model_type")?)? {
            Architecture::Llama => llama::read(&fields)?,
        };
        config.check()?;
        Ok(config)
    }

    /// Refuses sizes that contradict each other.
    pub(crate) fn check(&self) -> Result<(), WeightsError> {
        for (field, value) in [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("num_key_value_heads", self.num_key_value_heads),
            ("head_dim", self.head_dim),
            ("max_position_embeddings", self.max_position_embeddings),
        ] {
            if value == 0 {
                return Err(WeightsError::config(field, "must be at least 1; it is 0"));
            }
        }
        if self.num_hidden_layers > MOST_LAYERS {
            let reason = format!("must be at most {MOST_LAYERS}; it is {}", self.num_hidden_layers);
            return Err(WeightsError::config("num_hidden_layers", reason));
        }
        if !self.num_attention_heads.is_multiple_of(self.num_key_value_heads) {
            let reason = format!(
                "must divide num_attention_heads ({}); it is {}",
                self.num_attention_heads, self.num_key_value_heads
            );
            return Err(WeightsError::config("num_key_value_heads", reason));
        }
        if !self.head_dim.is_multiple_of(2) {
            let reason = format!("must be even, for rotary embedding; it is {}", self.head_dim);
            return Err(WeightsError::config("head_dim", reason));
        }
        if !(self.rms_norm_eps >= 0.0 && self.rms_norm_eps.is_finite()) {
            let reason = format!("must be a number of at least 0; it is {}", self.rms_norm_eps);
            return Err(WeightsError::config("rms_norm_eps", reason));
        }
        self.rope.check()
    }
}

#[cfg(test)]
mod config_tests;
