//! Gemma 2. Defaults are those of transformers' `Gemma2Config`.

use super::super::{
    ModelConfig,
    activation::{self, Activation},
    common::{CommonConfig, Defaults},
    fields::Fields,
    layout::{AttentionBias, Layout},
    rope::{self, RopeConfig, RopeDefaults},
    windows::{self, Window},
};
use super::Family;
use crate::error::WeightsError;

/// What a Gemma 2's config says beyond its sizes.
#[derive(Debug, Clone, PartialEq)]
pub struct Gemma2 {
    pub rope: RopeConfig,
    /// One a layer.
    pub windows: Vec<Window>,
    pub attention_bias: bool,
    /// Scores are divided by its root.
    pub query_pre_attn_scalar: u32,
    /// Scores `s` become `cap * tanh(s / cap)`.
    pub attn_logit_softcapping: Option<f64>,
    /// The same of the logits.
    pub final_logit_softcapping: Option<f64>,
}

const DEFAULTS: Defaults = Defaults {
    class: "Gemma2ForCausalLM",
    vocab_size: Some(256_000),
    num_attention_heads: Some(8),
    num_key_value_heads: Some(4),
    head_dim: Some(256),
    max_position_embeddings: 8192,
    tie_word_embeddings: true,
    ..Defaults::LLAMA
};

pub(super) fn read(fields: &Fields<'_>) -> Result<ModelConfig, WeightsError> {
    let mut common = CommonConfig::read(fields, &DEFAULTS)?;
    common.activation = activation(fields)?;
    let window = windows::window_or(fields, 4096)?;
    let family = Family::Gemma2(Gemma2 {
        rope: rope::read(fields, &RopeDefaults::of(&common))?,
        windows: windows::read(fields, common.num_hidden_layers, window, |layer| layer % 2 == 0)?,
        attention_bias: fields.bool_or("attention_bias", false)?,
        query_pre_attn_scalar: query_scalar(fields)?,
        attn_logit_softcapping: soft_cap_or(fields, "attn_logit_softcapping", Some(50.0))?,
        final_logit_softcapping: soft_cap_or(fields, "final_logit_softcapping", Some(30.0))?,
    });
    Ok(ModelConfig { common, family })
}

/// Gemma's own name comes before the usual one, which its older configs carry with a value that nobody heeds.
pub(super) fn activation(fields: &Fields<'_>) -> Result<Activation, WeightsError> {
    activation::read(fields, &["hidden_activation"], Activation::GeluTanh)
}

pub(super) fn query_scalar(fields: &Fields<'_>) -> Result<u32, WeightsError> {
    match fields.u32_or("query_pre_attn_scalar", 256)? {
        0 => Err(WeightsError::config(fields.name("query_pre_attn_scalar"), "must be at least 1; it is 0")),
        scalar => Ok(scalar),
    }
}

/// A soft cap, above zero; `default` where the field is absent, none where it is null.
pub(super) fn soft_cap_or(fields: &Fields<'_>, field: &str, default: Option<f64>) -> Result<Option<f64>, WeightsError> {
    if !fields.has(field) {
        return Ok(default);
    }
    match fields.maybe_f64(field)? {
        Some(cap) if !(cap > 0.0 && cap.is_finite()) => {
            Err(WeightsError::config(fields.name(field), format!("must be a number above 0; it is {cap}")))
        }
        cap => Ok(cap),
    }
}

impl Gemma2 {
    pub(super) fn layout(&self, common: &CommonConfig) -> Layout {
        Layout::decoder(common, "model", |layout, layer| {
            layout.norms(
                layer,
                common,
                &[
                    "input_layernorm",
                    "post_attention_layernorm",
                    "pre_feedforward_layernorm",
                    "post_feedforward_layernorm",
                ],
            );
            layout.attention(layer, common, AttentionBias::all_if(self.attention_bias));
            layout.gated_mlp(layer, common, false);
        })
    }
}
