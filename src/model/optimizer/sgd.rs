//! Gradient descent with momentum (Polyak 1964; Nesterov 1983), step for step as `torch.optim.SGD` computes it.

use finetuned_protocol::optimization::SgdSpec;
use finetuned_torch::Tensor;

use super::Step;
use crate::error::ModelError;

#[derive(Debug)]
pub(super) struct Sgd {
    nesterov: bool,
    momentum: Option<Momentum>,
}

#[derive(Debug)]
struct Momentum {
    factor: f64,
    /// `factor` times itself plus the gradient, in each step.
    buffer: Tensor,
}

impl Sgd {
    pub fn new(parameter: &Tensor, spec: SgdSpec) -> Result<Self, ModelError> {
        let momentum = match spec.momentum {
            0.0 => None,
            factor => Some(Momentum { factor, buffer: parameter.f_zeros_like()? }),
        };
        Ok(Self { nesterov: spec.nesterov, momentum })
    }

    pub fn step(&mut self, parameter: &mut Tensor, step: &Step) -> Result<(), ModelError> {
        let gradient = match step.weight_decay {
            0.0 => step.gradient.shallow_clone(),
            decay => step.gradient.f_add(&parameter.f_mul_scalar(decay)?)?,
        };
        let update = match &mut self.momentum {
            None => gradient,
            Some(Momentum { factor, buffer }) => {
                let _ = buffer.f_mul_scalar_(*factor)?.f_add_(&gradient)?;
                match self.nesterov {
                    true => gradient.f_add(&buffer.f_mul_scalar(*factor)?)?,
                    false => buffer.shallow_clone(),
                }
            }
        };
        let _ = parameter.f_add_(&update.f_mul_scalar(-step.learning_rate)?)?;
        Ok(())
    }

    pub fn state(&self) -> Vec<(String, &Tensor)> {
        self.momentum.iter().map(|momentum| ("momentum_buffer".to_owned(), &momentum.buffer)).collect()
    }
}
