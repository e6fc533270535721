//! GPT-NeoX and Pythia. Defaults are those of transformers' `GPTNeoXConfig`.

use super::super::{
    ModelConfig,
    activation::{self, Activation},
    common::{self, CommonConfig, check_class, even_share},
    fields::Fields,
    layout::Layout,
    rope::{self, RopeConfig, RopeDefaults},
};
use super::Family;
use crate::error::WeightsError;

/// What a GPT-NeoX's config says beyond its sizes.
#[derive(Debug, Clone, PartialEq)]
pub struct GptNeoX {
    pub rope: RopeConfig,
    /// Whether attention and feed-forward layer read the same input and are added together.
    pub parallel_residual: bool,
    pub attention_bias: bool,
}

pub(super) fn read(fields: &Fields<'_>) -> Result<ModelConfig, WeightsError> {
    check_class(fields, "GPTNeoXForCausalLM")?;
    let hidden_size = fields.u32("hidden_size")?;
    let heads = fields.u32("num_attention_heads")?;
    let common = CommonConfig {
        vocab_size: fields.u32("vocab_size")?,
        hidden_size,
        intermediate_size: fields.u32("intermediate_size")?,
        num_hidden_layers: fields.u32("num_hidden_layers")?,
        num_attention_heads: heads,
        num_key_value_heads: heads,
        head_dim: even_share("hidden_size", hidden_size, heads)?,
        max_position_embeddings: fields.u32_or("max_position_embeddings", 2048)?,
        norm_epsilon: fields.maybe_f64("layer_norm_eps")?.unwrap_or(1e-5),
        activation: activation::read(fields, &["hidden_act"], Activation::Gelu)?,
        tie_word_embeddings: fields.bool_or("tie_word_embeddings", false)?,
        dtype: common::dtype(fields)?,
        bos_token_id: fields.maybe_u32("bos_token_id")?,
        eos_token_ids: fields.ids("eos_token_id")?,
        pad_token_id: common::pad_token_id(fields),
    };
    let defaults = RopeDefaults {
        theta: fields.maybe_f64("rotary_emb_base")?.unwrap_or(10_000.0),
        share: fields.maybe_f64("rotary_pct")?.unwrap_or(0.25),
        share_is_free: true,
        ..RopeDefaults::of(&common)
    };
    let family = Family::GptNeoX(GptNeoX {
        rope: rope::read(fields, &defaults)?,
        parallel_residual: fields.bool_or("use_parallel_residual", true)?,
        attention_bias: fields.bool_or("attention_bias", true)?,
    });
    Ok(ModelConfig { common, family })
}

impl GptNeoX {
    pub(super) fn layout(&self, common: &CommonConfig) -> Layout {
        let (hidden, inner) = (common.hidden_size, common.intermediate_size);
        let mut layout = Layout::default();
        layout.tensor("gpt_neox.embed_in.weight".to_owned(), &[common.vocab_size, hidden]);
        for index in 0..common.num_hidden_layers {
            let layer = format!("gpt_neox.layers.{index}");
            layout.layer_norm(&format!("{layer}.input_layernorm"), hidden);
            layout.layer_norm(&format!("{layer}.post_attention_layernorm"), hidden);
            let fused = hidden.saturating_mul(3);
            layout.linear(format!("{layer}.attention.query_key_value"), [fused, hidden], self.attention_bias);
            layout.linear(format!("{layer}.attention.dense"), [hidden, hidden], self.attention_bias);
            layout.linear(format!("{layer}.mlp.dense_h_to_4h"), [inner, hidden], true);
            layout.linear(format!("{layer}.mlp.dense_4h_to_h"), [hidden, inner], true);
        }
        layout.layer_norm("gpt_neox.final_layer_norm", hidden);
        layout.head("embed_out", common);
        layout
    }
}
