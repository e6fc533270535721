//! Phi-3, 3.5 and 4 (Abdin et al. 2024): Llama with one matrix for queries, keys and values, one for gate and up
//! projection, rotary embedding of part of each head in some, and LongRoPE in those with a long context.
//!
//! Reference: `modeling_phi3.py` of Hugging Face's transformers.

use finetuned_torch::Tensor;
use finetuned_weights::{Activation, CommonConfig, family};

use crate::{
    attention::{Attend, Rule},
    context::Run,
    decoder::{self, Decoder},
    error::ModelError,
    linear::Linear,
    mlp::activate,
    norm::Norm,
    self_attention::Heads,
    weights_in::WeightsIn,
};

#[derive(Debug)]
struct Layer {
    input_norm: Norm,
    attention: Attention,
    post_attention_norm: Norm,
    mlp: Mlp,
}

#[derive(Debug)]
struct Attention {
    /// Queries of all heads, then keys, then values.
    qkv: Linear,
    o: Linear,
    heads: Heads,
    rule: Rule,
}

#[derive(Debug)]
struct Mlp {
    /// The gate, then the up projection.
    gate_up: Linear,
    down: Linear,
    activation: Activation,
}

impl decoder::Layer for Layer {
    /// `x` is `[tokens, hidden]`.
    fn forward(&self, x: &Tensor, run: &Run, attend: &mut Attend<'_>) -> Result<Tensor, ModelError> {
        let x = x.f_add(&self.attention.forward(&self.input_norm.forward(x)?, run, attend)?)?;
        Ok(x.f_add(&self.mlp.forward(&self.post_attention_norm.forward(&x)?, run)?)?)
    }
}

impl Attention {
    fn forward(&self, x: &Tensor, run: &Run, attend: &mut Attend<'_>) -> Result<Tensor, ModelError> {
        let Heads { query, key_value, dim } = self.heads;
        let qkv = self.qkv.forward(x, run)?.f_view([-1, query + 2 * key_value, dim])?; // [tokens, all heads, head_dim]
        let (q, k) = (qkv.f_narrow(1, 0, query)?, qkv.f_narrow(1, query, key_value)?);
        let v = qkv.f_narrow(1, query + key_value, key_value)?;
        let rotation = &run.rotations[0];
        let mixed = attend.attend(&self.rule, &rotation.apply(&q)?, &rotation.apply(&k)?, &v)?;
        self.o.forward(&mixed, run)
    }
}

impl Mlp {
    fn forward(&self, x: &Tensor, run: &Run) -> Result<Tensor, ModelError> {
        let gate_up = self.gate_up.forward(x, run)?; // [tokens, 2 * intermediate]
        let width = gate_up.size2()?.1 / 2;
        let gate = activate(self.activation, &gate_up.f_narrow(1, 0, width)?)?;
        self.down.forward(&gate.f_mul(&gate_up.f_narrow(1, width, width)?)?, run)
    }
}

/// Takes the weights by their names in Hugging Face's checkpoints.
pub(crate) fn load(
    common: &CommonConfig,
    config: &family::Phi3,
    weights: &mut WeightsIn<'_>,
) -> Result<Decoder, ModelError> {
    let norm = |weights: &mut WeightsIn<'_>, path: &str| weights.rms_norm(path, common);
    Decoder::load(weights, common, ("model", &[&config.rope]), norm, |weights, index, path| {
        Ok(Layer {
            input_norm: norm(weights, &format!("{path}.input_layernorm"))?,
            attention: Attention {
                qkv: weights.linear(&format!("{path}.self_attn.qkv_proj"))?,
                o: weights.linear(&format!("{path}.self_attn.o_proj"))?,
                heads: Heads::of(common),
                rule: Rule::of(common, index).with_window(config.window),
            },
            post_attention_norm: norm(weights, &format!("{path}.post_attention_layernorm"))?,
            mlp: Mlp {
                gate_up: weights.linear(&format!("{path}.mlp.gate_up_proj"))?,
                down: weights.linear(&format!("{path}.mlp.down_proj"))?,
                activation: common.activation,
            },
        })
    })
}
