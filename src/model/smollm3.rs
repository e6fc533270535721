//! SmolLM3 (Hugging Face 2025): Llama with layers that go without rotary embedding.
//!
//! Reference: `modeling_smollm3.py` of Hugging Face's transformers.

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
    mlp: GatedMlp,
}

impl decoder::Layer for Layer {
    /// `x` is `[tokens, hidden]`.
    fn forward(&self, x: &Tensor, run: &Run, attend: &mut Attend<'_>) -> Result<Tensor, ModelError> {
        let x = x.f_add(&self.attention.forward(&self.input_norm.forward(x)?, run, attend)?)?;
        Ok(x.f_add(&self.mlp.forward(&self.post_attention_norm.forward(&x)?, run)?)?)
    }
}

/// Takes the weights by their names in Hugging Face's checkpoints.
pub(crate) fn load(
    common: &CommonConfig,
    config: &family::SmolLm3,
    weights: &mut WeightsIn<'_>,
) -> Result<Decoder, ModelError> {
    let norm = |weights: &mut WeightsIn<'_>, path: &str| weights.rms_norm(path, common);
    Decoder::load(weights, common, ("model", &[&config.rope]), norm, |weights, index, path| {
        let rule = Rule { rotary: config.rotated[index].then_some(0), ..Rule::of(common, index) }
            .with_window(config.windows[index]);
        Ok(Layer {
            input_norm: norm(weights, &format!("{path}.input_layernorm"))?,
            attention: SelfAttention::load(weights, common, &format!("{path}.self_attn"), rule)?,
            post_attention_norm: norm(weights, &format!("{path}.post_attention_layernorm"))?,
            mlp: GatedMlp::load(weights, common, &format!("{path}.mlp"))?,
        })
    })
}
