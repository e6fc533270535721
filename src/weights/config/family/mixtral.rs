//! Mixtral. Defaults are those of transformers' `MixtralConfig`.

use super::super::{
    ModelConfig,
    common::{CommonConfig, Defaults},
    fields::Fields,
    layout::{AttentionBias, Layout, LinearSpec},
    rope::{self, RopeConfig, RopeDefaults},
    windows::{self, Window},
};
use super::Family;
use crate::error::WeightsError;

/// What a Mixtral's config says beyond its sizes.
#[derive(Debug, Clone, PartialEq)]
pub struct Mixtral {
    pub rope: RopeConfig,
    /// Of every layer.
    pub window: Window,
    pub experts: u32,
    /// How many of them each token goes through.
    pub experts_per_token: u32,
}

const DEFAULTS: Defaults = Defaults {
    class: "MixtralForCausalLM",
    num_key_value_heads: Some(8),
    max_position_embeddings: 131_072,
    rms_norm_eps: 1e-5,
    ..Defaults::LLAMA
};

pub(super) fn read(fields: &Fields<'_>) -> Result<ModelConfig, WeightsError> {
    let common = CommonConfig::read(fields, &DEFAULTS)?;
    let experts = fields.u32_or("num_local_experts", 8)?;
    let experts_per_token = fields.u32_or("num_experts_per_tok", 2)?;
    if experts_per_token == 0 || experts_per_token > experts || experts > MOST_EXPERTS {
        let reason = format!("must be at least 1 and at most num_local_experts ({experts}); it is {experts_per_token}");
        return Err(WeightsError::config("num_experts_per_tok", reason));
    }
    let defaults = RopeDefaults { theta: 1_000_000.0, ..RopeDefaults::of(&common) };
    let rope = rope::read(fields, &defaults)?;
    let family = Family::Mixtral(Mixtral { rope, window: windows::window(fields)?, experts, experts_per_token });
    Ok(ModelConfig { common, family })
}

/// More are a mistake or an attack on memory.
const MOST_EXPERTS: u32 = 256;

impl Mixtral {
    /// The matrices of as many experts of a layer as each token goes through.
    pub(in crate::config) fn chosen_experts(&self, common: &CommonConfig) -> Vec<LinearSpec> {
        let (hidden, inner) = (common.hidden_size, common.intermediate_size);
        let matrix = |expert: u32, name: &str, out_features: u32, in_features: u32| LinearSpec {
            path: format!("experts.{expert}.{name}"),
            in_features,
            out_features,
            transposed: false,
        };
        let expert = |index| {
            [matrix(index, "w1", inner, hidden), matrix(index, "w2", hidden, inner), matrix(index, "w3", inner, hidden)]
        };
        (0..self.experts_per_token).flat_map(expert).collect()
    }

    /// The experts and their router are plain tensors: peft's `all-linear` does not see them either.
    pub(super) fn layout(&self, common: &CommonConfig) -> Layout {
        let (hidden, inner) = (common.hidden_size, common.intermediate_size);
        Layout::decoder(common, "model", |layout, layer| {
            layout.norms(layer, common, &["input_layernorm", "post_attention_layernorm"]);
            layout.attention(layer, common, AttentionBias::None);
            layout.tensor(format!("{layer}.block_sparse_moe.gate.weight"), &[self.experts, hidden]);
            for expert in 0..self.experts {
                let path = format!("{layer}.block_sparse_moe.experts.{expert}");
                layout.tensor(format!("{path}.w1.weight"), &[inner, hidden]);
                layout.tensor(format!("{path}.w2.weight"), &[hidden, inner]);
                layout.tensor(format!("{path}.w3.weight"), &[inner, hidden]);
            }
        })
    }
}
