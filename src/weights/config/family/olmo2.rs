//! OLMo 2. Defaults are those of transformers' `Olmo2Config`.

use super::super::{
    ModelConfig,
    common::{CommonConfig, Defaults},
    fields::Fields,
    layout::{AttentionBias, Layout},
    rope::{self, RopeConfig, RopeDefaults},
};
use super::Family;
use crate::error::WeightsError;

/// What an OLMo 2's config says beyond its sizes.
#[derive(Debug, Clone, PartialEq)]
pub struct Olmo2 {
    pub rope: RopeConfig,
    pub attention_bias: bool,
}

const DEFAULTS: Defaults = Defaults { class: "Olmo2ForCausalLM", rms_norm_eps: 1e-5, ..Defaults::LLAMA };

pub(super) fn read(fields: &Fields<'_>) -> Result<ModelConfig, WeightsError> {
    let common = CommonConfig::read(fields, &DEFAULTS)?;
    let family = Family::Olmo2(Olmo2 {
        rope: rope::read(fields, &RopeDefaults::of(&common))?,
        attention_bias: fields.bool_or("attention_bias", false)?,
    });
    Ok(ModelConfig { common, family })
}

impl Olmo2 {
    pub(super) fn layout(&self, common: &CommonConfig) -> Layout {
        Layout::decoder(common, "model", |layout, layer| {
            layout.norms(layer, common, &["post_attention_layernorm", "post_feedforward_layernorm"]);
            layout.attention(layer, common, AttentionBias::all_if(self.attention_bias));
            layout.norm(&format!("{layer}.self_attn.q_norm"), common.query_size());
            layout.norm(&format!("{layer}.self_attn.k_norm"), common.key_value_size());
            layout.gated_mlp(layer, common, false);
        })
    }
}
