//! SmolLM3. Defaults are those of transformers' `SmolLM3Config`.

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

/// What a SmolLM3's config says beyond its sizes.
#[derive(Debug, Clone, PartialEq)]
pub struct SmolLm3 {
    pub rope: RopeConfig,
    /// Whether each layer has rotary embedding.
    pub rotated: Vec<bool>,
    /// One a layer.
    pub windows: Vec<Window>,
    pub attention_bias: bool,
    pub mlp_bias: bool,
}

const DEFAULTS: Defaults = Defaults {
    class: "SmolLM3ForCausalLM",
    num_key_value_heads: Some(4),
    max_position_embeddings: 32_768,
    tie_word_embeddings: true,
    ..Defaults::LLAMA
};

/// One layer in so many goes without rotary embedding.
const INTERVAL: u32 = 4;

pub(super) fn read(fields: &Fields<'_>) -> Result<ModelConfig, WeightsError> {
    // A number that Qwen's configs left behind; transformers does not read it here.
    let _ = fields.get("max_window_layers");
    let common = CommonConfig::read(fields, &DEFAULTS)?;
    let rotated = rotated_layers(fields, common.num_hidden_layers)?;
    let in_use = fields.bool_or("use_sliding_window", false)?;
    let window = windows::window(fields)?.filter(|_| in_use);
    let slides = |layer: u32| window.is_some() && !rotated[layer as usize];
    let defaults = RopeDefaults { theta: 2_000_000.0, ..RopeDefaults::of(&common) };
    let family = Family::SmolLm3(SmolLm3 {
        rope: rope::read(fields, &defaults)?,
        windows: windows::read(fields, common.num_hidden_layers, window, slides)?,
        rotated,
        attention_bias: fields.bool_or("attention_bias", false)?,
        mlp_bias: fields.bool_or("mlp_bias", false)?,
    });
    Ok(ModelConfig { common, family })
}

/// `no_rope_layers` has a 1 for each layer that *is* rotated.
fn rotated_layers(fields: &Fields<'_>, layers: u32) -> Result<Vec<bool>, WeightsError> {
    let interval = fields.u32_or("no_rope_layer_interval", INTERVAL)?.max(1);
    let Some(flags) = fields.maybe_list("no_rope_layers")? else {
        return Ok((1..=layers).map(|layer| layer % interval != 0).collect());
    };
    let flags: Option<Vec<bool>> = flags
        .iter()
        .map(|flag| flag.as_u64().or(flag.as_bool().map(u64::from)))
        .map(|flag| flag.map(|flag| flag != 0))
        .collect();
    match flags {
        Some(flags) if flags.len() == layers as usize => Ok(flags),
        _ => {
            let reason = format!("must have a 0 or a 1 for each of the {layers} layers");
            Err(WeightsError::config(fields.name("no_rope_layers"), reason))
        }
    }
}

impl SmolLm3 {
    pub(super) fn layout(&self, common: &CommonConfig) -> Layout {
        Layout::decoder(common, "model", |layout, layer| {
            layout.norms(layer, common, &["input_layernorm", "post_attention_layernorm"]);
            layout.attention(layer, common, AttentionBias::all_if(self.attention_bias));
            layout.gated_mlp(layer, common, self.mlp_bias);
        })
    }
}
