//! Mixtral (Jiang et al. 2024): Mistral whose feed-forward layer is a choice of experts for each token.
//!
//! Reference: `modeling_mixtral.py` of Hugging Face's transformers.

use finetuned_torch::{Kind, Tensor};
use finetuned_weights::{Activation, CommonConfig, family};

use crate::{
    attention::{Attend, Rule},
    context::Run,
    decoder::{self, Decoder},
    error::ModelError,
    mlp::activate,
    norm::Norm,
    self_attention::SelfAttention,
    weight::Weight,
    weights_in::WeightsIn,
};

#[derive(Debug)]
struct Layer {
    input_norm: Norm,
    attention: SelfAttention,
    post_attention_norm: Norm,
    experts: Experts,
}

#[derive(Debug)]
struct Experts {
    /// `[experts, hidden]`
    router: Tensor,
    experts: Vec<Expert>,
    /// Experts that each token goes through.
    chosen: i64,
    activation: Activation,
}

#[derive(Debug)]
struct Expert {
    /// `[intermediate, hidden]`
    gate: Weight,
    /// `[intermediate, hidden]`
    up: Weight,
    /// `[hidden, intermediate]`
    down: Weight,
}

impl decoder::Layer for Layer {
    /// `x` is `[tokens, hidden]`.
    fn forward(&self, x: &Tensor, run: &Run, attend: &mut Attend<'_>) -> Result<Tensor, ModelError> {
        let x = x.f_add(&self.attention.forward(&self.input_norm.forward(x)?, run, attend)?)?;
        Ok(x.f_add(&self.experts.forward(&self.post_attention_norm.forward(&x)?)?)?)
    }
}

impl Experts {
    /// Each token's likeliest experts, weighed by their shares of the probability that these have together; gradients
    /// reach the router through the shares.
    fn forward(&self, x: &Tensor) -> Result<Tensor, ModelError> {
        let kind = x.f_kind()?;
        let scores = x.f_linear(&self.router, None::<&Tensor>)?; // [tokens, experts]
        let (best, experts) = scores.f_softmax(-1, Kind::Float)?.f_topk(self.chosen, -1, true, true)?; // [tokens, chosen]
        let shares = best.f_div(&best.f_sum_dim_intlist([-1_i64].as_slice(), true, None)?)?.f_to_kind(kind)?;
        let mut mixed = x.f_zeros_like()?;
        for (index, expert) in self.experts.iter().enumerate() {
            // An expert that no token chose is computed on no rows: its gradient is zero and not absent, so that weight
            // decay and moments go on as they do in a stack of all experts.
            let places = experts.f_eq(index as i64)?.f_nonzero()?; // [rows, 2]: token, choice
            let (token, choice) = (places.f_select(1, 0)?, places.f_select(1, 1)?);
            let share = shares.f_index(&[Some(&token), Some(&choice)])?.f_unsqueeze(-1)?; // [rows, 1]
            let out = expert.forward(&x.f_index_select(0, &token)?, self.activation)?;
            mixed = mixed.f_index_add_(0, &token, &out.f_mul(&share)?)?;
        }
        Ok(mixed)
    }
}

impl Expert {
    fn forward(&self, x: &Tensor, activation: Activation) -> Result<Tensor, ModelError> {
        let gate = activate(activation, &self.gate.linear(x, None)?)?; // [rows, intermediate]
        self.down.linear(&gate.f_mul(&self.up.linear(x, None)?)?, None)
    }
}

/// Takes the weights by their names in Hugging Face's checkpoints.
pub(crate) fn load(
    common: &CommonConfig,
    config: &family::Mixtral,
    weights: &mut WeightsIn<'_>,
) -> Result<Decoder, ModelError> {
    let norm = |weights: &mut WeightsIn<'_>, path: &str| weights.rms_norm(path, common);
    Decoder::load(weights, common, ("model", &[&config.rope]), norm, |weights, index, path| {
        let rule = Rule::of(common, index).with_window(config.window);
        Ok(Layer {
            input_norm: norm(weights, &format!("{path}.input_layernorm"))?,
            attention: SelfAttention::load(weights, common, &format!("{path}.self_attn"), rule)?,
            post_attention_norm: norm(weights, &format!("{path}.post_attention_layernorm"))?,
            experts: experts(weights, &format!("{path}.block_sparse_moe"), config, common.activation)?,
        })
    })
}

fn experts(
    weights: &mut WeightsIn<'_>,
    path: &str,
    config: &family::Mixtral,
    activation: Activation,
) -> Result<Experts, ModelError> {
    let mut expert = |index: u32| {
        let mut matrix = |name: &str| weights.matrix(&format!("{path}.experts.{index}.{name}.weight"), false);
        Ok(Expert { gate: matrix("w1")?, up: matrix("w3")?, down: matrix("w2")? })
    };
    let experts = (0..config.experts).map(&mut expert).collect::<Result<_, ModelError>>()?;
    let router = weights.tensor(&format!("{path}.gate.weight"))?;
    Ok(Experts { router, experts, chosen: config.experts_per_token.into(), activation })
}
