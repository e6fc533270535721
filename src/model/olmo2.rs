//! OLMo 2 (Walsh et al. 2024): norms after each part instead of before, and of queries and keys across all heads.
//!
//! Reference: `modeling_olmo2.py` of Hugging Face's transformers.

use finetuned_torch::Tensor;
use finetuned_weights::{CommonConfig, family};

use crate::{
    attention::{Attend, Rule},
    context::Run,
    decoder::{self, Decoder},
    error::ModelError,
    mlp::GatedMlp,
    norm::Norm,
    self_attention::SelfAttention,
    weights_in::WeightsIn,
};

#[derive(Debug)]
struct Layer {
    attention: Attention,
    post_attention_norm: Norm,
    mlp: GatedMlp,
    post_feedforward_norm: Norm,
}

#[derive(Debug)]
struct Attention {
    projections: SelfAttention,
    /// `[heads * head_dim]`
    q_norm: Norm,
    /// `[kv_heads * head_dim]`
    k_norm: Norm,
}

impl decoder::Layer for Layer {
    /// `x` is `[tokens, hidden]`.
    fn forward(&self, x: &Tensor, run: &Run, attend: &mut Attend<'_>) -> Result<Tensor, ModelError> {
        let mixed = self.attention.forward(x, run, attend)?;
        let x = x.f_add(&self.post_attention_norm.forward(&mixed)?)?;
        Ok(x.f_add(&self.post_feedforward_norm.forward(&self.mlp.forward(&x, run)?)?)?)
    }
}

impl Attention {
    fn forward(&self, x: &Tensor, run: &Run, attend: &mut Attend<'_>) -> Result<Tensor, ModelError> {
        let SelfAttention { q, k, v, o, heads, rule, .. } = &self.projections;
        let queries = heads.split_query(&self.q_norm.forward(&q.forward(x, run)?)?)?; // [tokens, heads, head_dim]
        let keys = heads.split_key_value(&self.k_norm.forward(&k.forward(x, run)?)?)?;
        let values = heads.split_key_value(&v.forward(x, run)?)?;
        let rotation = &run.rotations[0];
        let mixed = attend.attend(rule, &rotation.apply(&queries)?, &rotation.apply(&keys)?, &values)?;
        o.forward(&mixed, run)
    }
}

/// Takes the weights by their names in Hugging Face's checkpoints.
pub(crate) fn load(
    common: &CommonConfig,
    config: &family::Olmo2,
    weights: &mut WeightsIn<'_>,
) -> Result<Decoder, ModelError> {
    let norm = |weights: &mut WeightsIn<'_>, path: &str| weights.rms_norm(path, common);
    Decoder::load(weights, common, ("model", &[&config.rope]), norm, |weights, index, path| {
        let attention = format!("{path}.self_attn");
        Ok(Layer {
            attention: Attention {
                projections: SelfAttention::load(weights, common, &attention, Rule::of(common, index))?,
                q_norm: norm(weights, &format!("{attention}.q_norm"))?,
                k_norm: norm(weights, &format!("{attention}.k_norm"))?,
            },
            post_attention_norm: norm(weights, &format!("{path}.post_attention_layernorm"))?,
            mlp: GatedMlp::load(weights, common, &format!("{path}.mlp"))?,
            post_feedforward_norm: norm(weights, &format!("{path}.post_feedforward_layernorm"))?,
        })
    })
}
