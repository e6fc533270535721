//! Gemma 3 (Kamath et al. 2025), the text model: norms of queries and keys, and five layers with a window and a rotary
//! embedding of their own to each one that sees everything.
//!
//! Reference: `modeling_gemma3.py` of Hugging Face's transformers.

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
    input_norm: Norm,
    attention: SelfAttention,
    post_attention_norm: Norm,
    pre_feedforward_norm: Norm,
    mlp: GatedMlp,
    post_feedforward_norm: Norm,
}

impl decoder::Layer for Layer {
    /// `x` is `[tokens, hidden]`. Norms stand on both sides of attention and feed-forward layer.
    fn forward(&self, x: &Tensor, run: &Run, attend: &mut Attend<'_>) -> Result<Tensor, ModelError> {
        let mixed = self.attention.forward(&self.input_norm.forward(x)?, run, attend)?;
        let x = x.f_add(&self.post_attention_norm.forward(&mixed)?)?;
        let fed = self.mlp.forward(&self.pre_feedforward_norm.forward(&x)?, run)?;
        Ok(x.f_add(&self.post_feedforward_norm.forward(&fed)?)?)
    }
}

/// Takes the weights by their names in Hugging Face's checkpoints.
pub(crate) fn load(
    common: &CommonConfig,
    config: &family::Gemma3,
    weights: &mut WeightsIn<'_>,
) -> Result<Decoder, ModelError> {
    let norm = |weights: &mut WeightsIn<'_>, path: &str| weights.rms_norm_from_one(path, common);
    let ropes = [&config.global_rope, &config.local_rope];
    let mut decoder = Decoder::load(weights, common, (config.prefix(), &ropes), norm, |weights, index, path| {
        let rule = Rule {
            scale: f64::from(config.query_pre_attn_scalar).powf(-0.5),
            rotary: Some(usize::from(config.windows[index].is_some())),
            ..Rule::of(common, index)
        }
        .with_window(config.windows[index]);
        Ok(Layer {
            input_norm: norm(weights, &format!("{path}.input_layernorm"))?,
            attention: SelfAttention {
                head_norms: Some([
                    norm(weights, &format!("{path}.self_attn.q_norm"))?,
                    norm(weights, &format!("{path}.self_attn.k_norm"))?,
                ]),
                ..SelfAttention::load(weights, common, &format!("{path}.self_attn"), rule)?
            },
            post_attention_norm: norm(weights, &format!("{path}.post_attention_layernorm"))?,
            pre_feedforward_norm: norm(weights, &format!("{path}.pre_feedforward_layernorm"))?,
            mlp: GatedMlp::load(weights, common, &format!("{path}.mlp"))?,
            post_feedforward_norm: norm(weights, &format!("{path}.post_feedforward_layernorm"))?,
        })
    })?;
    decoder.embedding_scale = Some(weights.scalar(f64::from(common.hidden_size).sqrt())?);
    decoder.head.soft_cap = config.final_logit_softcapping;
    Ok(decoder)
}
