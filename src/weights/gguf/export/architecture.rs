//! What llama.cpp calls the parts of a model, and how it wants them.

use super::file::Header;
use crate::{
    CommonConfig, Family, ModelConfig, RopeConfig, RopeScaling,
    config::yarn_attention_factor,
    error::WeightsError,
    gguf::{names, rope_factors},
};

const SUPPORTED: &str = "llama, mistral without a window, qwen2, qwen3";

/// A model whose mathematics llama.cpp has.
pub(super) struct Architecture<'a> {
    /// Its name there, which begins its keys.
    pub name: &'static str,
    config: &'a ModelConfig,
    rope: &'a RopeConfig,
    /// Whether the rows of queries and keys are those of interleaved pairs.
    permuted: bool,
}

impl<'a> Architecture<'a> {
    /// # Errors
    /// A family or a setting that llama.cpp would compute otherwise, by name.
    pub fn of(config: &'a ModelConfig) -> Result<Self, WeightsError> {
        let refuse = |what: String| Err(WeightsError::unsupported("GGUF export of", what, SUPPORTED));
        let family = config.family.name();
        let windowed = |windows: &[Option<u32>]| {
            windows.iter().flatten().any(|window| *window < config.common.max_position_embeddings)
        };
        let (name, rope, permuted) = match &config.family {
            Family::Llama(llama) => ("llama", &llama.rope, true),
            Family::Mistral(mistral) if !windowed(&[mistral.window]) => ("llama", &mistral.rope, true),
            Family::Qwen2(qwen) if !windowed(&qwen.windows) => ("qwen2", &qwen.rope, false),
            Family::Qwen3(qwen) if !windowed(&qwen.windows) && !qwen.attention_bias => ("qwen3", &qwen.rope, false),
            Family::Qwen3(qwen) if qwen.attention_bias => return refuse(format!("`{family}` with `attention_bias`")),
            Family::Mistral(_) | Family::Qwen2(_) | Family::Qwen3(_) => {
                return refuse(format!("`{family}` with a sliding window"));
            }
            _ => return refuse(format!("`{family}`")),
        };
        match &rope.scaling {
            RopeScaling::LongRope { .. } => return refuse("rotary scaling `longrope`".to_owned()),
            RopeScaling::Yarn { truncate: false, .. } => {
                return refuse("rotary scaling `yarn` without `truncate`".to_owned());
            }
            _ => {}
        }
        Ok(Self { name, config, rope, permuted })
    }

    /// Sizes and settings.
    pub fn describe(&self, header: &mut Header) {
        let common: &CommonConfig = &self.config.common;
        let key = |name: &str| format!("{}.{name}", self.name);
        for (name, value) in [
            ("block_count", common.num_hidden_layers),
            ("context_length", common.max_position_embeddings),
            ("embedding_length", common.hidden_size),
            ("feed_forward_length", common.intermediate_size),
            ("attention.head_count", common.num_attention_heads),
            ("attention.head_count_kv", common.num_key_value_heads),
            ("attention.key_length", common.head_dim),
            ("attention.value_length", common.head_dim),
            ("rope.dimension_count", common.head_dim),
            ("vocab_size", common.vocab_size),
        ] {
            header.u32(&key(name), value);
        }
        header.f32(&key("attention.layer_norm_rms_epsilon"), common.norm_epsilon as f32);
        header.f32(&key("rope.freq_base"), self.rope.theta as f32);
        match &self.rope.scaling {
            RopeScaling::Linear { factor } => {
                header.text(&key("rope.scaling.type"), "linear");
                header.f32(&key("rope.scaling.factor"), *factor as f32);
            }
            RopeScaling::Yarn {
                factor,
                beta_fast,
                beta_slow,
                original_max_position_embeddings,
                attention_factor,
                ..
            } => {
                header.text(&key("rope.scaling.type"), "yarn");
                header.f32(&key("rope.scaling.factor"), *factor as f32);
                header.u32(&key("rope.scaling.original_context_length"), *original_max_position_embeddings);
                header.f32(&key("rope.scaling.yarn_beta_fast"), *beta_fast as f32);
                header.f32(&key("rope.scaling.yarn_beta_slow"), *beta_slow as f32);
                // It multiplies the factor that llama.cpp computes itself.
                let extra = attention_factor / yarn_attention_factor(*factor, 1.0);
                header.f32(&key("rope.scaling.attn_factor"), extra as f32);
            }
            RopeScaling::Default | RopeScaling::Llama3 { .. } | RopeScaling::LongRope { .. } => {}
        }
    }

    /// Llama 3's scaling, one divisor a frequency.
    pub fn rope_divisors(&self) -> Option<Vec<f32>> {
        rope_factors::of(self.rope)
    }

    /// # Errors
    /// A tensor that has no name there.
    pub fn tensor_name(&self, name: &str) -> Result<String, WeightsError> {
        names::from_hugging_face(name)
            .ok_or_else(|| WeightsError::unsupported("GGUF export of the tensor", name, "those of a dense decoder"))
    }

    /// Puts the rows of a tensor, or those of an adapter's B beside it, into the order wanted there.
    pub fn arrange(&self, name: &str, values: &mut Vec<f32>) {
        if let Some(heads) = names::rotary_heads(name, self.config).filter(|_| self.permuted) {
            *values = names::permute(values, heads, self.config.common.head_dim as usize);
        }
    }
}
