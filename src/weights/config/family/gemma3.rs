//! Gemma 3, the text model alone or beside its eyes. Defaults are those of transformers' `Gemma3TextConfig`.

use super::super::{
    ModelConfig,
    common::{CommonConfig, Defaults, check_class},
    fields::Fields,
    layout::{AttentionBias, Layout},
    rope::{self, RopeConfig, RopeDefaults},
    windows::{self, Window},
};
use super::{
    Family,
    gemma2::{activation, query_scalar, soft_cap_or},
};
use crate::error::WeightsError;

/// What a Gemma 3's config says beyond its sizes.
#[derive(Debug, Clone, PartialEq)]
pub struct Gemma3 {
    /// Of the layers that see everything.
    pub global_rope: RopeConfig,
    /// Of those with a window.
    pub local_rope: RopeConfig,
    /// One a layer.
    pub windows: Vec<Window>,
    pub attention_bias: bool,
    /// Scores are divided by its root.
    pub query_pre_attn_scalar: u32,
    /// Logits `l` become `cap * tanh(l / cap)`.
    pub final_logit_softcapping: Option<f64>,
    /// Whether it is the language model of one that also sees: its tensors then lie below `model.language_model`, and
    /// those of the vision tower are left alone.
    pub beside_vision: bool,
}

const DEFAULTS: Defaults = Defaults {
    class: "Gemma3ForCausalLM",
    vocab_size: Some(262_208),
    num_attention_heads: Some(8),
    num_key_value_heads: Some(4),
    head_dim: Some(256),
    max_position_embeddings: 131_072,
    tie_word_embeddings: true,
    ..Defaults::LLAMA
};

/// One layer in so many sees everything.
const PATTERN: u32 = 6;

pub(super) fn read(fields: &Fields<'_>) -> Result<ModelConfig, WeightsError> {
    let mut common = CommonConfig::read(fields, &DEFAULTS)?;
    common.activation = activation(fields)?;
    let [global_rope, local_rope] = ropes(fields, &common)?;
    let pattern = fields.u32_or("sliding_window_pattern", PATTERN)?.max(1);
    let window = windows::window_or(fields, 4096)?;
    let family = Family::Gemma3(Gemma3 {
        global_rope,
        local_rope,
        windows: windows::read(fields, common.num_hidden_layers, window, |layer| (layer + 1) % pattern != 0)?,
        attention_bias: fields.bool_or("attention_bias", false)?,
        query_pre_attn_scalar: query_scalar(fields)?,
        final_logit_softcapping: soft_cap_or(fields, "final_logit_softcapping", None)?,
        beside_vision: false,
    });
    Ok(ModelConfig { common, family })
}

/// A `gemma3` config: the text model's fields lie in `text_config`; ids that end an answer also stand outside.
pub(super) fn read_beside_vision(fields: &Fields<'_>) -> Result<ModelConfig, WeightsError> {
    check_class(fields, "Gemma3ForConditionalGeneration")?;
    for field in VISION {
        let _ = fields.get(field);
    }
    let Some(map) = fields.maybe_map("text_config")? else {
        return Err(WeightsError::config("text_config", "is missing"));
    };
    let text = Fields::new("text_config.", map);
    let ModelConfig { mut common, family } = read(&text)?;
    text.refuse_unread("gemma3_text")?;
    let Family::Gemma3(gemma3) = family else { return Ok(ModelConfig { common, family }) };
    common.dtype = common.dtype.or(super::super::common::dtype(fields)?);
    common.tie_word_embeddings = fields.bool_or("tie_word_embeddings", common.tie_word_embeddings)?;
    if fields.is_set("eos_token_id") {
        common.eos_token_ids = fields.ids("eos_token_id")?;
    }
    common.bos_token_id = fields.maybe_u32("bos_token_id")?.or(common.bos_token_id);
    common.pad_token_id = fields.maybe_u32("pad_token_id")?.or(common.pad_token_id);
    Ok(ModelConfig { common, family: Family::Gemma3(Gemma3 { beside_vision: true, ..gemma3 }) })
}

/// Fields about images.
const VISION: &[&str] = &[
    "boi_token_id",
    "boi_token_index",
    "eoi_token_id",
    "eoi_token_index",
    "image_token_id",
    "image_token_index",
    "mm_tokens_per_image",
    "vision_config",
];

/// Rotary embedding of global and of local layers: one object each below `rope_parameters`, or the older `rope_theta`
/// with `rope_scaling`, and `rope_local_base_freq`.
fn ropes(fields: &Fields<'_>, common: &CommonConfig) -> Result<[RopeConfig; 2], WeightsError> {
    let global =
        RopeDefaults { theta: fields.maybe_f64("rope_theta")?.unwrap_or(1_000_000.0), ..RopeDefaults::of(common) };
    let local = RopeDefaults {
        theta: fields.maybe_f64("rope_local_base_freq")?.unwrap_or(10_000.0),
        ..RopeDefaults::of(common)
    };
    let older = fields.maybe_map("rope_scaling")?.map(|map| Fields::new("rope_scaling.", map));
    let Some(map) = fields.maybe_map("rope_parameters")? else {
        return Ok([rope::read_one(older.as_ref(), &global)?, rope::read_one(None, &local)?]);
    };
    let both = Fields::new("rope_parameters.", map);
    let full = both.maybe_map("full_attention")?;
    let full = full.map(|map| Fields::new("rope_parameters.full_attention.", map));
    let sliding = both.maybe_map("sliding_attention")?;
    let sliding = sliding.map(|map| Fields::new("rope_parameters.sliding_attention.", map));
    both.refuse_unread("gemma3_text")?;
    Ok([rope::read_one(full.as_ref(), &global)?, rope::read_one(sliding.as_ref(), &local)?])
}

impl Gemma3 {
    /// Where the tensors lie.
    pub fn prefix(&self) -> &'static str {
        if self.beside_vision { "model.language_model" } else { "model" }
    }

    pub(super) fn layout(&self, common: &CommonConfig) -> Layout {
        Layout::decoder(common, self.prefix(), |layout, layer| {
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
            layout.norm(&format!("{layer}.self_attn.q_norm"), common.head_dim);
            layout.norm(&format!("{layer}.self_attn.k_norm"), common.head_dim);
            layout.gated_mlp(layer, common, false);
        })
    }
}
