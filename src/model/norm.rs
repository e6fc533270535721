//! Root mean square normalisation (Zhang & Sennrich 2019).

use finetuned_torch::{Kind, Tensor};

use crate::error::ModelError;

#[derive(Debug)]
pub(crate) struct RmsNorm {
    /// `[features]`
    pub weight: Tensor,
    pub epsilon: f64,
}

impl RmsNorm {
    /// `x / sqrt(mean(x^2) + epsilon) * weight`, over the last dimension; the statistics in f32.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor, ModelError> {
        let kind = x.f_kind()?;
        let features = *self.weight.size().last().unwrap_or(&1) as f64;
        let x = x.f_to_kind(Kind::Float)?;
        // One pass over x, where squaring and averaging would take two and keep a tensor of x's size for the backward.
        let norm = x.f_linalg_norm(2.0, [-1_i64].as_slice(), true, None)?; // [tokens, 1]
        let scale = norm.f_square()?.f_div_scalar(features)?.f_add_scalar(self.epsilon)?.f_rsqrt()?;
        Ok(x.f_mul(&scale)?.f_to_kind(kind)?.f_mul(&self.weight)?)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn equals_its_formula_and_so_does_its_gradient() {
        let data: Vec<f64> = (0..24).map(|i| f64::from((i * 37) % 11) / 3.0 - 1.5).collect();
        let x = Tensor::from_slice(&data).to_kind(Kind::Float).reshape([4, 6]).set_requires_grad(true);
        let weight = Tensor::from_slice(&[0.5_f32, 1.0, 1.5, 2.0, -1.0, 0.1]);
        let y = RmsNorm { weight: weight.shallow_clone(), epsilon: 1e-5 }.forward(&x).unwrap();
        (&y * &y).sum(Kind::Float).backward();
        let z = Tensor::from_slice(&data).reshape([4, 6]).set_requires_grad(true);
        let mean = z.square().mean_dim([-1].as_slice(), true, Kind::Double);
        let expected = &z / (mean + 1e-5).sqrt() * weight.to_kind(Kind::Double);
        (&expected * &expected).sum(Kind::Double).backward();
        assert!((y - expected).abs().max().double_value(&[]) < 1e-6);
        assert!((x.grad() - z.grad()).abs().max().double_value(&[]) < 1e-5);
    }

    #[test]
    fn a_row_of_zeros_stays_finite() {
        let x = Tensor::zeros([1, 4], (Kind::Float, finetuned_torch::Device::Cpu)).set_requires_grad(true);
        let norm = RmsNorm { weight: Tensor::ones([4], (Kind::Float, x.device())), epsilon: 1e-5 };
        norm.forward(&x).unwrap().sum(Kind::Float).backward();
        assert!(x.grad().isfinite().all().int64_value(&[]) == 1);
    }
}
