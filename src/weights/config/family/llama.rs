//! Llama. Defaults are those of transformers' `LlamaConfig`.

use super::super::{
    ModelConfig,
    common::{CommonConfig, Defaults},
    fields::Fields,
    layout::{AttentionBias, Layout},
    rope::{self, RopeConfig, RopeDefaults},
    windows,
};
use super::Family;
use crate::error::WeightsError;

/// What a Llama's config says beyond its sizes.
#[derive(Debug, Clone, PartialEq)]
pub struct Llama {
    pub rope: RopeConfig,
    /// Whether q, k, v and o projections have biases.
    pub attention_bias: bool,
    /// Whether gate, up and down projections have biases.
    pub mlp_bias: bool,
}

pub(super) fn read(fields: &Fields<'_>) -> Result<ModelConfig, WeightsError> {
    let common = CommonConfig::read(fields, &Defaults::LLAMA)?;
    windows::read(fields, common.num_hidden_layers, None, |_| false)?;
    let family = Family::Llama(Llama {
        rope: rope::read(fields, &RopeDefaults::of(&common))?,
        attention_bias: fields.bool_or("attention_bias", false)?,
        mlp_bias: fields.bool_or("mlp_bias", false)?,
    });
    Ok(ModelConfig { common, family })
}

impl Llama {
    pub(super) fn layout(&self, common: &CommonConfig) -> Layout {
        Layout::decoder(common, "model", |layout, layer| {
            layout.norms(layer, common, &["input_layernorm", "post_attention_layernorm"]);
            layout.attention(layer, common, AttentionBias::all_if(self.attention_bias));
            layout.gated_mlp(layer, common, self.mlp_bias);
        })
    }
}
