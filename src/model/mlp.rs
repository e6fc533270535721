//! Feed-forward layers.

use finetuned_torch::Tensor;
use finetuned_weights::{Activation, CommonConfig};

use crate::{context::Run, error::ModelError, linear::Linear, weights_in::WeightsIn};

/// The function between the matrices.
pub(crate) fn activate(activation: Activation, x: &Tensor) -> Result<Tensor, ModelError> {
    Ok(match activation {
        Activation::Silu => x.f_silu()?,
        Activation::Gelu => x.f_gelu("none")?,
        Activation::GeluTanh => x.f_gelu("tanh")?,
        Activation::Relu => x.f_relu()?,
    })
}

/// A feed-forward layer with a gate (Shazeer 2020): `down(activation(gate(x)) * up(x))`.
#[derive(Debug)]
pub(crate) struct GatedMlp {
    gate: Linear,
    up: Linear,
    down: Linear,
    activation: Activation,
}

impl GatedMlp {
    /// Takes `gate_proj`, `up_proj` and `down_proj` below a path.
    pub fn load(weights: &mut WeightsIn<'_>, common: &CommonConfig, path: &str) -> Result<Self, ModelError> {
        Ok(Self {
            gate: weights.linear(&format!("{path}.gate_proj"))?,
            up: weights.linear(&format!("{path}.up_proj"))?,
            down: weights.linear(&format!("{path}.down_proj"))?,
            activation: common.activation,
        })
    }

    /// `x` is `[tokens, hidden]`.
    pub fn forward(&self, x: &Tensor, run: &Run) -> Result<Tensor, ModelError> {
        let gate = activate(self.activation, &self.gate.forward(x, run)?)?; // [tokens, intermediate]
        self.down.forward(&gate.f_mul(&self.up.forward(x, run)?)?, run)
    }
}
