//! Adafactor (Shazeer & Stern 2018), step for step as `torch.optim.Adafactor` computes it.

use finetuned_protocol::optimization::AdafactorSpec;
use finetuned_torch::{Kind, Tensor};

use super::Step;
use crate::error::ModelError;

#[derive(Debug)]
pub(super) struct Adafactor {
    spec: AdafactorSpec,
    variance: Variance,
}

/// Running mean of the gradient's square.
#[derive(Debug)]
enum Variance {
    /// Of a matrix `[.., out, in]` only the means of its rows, `[.., out, 1]`, and of its columns, `[.., 1, in]`.
    Factored { rows: Tensor, columns: Tensor },
    /// Of a vector, every element's.
    Whole(Tensor),
}

impl Adafactor {
    pub fn new(parameter: &Tensor, spec: AdafactorSpec) -> Result<Self, ModelError> {
        let variance = if parameter.dim() < 2 {
            Variance::Whole(parameter.f_zeros_like()?)
        } else {
            let zeros = |dimension: i64| parameter.f_sum_dim_intlist(dimension, true, Kind::Float)?.f_zeros_like();
            Variance::Factored { rows: zeros(-1)?, columns: zeros(-2)? }
        };
        Ok(Self { spec, variance })
    }

    pub fn step(&mut self, parameter: &mut Tensor, step: &Step) -> Result<(), ModelError> {
        let spec = self.spec;
        let count = f64::from(step.count);
        let rate = step.learning_rate.min(1.0 / count.sqrt()) * root_mean_square(parameter)?.max(spec.epsilon_scale);
        let _ = parameter.f_mul_scalar_(1.0 - step.learning_rate * step.weight_decay)?;
        let square = self.variance.update(step.gradient, count.powf(spec.beta2_decay), spec.epsilon)?;
        let mut update = square.f_clamp_min(spec.epsilon * spec.epsilon)?.f_rsqrt()?;
        let _ = update.f_mul_(step.gradient)?;
        let excess = (root_mean_square(&update)? / spec.clipping_threshold).max(1.0);
        let _ = parameter.f_add_(&update.f_mul_scalar(-rate / excess)?)?;
        Ok(())
    }

    pub fn state(&self) -> Vec<(String, &Tensor)> {
        match &self.variance {
            Variance::Factored { rows, columns } => vec![("row_var".to_owned(), rows), ("col_var".to_owned(), columns)],
            Variance::Whole(variance) => vec![("variance".to_owned(), variance)],
        }
    }
}

impl Variance {
    /// Moves by the share `weight` towards the square of `gradient`; gives the estimate of every element.
    fn update(&mut self, gradient: &Tensor, weight: f64, epsilon: f64) -> Result<Tensor, ModelError> {
        let square = gradient.f_square()?;
        match self {
            Self::Factored { rows, columns } => {
                let mean = |dimension: i64| square.f_mean_dim(dimension, true, Kind::Float);
                let _ = rows.f_lerp_(&mean(-1)?, weight)?;
                let _ = columns.f_lerp_(&mean(-2)?, weight)?;
                let overall = rows.f_mean_dim(-2, true, Kind::Float)?.f_clamp_min(epsilon)?;
                Ok(rows.f_matmul(columns)?.f_div(&overall)?)
            }
            Self::Whole(variance) => {
                let _ = variance.f_lerp_(&square, weight)?;
                Ok(variance.shallow_clone())
            }
        }
    }
}

fn root_mean_square(tensor: &Tensor) -> Result<f64, ModelError> {
    let norm = tensor.f_flatten(0, -1)?.f_linalg_norm(2.0, None::<i64>, false, None)?.f_double_value(&[])?;
    Ok(norm / (tensor.numel() as f64).sqrt())
}
