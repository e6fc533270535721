//! Adam with decoupled weight decay (Loshchilov & Hutter 2019), step for step as `torch.optim.AdamW` computes it.

use finetuned_protocol::optimization::AdamWSpec;
use finetuned_torch::Tensor;

use super::{
    Step,
    moment::{Moment, Sign},
};
use crate::error::ModelError;

#[derive(Debug)]
pub(super) struct AdamW {
    betas: [f64; 2],
    epsilon: f64,
    /// Running mean of the gradient.
    exp_avg: Moment,
    /// Running mean of its square.
    exp_avg_sq: Moment,
}

impl AdamW {
    pub fn new(parameter: &Tensor, spec: AdamWSpec) -> Result<Self, ModelError> {
        Ok(Self {
            betas: spec.betas,
            epsilon: spec.epsilon,
            exp_avg: Moment::zeros(parameter, spec.moments, Sign::Any)?,
            exp_avg_sq: Moment::zeros(parameter, spec.moments, Sign::Positive)?,
        })
    }

    pub fn step(&mut self, parameter: &mut Tensor, step: &Step) -> Result<(), ModelError> {
        let &Step { gradient, learning_rate, weight_decay, count, key } = step;
        let corrections = self.betas.map(|beta| 1.0 - beta.powi(count as i32));
        let _ = parameter.f_mul_scalar_(1.0 - learning_rate * weight_decay)?;
        let mut mean = self.exp_avg.read()?;
        let _ = mean.f_lerp_(gradient, 1.0 - self.betas[0])?;
        let scaled = gradient.f_mul_scalar(1.0 - self.betas[1])?;
        let mut square = self.exp_avg_sq.read()?;
        let _ = square.f_mul_scalar_(self.betas[1])?.f_addcmul_(&scaled, gradient)?;
        let mut divisor = square.f_sqrt()?;
        let _ = divisor.f_div_scalar_(corrections[1].sqrt())?.f_add_scalar_(self.epsilon)?;
        let update = mean.f_mul_scalar(-learning_rate / corrections[0])?;
        let _ = parameter.f_addcdiv_(&update, &divisor)?;
        self.exp_avg.write(&mean, key.with(0))?;
        self.exp_avg_sq.write(&square, key.with(1))
    }

    pub fn state(&self) -> Vec<(String, &Tensor)> {
        [self.exp_avg.state("exp_avg"), self.exp_avg_sq.state("exp_avg_sq")].concat()
    }
}
