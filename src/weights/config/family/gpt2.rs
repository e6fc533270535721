//! GPT-2. Defaults are those of transformers' `GPT2Config`.

use super::super::{
    ModelConfig,
    activation::{self, Activation},
    common::{self, CommonConfig, check_class, even_share},
    fields::Fields,
    layout::Layout,
};
use super::Family;
use crate::error::WeightsError;

/// What a GPT-2's config says beyond its sizes.
#[derive(Debug, Clone, PartialEq)]
pub struct Gpt2 {
    /// Whether scores are divided by the root of the head's size.
    pub scale_attn_weights: bool,
    /// Whether scores of layer `i` are divided by `i + 1` on top.
    pub scale_attn_by_inverse_layer_idx: bool,
}

/// Rates of the dropout that GPT-2 was first trained with, which its published configs still carry. It is no part of
/// what the model computes, and fine-tuning here goes without it.
const DROPOUTS: &[&str] = &["attn_pdrop", "embd_pdrop", "resid_pdrop"];

pub(super) fn read(fields: &Fields<'_>) -> Result<ModelConfig, WeightsError> {
    check_class(fields, "GPT2LMHeadModel")?;
    for dropout in DROPOUTS {
        fields.maybe_f64(dropout)?;
    }
    // The same products in another order.
    fields.maybe_bool("reorder_and_upcast_attn")?;
    let hidden_size = fields.u32_or("n_embd", 768)?;
    let heads = fields.u32_or("n_head", 12)?;
    let common = CommonConfig {
        vocab_size: fields.u32_or("vocab_size", 50_257)?,
        hidden_size,
        intermediate_size: fields.u32_or("n_inner", hidden_size.saturating_mul(4))?,
        num_hidden_layers: fields.u32_or("n_layer", 12)?,
        num_attention_heads: heads,
        num_key_value_heads: heads,
        head_dim: even_share("n_embd", hidden_size, heads)?,
        max_position_embeddings: fields.u32_or("n_positions", 1024)?,
        norm_epsilon: fields.maybe_f64("layer_norm_epsilon")?.unwrap_or(1e-5),
        activation: activation::read(fields, &["activation_function"], Activation::GeluTanh)?,
        tie_word_embeddings: fields.bool_or("tie_word_embeddings", true)?,
        dtype: common::dtype(fields)?,
        bos_token_id: fields.maybe_u32("bos_token_id")?,
        eos_token_ids: fields.ids("eos_token_id")?,
        pad_token_id: common::pad_token_id(fields),
    };
    let family = Family::Gpt2(Gpt2 {
        scale_attn_weights: fields.bool_or("scale_attn_weights", true)?,
        scale_attn_by_inverse_layer_idx: fields.bool_or("scale_attn_by_inverse_layer_idx", false)?,
    });
    Ok(ModelConfig { common, family })
}

impl Gpt2 {
    pub(super) fn layout(&self, common: &CommonConfig) -> Layout {
        let (hidden, inner) = (common.hidden_size, common.intermediate_size);
        let mut layout = Layout::default();
        layout.tensor("transformer.wte.weight".to_owned(), &[common.vocab_size, hidden]);
        layout.tensor("transformer.wpe.weight".to_owned(), &[common.max_position_embeddings, hidden]);
        for index in 0..common.num_hidden_layers {
            let layer = format!("transformer.h.{index}");
            layout.layer_norm(&format!("{layer}.ln_1"), hidden);
            layout.layer_norm(&format!("{layer}.ln_2"), hidden);
            layout.conv1d(format!("{layer}.attn.c_attn"), [hidden, hidden.saturating_mul(3)]);
            layout.conv1d(format!("{layer}.attn.c_proj"), [hidden, hidden]);
            layout.conv1d(format!("{layer}.mlp.c_fc"), [hidden, inner]);
            layout.conv1d(format!("{layer}.mlp.c_proj"), [inner, hidden]);
        }
        layout.layer_norm("transformer.ln_f", hidden);
        layout.head("lm_head", common);
        layout
    }
}
