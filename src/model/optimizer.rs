//! AdamW whose state can be saved, and clipping by norm.

use std::collections::HashMap;

use finetuned_protocol::spec::OptimizerSpec;
use finetuned_torch::{Tensor, tch};

use crate::error::ModelError;

/// Adam with decoupled weight decay on every tensor (Loshchilov & Hutter 2019), step for step as `torch.optim.AdamW`
/// computes it.
#[derive(Debug)]
pub struct AdamW {
    betas: [f64; 2],
    epsilon: f64,
    weight_decay: f64,
    steps: u32,
    slots: Vec<Slot>,
}

#[derive(Debug)]
struct Slot {
    name: String,
    parameter: Tensor,
    /// Its learning rate over that of the step.
    rate_ratio: f64,
    /// Running mean of the gradient.
    exp_avg: Tensor,
    /// Running mean of its square.
    exp_avg_sq: Tensor,
}

impl AdamW {
    /// # Errors
    /// Too little memory for the moments.
    pub fn new(parameters: Vec<(String, Tensor)>, spec: &OptimizerSpec) -> Result<Self, ModelError> {
        let slots = parameters.into_iter().map(|(name, parameter)| {
            let zeros = || tch::no_grad(|| parameter.f_zeros_like());
            Ok(Slot { exp_avg: zeros()?, exp_avg_sq: zeros()?, name, parameter, rate_ratio: 1.0 })
        });
        Ok(Self {
            betas: spec.betas,
            epsilon: spec.epsilon,
            weight_decay: spec.weight_decay,
            steps: 0,
            slots: slots.collect::<Result<_, ModelError>>()?,
        })
    }

    /// Lets parameters learn faster or slower than the rest: `ratio` gives each one's factor of the learning rate, by
    /// which its weight decay goes too.
    #[must_use]
    pub fn with_rate_ratios(mut self, ratio: impl Fn(&str) -> f64) -> Self {
        for slot in &mut self.slots {
            slot.rate_ratio = ratio(&slot.name);
        }
        self
    }

    /// Steps taken.
    pub fn steps(&self) -> u32 {
        self.steps
    }

    /// Changes every parameter that has a gradient.
    ///
    /// # Errors
    /// Too little memory.
    pub fn step(&mut self, learning_rate: f64) -> Result<(), ModelError> {
        let _detached = tch::no_grad_guard();
        self.steps += 1;
        let corrections = self.betas.map(|beta| 1.0 - beta.powi(self.steps as i32));
        for slot in &mut self.slots {
            let gradient = slot.parameter.f_grad()?;
            if !gradient.defined() {
                continue;
            }
            let learning_rate = learning_rate * slot.rate_ratio;
            let _ = slot.parameter.f_mul_scalar_(1.0 - learning_rate * self.weight_decay)?;
            let _ = slot.exp_avg.f_lerp_(&gradient, 1.0 - self.betas[0])?;
            let scaled = gradient.f_mul_scalar(1.0 - self.betas[1])?;
            let _ = slot.exp_avg_sq.f_mul_scalar_(self.betas[1])?.f_addcmul_(&scaled, &gradient)?;
            let mut divisor = slot.exp_avg_sq.f_sqrt()?;
            let _ = divisor.f_div_scalar_(corrections[1].sqrt())?.f_add_scalar_(self.epsilon)?;
            let update = slot.exp_avg.f_mul_scalar(-learning_rate / corrections[0])?;
            let _ = slot.parameter.f_addcdiv_(&update, &divisor)?;
        }
        Ok(())
    }

    /// Forgets the gradients.
    pub fn zero_grad(&mut self) {
        for slot in &mut self.slots {
            slot.parameter.zero_grad();
        }
    }

    /// The moments, named `PARAMETER.exp_avg` and `PARAMETER.exp_avg_sq`; the tensors are the optimiser's own.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        let slots = self.slots.iter();
        slots
            .flat_map(|slot| {
                let name = &slot.name;
                [
                    (format!("{name}.exp_avg"), slot.exp_avg.shallow_clone()),
                    (format!("{name}.exp_avg_sq"), slot.exp_avg_sq.shallow_clone()),
                ]
            })
            .collect()
    }

    /// Takes up where [`Self::state`] was taken, after `steps` steps.
    ///
    /// # Errors
    /// A state of other parameters; all that is missing or misshapen is listed.
    pub fn load_state(&mut self, steps: u32, state: Vec<(String, Tensor)>) -> Result<(), ModelError> {
        let _detached = tch::no_grad_guard();
        let mut state: HashMap<String, Tensor> = state.into_iter().collect();
        let mut problems = Vec::new();
        for slot in &mut self.slots {
            for (moment, kept) in [("exp_avg", &mut slot.exp_avg), ("exp_avg_sq", &mut slot.exp_avg_sq)] {
                match state.remove(&format!("{}.{moment}", slot.name)) {
                    Some(tensor) if tensor.size() == kept.size() => kept.f_copy_(&tensor)?,
                    Some(_) => problems.push(format!("the optimiser's `{}.{moment}` has another shape", slot.name)),
                    None => problems.push(format!("the optimiser's `{}.{moment}` is missing", slot.name)),
                }
            }
        }
        problems.extend(state.keys().map(|name| format!("the optimiser's `{name}` belongs to no parameter")));
        if !problems.is_empty() {
            problems.sort_unstable();
            return Err(ModelError::Adapter { problems });
        }
        self.steps = steps;
        Ok(())
    }
}

/// Norm of all gradients together, as `torch.nn.utils.clip_grad_norm_` computes it; NaN or infinite where a gradient
/// is.
///
/// # Errors
/// Too little memory.
pub fn gradient_norm(parameters: &[(String, Tensor)]) -> Result<f64, ModelError> {
    let _detached = tch::no_grad_guard();
    let mut norms = Vec::with_capacity(parameters.len());
    for (_, parameter) in parameters {
        let gradient = parameter.f_grad()?;
        if gradient.defined() {
            norms.push(gradient.f_flatten(0, -1)?.f_linalg_norm(2.0, None::<i64>, false, None)?);
        }
    }
    if norms.is_empty() {
        return Ok(0.0);
    }
    Ok(Tensor::f_stack(&norms, 0)?.f_linalg_norm(2.0, None::<i64>, false, None)?.f_double_value(&[])?)
}

/// Scales all gradients down to `max_norm` where theirs, `norm`, is larger (Pascanu et al. 2013).
///
/// # Errors
/// Too little memory.
pub fn clip_gradients(parameters: &[(String, Tensor)], norm: f64, max_norm: f64) -> Result<(), ModelError> {
    let _detached = tch::no_grad_guard();
    let coefficient = max_norm / (norm + 1e-6);
    if coefficient >= 1.0 {
        return Ok(());
    }
    for (_, parameter) in parameters {
        let mut gradient = parameter.f_grad()?;
        if gradient.defined() {
            let _ = gradient.f_mul_scalar_(coefficient)?;
        }
    }
    Ok(())
}
