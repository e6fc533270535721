//! Muon (Jordan et al. 2024, <https://kellerjordan.github.io/posts/muon>), step for step as `torch.optim.Muon` computes it.

use finetuned_protocol::optimization::{MuonScale, MuonSpec};
use finetuned_torch::{Kind, Tensor};

use super::Step;
use crate::error::ModelError;

/// Of the quintic iteration `a x + b x^3 + c x^5` that drives singular values towards one (Jordan et al. 2024).
const COEFFICIENTS: [f64; 3] = [3.4445, -4.7750, 2.0315];
const LEAST_NORM: f64 = 1e-7;
/// Parts of names of what is no matrix between hidden states: vocabulary, positions, virtual tokens.
const NOT_OF_A_LAYER: [&str; 7] =
    ["embed_tokens", "lm_head", "wte", "wpe", "embed_in", "embed_out", "prompt_embeddings"];

#[derive(Debug)]
pub(super) struct Muon {
    spec: MuonSpec,
    /// Running mean of the gradient.
    buffer: Tensor,
}

/// Whether a parameter is what Muon is for; AdamW moves the rest.
pub(super) fn is_matrix_of_a_layer(name: &str, parameter: &Tensor) -> bool {
    let is_matrix = parameter.dim() == 2 && parameter.size().iter().all(|&size| size > 1);
    is_matrix && !name.split('.').any(|part| NOT_OF_A_LAYER.contains(&part))
}

impl Muon {
    pub fn new(parameter: &Tensor, spec: MuonSpec) -> Result<Self, ModelError> {
        Ok(Self { spec, buffer: parameter.f_zeros_like()? })
    }

    pub fn step(&mut self, parameter: &mut Tensor, step: &Step) -> Result<(), ModelError> {
        let MuonSpec { momentum, nesterov, newton_schulz_steps, scale, rest: _ } = self.spec;
        let _ = self.buffer.f_lerp_(step.gradient, 1.0 - momentum)?;
        let update = match nesterov {
            true => step.gradient.f_lerp(&self.buffer, momentum)?,
            false => self.buffer.shallow_clone(),
        };
        // PyTorch iterates in bf16, which a CPU would only emulate.
        let kind = if parameter.device().is_cuda() { Kind::BFloat16 } else { Kind::Float };
        let update = orthogonalised(&update.f_to_kind(kind)?, newton_schulz_steps)?.f_to_kind(Kind::Float)?;
        let (outputs, inputs) = parameter.size2()?;
        let shape = match scale {
            MuonScale::MatchRmsAdamw => 0.2 * (outputs.max(inputs) as f64).sqrt(),
            MuonScale::Original => (outputs as f64 / inputs as f64).max(1.0).sqrt(),
        };
        let _ = parameter.f_mul_scalar_(1.0 - step.learning_rate * step.weight_decay)?;
        let _ = parameter.f_add_(&update.f_mul_scalar(-step.learning_rate * shape)?)?;
        Ok(())
    }

    pub fn state(&self) -> Vec<(String, &Tensor)> {
        vec![("momentum_buffer".to_owned(), &self.buffer)]
    }
}

/// About the nearest matrix with orthonormal rows or columns: the singular vectors stay, and the singular values come near
/// one.
fn orthogonalised(matrix: &Tensor, steps: u32) -> Result<Tensor, ModelError> {
    let [a, b, c] = COEFFICIENTS;
    let (rows, columns) = matrix.size2()?;
    let is_tall = rows > columns;
    let x = if is_tall { matrix.f_tr()? } else { matrix.shallow_clone() };
    let norm = x.f_flatten(0, -1)?.f_linalg_norm(2.0, None::<i64>, false, None)?.f_clamp_min(LEAST_NORM)?;
    let mut x = x.f_div(&norm)?;
    for _ in 0..steps {
        let gram = x.f_matmul(&x.f_tr()?)?;
        let polynomial = gram.f_mul_scalar(b)?.f_add(&gram.f_matmul(&gram)?.f_mul_scalar(c)?)?;
        x = x.f_mul_scalar(a)?.f_add(&polynomial.f_matmul(&x)?)?;
    }
    Ok(if is_tall { x.f_tr()? } else { x })
}

#[cfg(test)]
mod tests {
    use super::*;
    use finetuned_torch::Device;

    #[test]
    fn vocabulary_vectors_and_virtual_tokens_are_not_for_muon() {
        let of =
            |name: &str, shape: &[i64]| is_matrix_of_a_layer(name, &Tensor::zeros(shape, (Kind::Float, Device::Cpu)));
        assert!(of("model.layers.0.mlp.up_proj.weight", &[8, 4]));
        assert!(of("base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight", &[2, 8]));
        assert!(!of("base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector", &[8]));
        assert!(!of("base_model.model.model.layers.0.mlp.down_proj.ia3_l", &[1, 8]));
        for name in ["model.embed_tokens.weight", "lm_head.weight", "transformer.wpe.weight", "prompt_embeddings"] {
            assert!(!of(name, &[8, 4]), "{name}");
        }
    }

    #[test]
    fn singular_values_come_near_one_and_vectors_stay() {
        for shape in [[12, 30], [30, 12]] {
            let matrix = crate::test_support::pseudo_random(&shape, 5);
            // The nearest orthonormal matrix keeps the singular vectors and sets every value to one.
            let (u, _, v) = matrix.svd(true, true);
            for kind in [Kind::Float, Kind::BFloat16] {
                let Ok(x) = orthogonalised(&matrix.to_kind(kind), 5) else { panic!("{shape:?}") };
                let values = u.tr().matmul(&x.to_kind(Kind::Float)).matmul(&v);
                let (diagonal, rest) = (values.diag(0), &values - values.diag(0).diag(0));
                let (least, most) = (diagonal.min().double_value(&[]), diagonal.max().double_value(&[]));
                // The range that Jordan et al. give for their coefficients.
                assert!(least > 0.5 && most < 1.5, "{kind:?} {shape:?}: {least} to {most}");
                let allowed = if kind == Kind::Float { 1e-5 } else { 0.05 };
                let largest = rest.abs().max().double_value(&[]);
                assert!(largest < allowed, "{kind:?} {shape:?}: {largest}");
            }
        }
    }
}
