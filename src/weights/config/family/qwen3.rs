//! Qwen 3. Defaults are those of transformers' `Qwen3Config`.

use super::super::{
    ModelConfig,
    common::{CommonConfig, Defaults},
    fields::Fields,
    layout::{AttentionBias, Layout},
    rope::{self, RopeConfig, RopeDefaults},
    windows::Window,
};
use super::{Family, qwen2::layer_windows};
use crate::error::WeightsError;

/// What a Qwen 3's config says beyond its sizes.
#[derive(Debug, Clone, PartialEq)]
pub struct Qwen3 {
    pub rope: RopeConfig,
    /// One a layer.
    pub windows: Vec<Window>,
    pub attention_bias: bool,
}

const DEFAULTS: Defaults = Defaults {
    class: "Qwen3ForCausalLM",
    num_key_value_heads: Some(32),
    head_dim: Some(128),
    max_position_embeddings: 32_768,
    ..Defaults::LLAMA
};

pub(super) fn read(fields: &Fields<'_>) -> Result<ModelConfig, WeightsError> {
    let common = CommonConfig::read(fields, &DEFAULTS)?;
    let family = Family::Qwen3(Qwen3 {
        rope: rope::read(fields, &RopeDefaults::of(&common))?,
        windows: layer_windows(fields, common.num_hidden_layers)?,
        attention_bias: fields.bool_or("attention_bias", false)?,
    });
    Ok(ModelConfig { common, family })
}

impl Qwen3 {
    pub(super) fn layout(&self, common: &CommonConfig) -> Layout {
        Layout::decoder(common, "model", |layout, layer| {
            layout.norms(layer, common, &["input_layernorm", "post_attention_layernorm"]);
            layout.attention(layer, common, AttentionBias::all_if(self.attention_bias));
            layout.norm(&format!("{layer}.self_attn.q_norm"), common.head_dim);
            layout.norm(&format!("{layer}.self_attn.k_norm"), common.head_dim);
            layout.gated_mlp(layer, common, false);
        })
    }
}
