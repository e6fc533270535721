//! Phi-3, 3.5 and 4. Defaults are those of transformers' `Phi3Config`.

use super::super::{
    ModelConfig,
    common::{CommonConfig, Defaults},
    fields::Fields,
    layout::Layout,
    rope::{self, RopeConfig, RopeDefaults},
    windows::{self, Window},
};
use super::Family;
use crate::error::WeightsError;

/// What a Phi-3's config says beyond its sizes.
#[derive(Debug, Clone, PartialEq)]
pub struct Phi3 {
    pub rope: RopeConfig,
    /// Of every layer.
    pub window: Window,
}

const DEFAULTS: Defaults =
    Defaults { class: "Phi3ForCausalLM", max_position_embeddings: 4096, rms_norm_eps: 1e-5, ..Defaults::LLAMA };

pub(super) fn read(fields: &Fields<'_>) -> Result<ModelConfig, WeightsError> {
    // The first checkpoints brought their own Python; what it computes is what is implemented here.
    let _ = fields.get("auto_map");
    let common = CommonConfig::read(fields, &DEFAULTS)?;
    let original = fields.u32_or("original_max_position_embeddings", 4096)?;
    let defaults =
        RopeDefaults { original_max_positions: Some(original), share_is_free: true, ..RopeDefaults::of(&common) };
    let family = Family::Phi3(Phi3 { rope: rope::read(fields, &defaults)?, window: windows::window(fields)? });
    Ok(ModelConfig { common, family })
}

impl Phi3 {
    pub(super) fn layout(&self, common: &CommonConfig) -> Layout {
        let (hidden, inner) = (common.hidden_size, common.intermediate_size);
        let (queries, keys) = (common.query_size(), common.key_value_size());
        let fused = queries.saturating_add(keys.saturating_mul(2));
        Layout::decoder(common, "model", |layout, layer| {
            layout.norms(layer, common, &["input_layernorm", "post_attention_layernorm"]);
            layout.linear(format!("{layer}.self_attn.qkv_proj"), [fused, hidden], false);
            layout.linear(format!("{layer}.self_attn.o_proj"), [hidden, queries], false);
            layout.linear(format!("{layer}.mlp.gate_up_proj"), [inner.saturating_mul(2), hidden], false);
            layout.linear(format!("{layer}.mlp.down_proj"), [hidden, inner], false);
        })
    }
}
