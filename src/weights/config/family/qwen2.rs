//! Qwen 2 and 2.5. Defaults are those of transformers' `Qwen2Config`.

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

/// What a Qwen 2's config says beyond its sizes.
#[derive(Debug, Clone, PartialEq)]
pub struct Qwen2 {
    pub rope: RopeConfig,
    /// One a layer.
    pub windows: Vec<Window>,
}

const DEFAULTS: Defaults = Defaults {
    class: "Qwen2ForCausalLM",
    num_key_value_heads: Some(32),
    max_position_embeddings: 32_768,
    ..Defaults::LLAMA
};

/// The first layers see everything even where windows are in use.
const MAX_WINDOW_LAYERS: u32 = 28;

pub(super) fn read(fields: &Fields<'_>) -> Result<ModelConfig, WeightsError> {
    let common = CommonConfig::read(fields, &DEFAULTS)?;
    let family = Family::Qwen2(Qwen2 {
        rope: rope::read(fields, &RopeDefaults::of(&common))?,
        windows: layer_windows(fields, common.num_hidden_layers)?,
    });
    Ok(ModelConfig { common, family })
}

/// Windows as both Qwen 2 and Qwen 3 have them: only with `use_sliding_window`, and only above `max_window_layers`.
pub(super) fn layer_windows(fields: &Fields<'_>, layers: u32) -> Result<Vec<Window>, WeightsError> {
    let in_use = fields.bool_or("use_sliding_window", false)?;
    let window = windows::window_or(fields, 4096)?.filter(|_| in_use);
    let first = fields.u32_or("max_window_layers", MAX_WINDOW_LAYERS)?;
    windows::read(fields, layers, window, |layer| window.is_some() && layer >= first)
}

impl Qwen2 {
    pub(super) fn layout(&self, common: &CommonConfig) -> Layout {
        Layout::decoder(common, "model", |layout, layer| {
            layout.norms(layer, common, &["input_layernorm", "post_attention_layernorm"]);
            layout.attention(layer, common, AttentionBias::Inputs);
            layout.gated_mlp(layer, common, false);
        })
    }
}
