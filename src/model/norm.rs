//! Normalisations over the last dimension, with statistics in f32.

use finetuned_torch::{Kind, Tensor};

use crate::error::ModelError;

/// The norm of an architecture.
#[derive(Debug)]
pub(crate) enum Norm {
    /// Root mean square (Zhang & Sennrich 2019): `x / sqrt(mean(x^2) + epsilon) * weight`.
    Rms { weight: Tensor, epsilon: f64 },
    /// The same with a weight that is stored as its difference from one, and multiplied before rounding.
    RmsFromOne { weight: Tensor, epsilon: f64 },
    /// Mean and variance (Ba et al. 2016): `(x - mean) / sqrt(variance + epsilon) * weight + bias`.
    Layer { weight: Tensor, bias: Tensor, epsilon: f64 },
}

impl Norm {
    /// Weights and biases are `[features]`, `x` is `[.., features]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor, ModelError> {
        let kind = x.f_kind()?;
        match self {
            Self::Rms { weight, epsilon } => Ok(root_mean_square(x, *epsilon)?.f_to_kind(kind)?.f_mul(weight)?),
            Self::RmsFromOne { weight, epsilon } => {
                let weight = weight.f_to_kind(Kind::Float)?.f_add_scalar(1.0)?;
                Ok(root_mean_square(x, *epsilon)?.f_mul(&weight)?.f_to_kind(kind)?)
            }
            Self::Layer { weight, bias, epsilon } => {
                Ok(x.f_layer_norm(weight.size(), Some(weight), Some(bias), *epsilon, true)?)
            }
        }
    }
}

/// `x / sqrt(mean(x^2) + epsilon)`, f32.
fn root_mean_square(x: &Tensor, epsilon: f64) -> Result<Tensor, ModelError> {
    let features = *x.size().last().unwrap_or(&1) as f64;
    let x = x.f_to_kind(Kind::Float)?;
    // One pass over x, where squaring and averaging would take two and keep a tensor of x's size for the backward.
    let norm = x.f_linalg_norm(2.0, [-1_i64].as_slice(), true, None)?; // [.., 1]
    let scale = norm.f_square()?.f_div_scalar(features)?.f_add_scalar(epsilon)?.f_rsqrt()?;
    Ok(x.f_mul(&scale)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn rms(weight: Tensor) -> Norm {
        Norm::Rms { weight, epsilon: 1e-5 }
    }

    #[test]
    fn equals_its_formula_and_so_does_its_gradient() {
        let data: Vec<f64> = (0..24).map(|i| f64::from((i * 37) % 11) / 3.0 - 1.5).collect();
        let weight = Tensor::from_slice(&[0.5_f32, 1.0, 1.5, 2.0, -1.0, 0.1]);
        let bias = Tensor::from_slice(&[0.5_f32, -1.0, 0.0, 2.0, 1.0, 0.3]);
        let from_one = Norm::RmsFromOne { weight: &weight - 1.0, epsilon: 1e-5 };
        let layer = Norm::Layer { weight: weight.shallow_clone(), bias: bias.shallow_clone(), epsilon: 1e-5 };
        for (norm, centred) in [(rms(weight.shallow_clone()), false), (from_one, false), (layer, true)] {
            let x = Tensor::from_slice(&data).to_kind(Kind::Float).reshape([4, 6]).set_requires_grad(true);
            let y = norm.forward(&x).unwrap();
            (&y * &y).sum(Kind::Float).backward();
            let z = Tensor::from_slice(&data).reshape([4, 6]).set_requires_grad(true);
            let mean = z.mean_dim([-1].as_slice(), true, Kind::Double) * i64::from(centred);
            let spread = (&z - &mean).square().mean_dim([-1].as_slice(), true, Kind::Double);
            let scaled = (&z - &mean) / (spread + 1e-5).sqrt() * weight.to_kind(Kind::Double);
            let expected = scaled + bias.to_kind(Kind::Double) * i64::from(centred);
            (&expected * &expected).sum(Kind::Double).backward();
            assert!((y - expected).abs().max().double_value(&[]) < 2e-6, "{norm:?}");
            assert!((x.grad() - z.grad()).abs().max().double_value(&[]) < 2e-5, "{norm:?}");
        }
    }

    #[test]
    fn a_row_of_zeros_stays_finite() {
        let x = Tensor::zeros([1, 4], (Kind::Float, finetuned_torch::Device::Cpu)).set_requires_grad(true);
        rms(Tensor::ones([4], (Kind::Float, x.device()))).forward(&x).unwrap().sum(Kind::Float).backward();
        assert!(x.grad().isfinite().all().int64_value(&[]) == 1);
    }
}
