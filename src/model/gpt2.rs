//! GPT-2 (Radford et al. 2019): learned positions, norms with a bias, one matrix for queries, keys and values, and every
//! matrix stored the other way round (`Conv1D`).
//!
//! Reference: `modeling_gpt2.py` of Hugging Face's transformers.

use finetuned_torch::Tensor;
use finetuned_weights::{Activation, CommonConfig, family};

use crate::{
    attention::{Attend, Rule},
    cache::CacheShape,
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
    out: Linear,
    heads: Heads,
    rule: Rule,
}

/// `out(activation(in(x)))`
#[derive(Debug)]
struct Mlp {
    inner: Linear,
    outer: Linear,
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
        let Heads { query, dim, .. } = self.heads;
        let qkv = self.qkv.forward(x, run)?.f_view([-1, 3, query, dim])?; // [tokens, 3, heads, head_dim]
        let mixed = attend.attend(&self.rule, &qkv.f_select(1, 0)?, &qkv.f_select(1, 1)?, &qkv.f_select(1, 2)?)?;
        self.out.forward(&mixed, run)
    }
}

impl Mlp {
    fn forward(&self, x: &Tensor, run: &Run) -> Result<Tensor, ModelError> {
        self.outer.forward(&activate(self.activation, &self.inner.forward(x, run)?)?, run)
    }
}

/// Takes the weights by their names in Hugging Face's checkpoints.
pub(crate) fn load(
    common: &CommonConfig,
    config: &family::Gpt2,
    weights: &mut WeightsIn<'_>,
) -> Result<Decoder, ModelError> {
    let embedding = weights.tensor("transformer.wte.weight")?;
    let positions = weights.tensor("transformer.wpe.weight")?;
    let layers = (0..common.num_hidden_layers as usize)
        .map(|index| Ok(Box::new(layer(weights, common, config, index)?) as Box<dyn decoder::Layer>))
        .collect::<Result<_, ModelError>>()?;
    Ok(Decoder {
        norm: weights.layer_norm("transformer.ln_f", common)?,
        head: weights.head("lm_head", common, &embedding)?,
        embedding,
        embedding_scale: None,
        positions: Some(positions),
        layers,
        rotaries: Vec::new(),
        cache_shape: CacheShape::of(common),
    })
}

fn layer(
    weights: &mut WeightsIn<'_>,
    common: &CommonConfig,
    config: &family::Gpt2,
    index: usize,
) -> Result<Layer, ModelError> {
    let path = format!("transformer.h.{index}");
    Ok(Layer {
        input_norm: weights.layer_norm(&format!("{path}.ln_1"), common)?,
        attention: Attention {
            qkv: weights.linear(&format!("{path}.attn.c_attn"))?,
            out: weights.linear(&format!("{path}.attn.c_proj"))?,
            heads: Heads::of(common),
            rule: Rule { scale: scale(common, config, index), rotary: None, ..Rule::of(common, index) },
        },
        post_attention_norm: weights.layer_norm(&format!("{path}.ln_2"), common)?,
        mlp: Mlp {
            inner: weights.linear(&format!("{path}.mlp.c_fc"))?,
            outer: weights.linear(&format!("{path}.mlp.c_proj"))?,
            activation: common.activation,
        },
    })
}

fn scale(common: &CommonConfig, config: &family::Gpt2, index: usize) -> f64 {
    let by_head = if config.scale_attn_weights { f64::from(common.head_dim).powf(-0.5) } else { 1.0 };
    if config.scale_attn_by_inverse_layer_idx { by_head / (index as f64 + 1.0) } else { by_head }
}
