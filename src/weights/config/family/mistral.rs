//! Mistral. Defaults are those of transformers' `MistralConfig`.

use super::super::{
    ModelConfig,
    common::{CommonConfig, Defaults},
    fields::Fields,
    layout::{AttentionBias, Layout},
    rope::{self, RopeConfig, RopeDefaults},
    windows::{self, Window},
};
use super::Family;
use crate::error::WeightsError;

/// What a Mistral's config says beyond its sizes.
#[derive(Debug, Clone, PartialEq)]
pub struct Mistral {
    pub rope: RopeConfig,
    /// Of every layer.
    pub window: Window,
}

const DEFAULTS: Defaults = Defaults {
    class: "MistralForCausalLM",
    num_key_value_heads: Some(8),
    max_position_embeddings: 131_072,
    ..Defaults::LLAMA
};

/// Window where the config does not name the field at all.
const WINDOW: u32 = 4096;

pub(super) fn read(fields: &Fields<'_>) -> Result<ModelConfig, WeightsError> {
    let common = CommonConfig::read(fields, &DEFAULTS)?;
    let family = Family::Mistral(Mistral {
        rope: rope::read(fields, &RopeDefaults::of(&common))?,
        window: windows::window_or(fields, WINDOW)?,
    });
    Ok(ModelConfig { common, family })
}

impl Mistral {
    pub(super) fn layout(&self, common: &CommonConfig) -> Layout {
        Layout::decoder(common, "model", |layout, layer| {
            layout.norms(layer, common, &["input_layernorm", "post_attention_layernorm"]);
            layout.attention(layer, common, AttentionBias::None);
            layout.gated_mlp(layer, common, false);
        })
    }
}
