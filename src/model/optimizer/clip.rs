//! Clipping by the norm of all gradients.

use finetuned_torch::{Tensor, tch};

use crate::error::ModelError;

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
