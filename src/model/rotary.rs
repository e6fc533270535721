//! Rotary position embedding (Su et al. 2021) and its stretched variants.

use std::f64::consts::TAU;

use finetuned_torch::{Device, Kind, Tensor};
use finetuned_weights::{RopeConfig, RopeScaling};

use crate::error::ModelError;

/// Frequencies of a model.
#[derive(Debug)]
pub(crate) struct Rotary {
    /// `[head_dim / 2]`, f32, radians a position.
    frequencies: Tensor,
    /// Factor on cos and sin; one but for YaRN.
    attention_factor: f64,
}

/// The rotations of given positions, computed once a forward pass.
pub(crate) struct Rotation {
    /// `[tokens, 1, head_dim / 2]`, complex: `attention_factor * exp(i * angle)`.
    turns: Tensor,
}

impl Rotary {
    pub fn new(config: &RopeConfig, head_dim: i64, device: Device) -> Result<Self, ModelError> {
        let exponents = Tensor::f_arange_start_step(0, head_dim, 2, (Kind::Float, Device::Cpu))?;
        // [head_dim / 2]: theta^(2i/d), in f32 as every implementation has it.
        let periods = Tensor::f_pow_scalar(config.theta, &exponents.f_div_scalar(head_dim as f64)?)?;
        let plain = periods.f_reciprocal()?;
        let (frequencies, attention_factor) = match config.scaling {
            RopeScaling::Default => (plain, 1.0),
            RopeScaling::Linear { factor } => (plain.f_div_scalar(factor)?, 1.0),
            RopeScaling::Llama3 { .. } => (llama3(&plain, config.scaling)?, 1.0),
            RopeScaling::Yarn { attention_factor, .. } => (yarn(&periods, config, head_dim)?, attention_factor),
        };
        Ok(Self { frequencies: frequencies.f_to_device(device)?, attention_factor })
    }

    /// Rotations of `positions`, `[tokens]`.
    pub fn at(&self, positions: &Tensor) -> Result<Rotation, ModelError> {
        let angles = positions.f_to_kind(Kind::Float)?.f_unsqueeze(-1)?.f_mul(&self.frequencies)?; // [tokens, d/2]
        let radius = angles.f_full_like(self.attention_factor)?;
        Ok(Rotation { turns: Tensor::f_polar(&radius, &angles)?.f_unsqueeze(1)? })
    }
}

impl Rotation {
    /// Rotates queries or keys, `[tokens, heads, head_dim]`. Component `i` pairs with `i + head_dim / 2`, as in Hugging
    /// Face's checkpoints. The result holds each pair side by side: another order of components than it came in, the
    /// same for queries and keys, so their products are what they should be.
    pub fn apply(&self, x: &Tensor) -> Result<Tensor, ModelError> {
        let kind = x.f_kind()?;
        let halves = x.f_to_kind(Kind::Float)?.f_chunk(2, -1)?;
        let [first, second] = halves.as_slice() else {
            return Err(ModelError::Batch("a head has no second half to rotate".to_owned()));
        };
        let turned = Tensor::f_complex(first, second)?.f_mul(&self.turns)?; // [tokens, heads, d/2]
        Ok(turned.f_view_as_real()?.f_flatten(-2, -1)?.f_to_kind(kind)?)
    }

    /// Keys that are rotated already, `[.., head_dim]` in the order of Hugging Face's checkpoints, in the order in which
    /// [`Self::apply`] leaves the others.
    pub fn reorder(&self, keys: &Tensor) -> Result<Tensor, ModelError> {
        let halves = keys.f_chunk(2, -1)?;
        Ok(Tensor::f_stack(&halves, -1)?.f_flatten(-2, -1)?)
    }
}

/// Llama 3.1: wavelengths beyond the old context are divided by the factor, short ones stay, a ramp between.
fn llama3(plain: &Tensor, scaling: RopeScaling) -> Result<Tensor, ModelError> {
    let RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position_embeddings } = scaling
    else {
        return Ok(plain.shallow_clone());
    };
    let old_context = f64::from(original_max_position_embeddings);
    let wavelengths = plain.f_reciprocal()?.f_mul_scalar(TAU)?;
    let turns = wavelengths.f_reciprocal()?.f_mul_scalar(old_context)?; // full turns within the old context
    let smooth =
        turns.f_sub_scalar(low_freq_factor)?.f_div_scalar(high_freq_factor - low_freq_factor)?.f_clamp(0.0, 1.0)?;
    let stretched = plain.f_div_scalar(factor)?;
    // lerp(stretched, plain, smooth): 0 beyond the low bound, 1 below the high one.
    Ok(stretched.f_lerp_tensor(plain, &smooth)?)
}

/// YaRN (Peng et al. 2023, "NTK-by-parts"): dimensions that turn often keep their frequency, those that turn seldom are
/// interpolated, with a ramp between the dimensions that make `beta_fast` and `beta_slow` turns in the old context.
fn yarn(periods: &Tensor, config: &RopeConfig, head_dim: i64) -> Result<Tensor, ModelError> {
    let RopeScaling::Yarn { factor, beta_fast, beta_slow, original_max_position_embeddings, truncate, .. } =
        config.scaling
    else {
        return Ok(periods.f_reciprocal()?);
    };
    let dim = head_dim as f64;
    let old_context = f64::from(original_max_position_embeddings);
    let dimension_of = |turns: f64| dim * (old_context / (turns * TAU)).ln() / (2.0 * config.theta.ln());
    let (low, high) = (dimension_of(beta_fast), dimension_of(beta_slow));
    let (low, high) = if truncate { (low.floor(), high.ceil()) } else { (low, high) };
    let (low, high) = (low.max(0.0), high.min(dim - 1.0));
    let width = if high == low { 0.001 } else { high - low };
    let index = Tensor::f_arange(head_dim / 2, (Kind::Float, Device::Cpu))?;
    let ramp = index.f_sub_scalar(low)?.f_div_scalar(width)?.f_clamp(0.0, 1.0)?; // 1 where interpolated
    let plain = periods.f_reciprocal()?;
    let stretched = periods.f_mul_scalar(factor)?.f_reciprocal()?;
    Ok(plain.f_lerp_tensor(&stretched, &ramp)?)
}
