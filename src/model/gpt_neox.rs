//! GPT-NeoX (Black et al. 2022) and Pythia: attention and feed-forward layer side by side, rotary embedding of part of
//! each head, one matrix for queries, keys and values, head by head.
//!
//! Reference: `modeling_gpt_neox.py` of Hugging Face's transformers.

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
    rotary::Rotary,
    self_attention::Heads,
    weights_in::WeightsIn,
};

#[derive(Debug)]
struct Layer {
    input_norm: Norm,
    attention: Attention,
    post_attention_norm: Norm,
    mlp: Mlp,
    parallel: bool,
}

#[derive(Debug)]
struct Attention {
    /// Of each head its queries, keys and values.
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
        let mixed = self.attention.forward(&self.input_norm.forward(x)?, run, attend)?.f_add(x)?;
        let before = if self.parallel { x } else { &mixed };
        Ok(self.mlp.forward(&self.post_attention_norm.forward(before)?, run)?.f_add(&mixed)?)
    }
}

impl Attention {
    fn forward(&self, x: &Tensor, run: &Run, attend: &mut Attend<'_>) -> Result<Tensor, ModelError> {
        let Heads { query, dim, .. } = self.heads;
        let qkv = self.qkv.forward(x, run)?.f_view([-1, query, 3, dim])?; // [tokens, heads, 3, head_dim]
        let rotation = &run.rotations[0];
        let (q, k) = (rotation.apply(&qkv.f_select(2, 0)?)?, rotation.apply(&qkv.f_select(2, 1)?)?);
        let mixed = attend.attend(&self.rule, &q, &k, &qkv.f_select(2, 2)?)?;
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
    config: &family::GptNeoX,
    weights: &mut WeightsIn<'_>,
) -> Result<Decoder, ModelError> {
    let embedding = weights.tensor("gpt_neox.embed_in.weight")?;
    let layers = (0..common.num_hidden_layers as usize)
        .map(|index| Ok(Box::new(layer(weights, common, config, index)?) as Box<dyn decoder::Layer>))
        .collect::<Result<_, ModelError>>()?;
    Ok(Decoder {
        norm: weights.layer_norm("gpt_neox.final_layer_norm", common)?,
        head: weights.head("embed_out", common, &embedding)?,
        embedding,
        embedding_scale: None,
        positions: None,
        layers,
        rotaries: vec![Rotary::new(&config.rope, weights.device())?],
        cache_shape: CacheShape::of(common),
    })
}

fn layer(
    weights: &mut WeightsIn<'_>,
    common: &CommonConfig,
    config: &family::GptNeoX,
    index: usize,
) -> Result<Layer, ModelError> {
    let path = format!("gpt_neox.layers.{index}");
    Ok(Layer {
        input_norm: weights.layer_norm(&format!("{path}.input_layernorm"), common)?,
        attention: Attention {
            qkv: weights.linear(&format!("{path}.attention.query_key_value"))?,
            out: weights.linear(&format!("{path}.attention.dense"))?,
            heads: Heads::of(common),
            rule: Rule::of(common, index),
        },
        post_attention_norm: weights.layer_norm(&format!("{path}.post_attention_layernorm"), common)?,
        mlp: Mlp {
            inner: weights.linear(&format!("{path}.mlp.dense_h_to_4h"))?,
            outer: weights.linear(&format!("{path}.mlp.dense_4h_to_h"))?,
            activation: common.activation,
        },
        parallel: config.parallel_residual,
    })
}
