//! What the configs of all families say, under other names here and there.

use serde_json::Value;

use super::{
    activation::{self, Activation},
    fields::Fields,
};
use crate::{error::WeightsError, tensor::HostDtype};

/// Sizes and ids that every family has. Names as in Hugging Face's configs.
#[derive(Debug, Clone, PartialEq)]
pub struct CommonConfig {
    pub vocab_size: u32,
    pub hidden_size: u32,
    pub intermediate_size: u32,
    pub num_hidden_layers: u32,
    pub num_attention_heads: u32,
    /// Heads of keys and values, each shared by a group of query heads.
    pub num_key_value_heads: u32,
    pub head_dim: u32,
    pub max_position_embeddings: u32,
    /// Added to the variance in every norm.
    pub norm_epsilon: f64,
    pub activation: Activation,
    /// Whether the output head is the embedding matrix.
    pub tie_word_embeddings: bool,
    /// Type the weights were saved in, where the config says so.
    pub dtype: Option<HostDtype>,
    pub bos_token_id: Option<u32>,
    pub eos_token_ids: Vec<u32>,
    pub pad_token_id: Option<u32>,
}

/// What transformers' config class of a family takes for absent fields; a size without a default must be there.
pub(super) struct Defaults {
    /// Class of `architectures`.
    pub class: &'static str,
    pub vocab_size: Option<u32>,
    pub num_attention_heads: Option<u32>,
    /// None: as many as there are query heads.
    pub num_key_value_heads: Option<u32>,
    /// None: the hidden size divided by the heads.
    pub head_dim: Option<u32>,
    pub max_position_embeddings: u32,
    pub rms_norm_eps: f64,
    pub tie_word_embeddings: bool,
}

impl Defaults {
    pub(super) const LLAMA: Self = Self {
        class: "LlamaForCausalLM",
        vocab_size: None,
        num_attention_heads: None,
        num_key_value_heads: None,
        head_dim: None,
        max_position_embeddings: 2048,
        rms_norm_eps: 1e-6,
        tie_word_embeddings: false,
    };
}

/// Most layers a config may claim; a larger count is a mistake or an attack on memory.
const MOST_LAYERS: u32 = 4096;

impl CommonConfig {
    /// Reads the fields of a family that uses Llama's names.
    pub(super) fn read(fields: &Fields<'_>, defaults: &Defaults) -> Result<Self, WeightsError> {
        check_class(fields, defaults.class)?;
        let hidden_size = fields.u32("hidden_size")?;
        let num_attention_heads = required_or(fields, "num_attention_heads", defaults.num_attention_heads)?;
        let num_key_value_heads = match (fields.maybe_u32("num_key_value_heads")?, defaults.num_key_value_heads) {
            (Some(given), _) => given,
            (None, Some(default)) if !fields.has("num_key_value_heads") => default,
            (None, _) => num_attention_heads,
        };
        let head_dim = match fields.maybe_u32("head_dim")?.or(defaults.head_dim) {
            Some(head_dim) => head_dim,
            None => even_share("hidden_size", hidden_size, num_attention_heads)?,
        };
        let common = Self {
            vocab_size: required_or(fields, "vocab_size", defaults.vocab_size)?,
            hidden_size,
            intermediate_size: fields.u32("intermediate_size")?,
            num_hidden_layers: fields.u32("num_hidden_layers")?,
            num_attention_heads,
            num_key_value_heads,
            head_dim,
            max_position_embeddings: fields.u32_or("max_position_embeddings", defaults.max_position_embeddings)?,
            norm_epsilon: fields.maybe_f64("rms_norm_eps")?.unwrap_or(defaults.rms_norm_eps),
            activation: activation::read(fields, &["hidden_act"], Activation::Silu)?,
            tie_word_embeddings: fields.bool_or("tie_word_embeddings", defaults.tie_word_embeddings)?,
            dtype: dtype(fields)?,
            bos_token_id: fields.maybe_u32("bos_token_id")?,
            eos_token_ids: fields.ids("eos_token_id")?,
            pad_token_id: pad_token_id(fields),
        };
        // Before anything is made for each layer.
        common.check()?;
        Ok(common)
    }

    /// Width of all query heads together.
    pub fn query_size(&self) -> u32 {
        self.num_attention_heads.saturating_mul(self.head_dim)
    }

    /// Width of all key heads together; values are as wide.
    pub fn key_value_size(&self) -> u32 {
        self.num_key_value_heads.saturating_mul(self.head_dim)
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
            let (heads, kv_heads) = (self.num_attention_heads, self.num_key_value_heads);
            let reason = format!("must divide num_attention_heads ({heads}); it is {kv_heads}");
            return Err(WeightsError::config("num_key_value_heads", reason));
        }
        if !(self.norm_epsilon >= 0.0 && self.norm_epsilon.is_finite()) {
            let reason = format!("must be a number of at least 0; it is {}", self.norm_epsilon);
            return Err(WeightsError::config("the norms' epsilon", reason));
        }
        Ok(())
    }
}

/// `architectures` names the class that is implemented, or nothing.
pub(super) fn check_class(fields: &Fields<'_>, class: &str) -> Result<(), WeightsError> {
    match fields.get("architectures") {
        Some(Value::Array(names)) if names.iter().any(|name| name == class) => Ok(()),
        Some(other) => Err(fields.not_implemented("architectures", other, class)),
        None => Ok(()),
    }
}

fn required_or(fields: &Fields<'_>, field: &str, default: Option<u32>) -> Result<u32, WeightsError> {
    match default {
        Some(default) => fields.u32_or(field, default),
        None => fields.u32(field),
    }
}

/// `hidden_size / heads`, which must be whole; `field` is what the hidden size is called.
pub(super) fn even_share(field: &str, hidden_size: u32, heads: u32) -> Result<u32, WeightsError> {
    if heads == 0 || !hidden_size.is_multiple_of(heads) {
        let reason = format!("must be divisible by the number of heads ({heads}); it is {hidden_size}");
        return Err(WeightsError::config(field, reason));
    }
    Ok(hidden_size / heads)
}

/// The newer `dtype` or the older `torch_dtype`; other types than ours say nothing about the files, which name their own.
pub(super) fn dtype(fields: &Fields<'_>) -> Result<Option<HostDtype>, WeightsError> {
    let (newer, older) = (fields.maybe_text("dtype")?, fields.maybe_text("torch_dtype")?);
    Ok(match newer.or(older).as_deref().map(|name| name.trim_start_matches("torch.")) {
        Some("float32") => Some(HostDtype::F32),
        Some("float16") => Some(HostDtype::F16),
        Some("bfloat16") => Some(HostDtype::Bf16),
        _ => None,
    })
}

/// Some configs write -1 for "none".
pub(super) fn pad_token_id(fields: &Fields<'_>) -> Option<u32> {
    fields.get("pad_token_id").and_then(Value::as_u64).and_then(|id| u32::try_from(id).ok())
}
