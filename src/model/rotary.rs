//! Rotary position embedding (Su et al. 2021) and its stretched variants.

use std::f64::consts::TAU;

use finetuned_torch::{Device, Kind, Tensor};
use finetuned_weights::{RopeConfig, RopeScaling};

use crate::error::ModelError;

/// Frequencies of one kind of layer.
#[derive(Debug)]
pub(crate) struct Rotary {
    /// `[dim / 2]`, f32, radians a position.
    frequencies: Tensor,
    /// Other frequencies for longer texts.
    beyond: Option<Beyond>,
    /// Factor on cos and sin; one but for YaRN and LongRoPE.
    attention_factor: f64,
    /// Components of a head that are rotated.
    dim: i64,
}

/// Frequencies of texts that are longer than the context a model was first trained for.
#[derive(Debug)]
struct Beyond {
    /// Tokens of the longest text that has the usual frequencies.
    tokens: i64,
    /// `[dim / 2]`
    frequencies: Tensor,
}

/// The rotations of given positions, computed once a forward pass.
pub(crate) struct Rotation {
    /// `[tokens, 1, dim / 2]`, complex: `attention_factor * exp(i * angle)`.
    turns: Tensor,
    dim: i64,
}

impl Rotary {
    pub fn new(config: &RopeConfig, device: Device) -> Result<Self, ModelError> {
        let dim = i64::from(config.dim);
        let exponents = Tensor::f_arange_start_step(0, dim, 2, (Kind::Float, Device::Cpu))?;
        // [dim / 2]: theta^(2i/d), in f32 as every implementation has it.
        let periods = Tensor::f_pow_scalar(config.theta, &exponents.f_div_scalar(dim as f64)?)?;
        let plain = periods.f_reciprocal()?;
        let mut beyond = None;
        let (frequencies, attention_factor) = match &config.scaling {
            RopeScaling::Default => (plain, 1.0),
            RopeScaling::Linear { factor } => (plain.f_div_scalar(*factor)?, 1.0),
            RopeScaling::Llama3 { .. } => (llama3(&plain, &config.scaling)?, 1.0),
            RopeScaling::Yarn { attention_factor, .. } => (yarn(&periods, config)?, *attention_factor),
            RopeScaling::LongRope { short_factor, long_factor, original_max_position_embeddings, attention_factor } => {
                let tokens = i64::from(*original_max_position_embeddings);
                let frequencies = divided(&periods, long_factor)?.f_to_device(device)?;
                beyond = Some(Beyond { tokens, frequencies });
                (divided(&periods, short_factor)?, *attention_factor)
            }
        };
        Ok(Self { frequencies: frequencies.f_to_device(device)?, beyond, attention_factor, dim })
    }

    /// Rotations of `positions`, `[tokens]`, in texts of `lengths` tokens, `[tokens]`.
    pub fn at(&self, positions: &Tensor, lengths: &Tensor) -> Result<Rotation, ModelError> {
        let frequencies = match &self.beyond {
            None => self.frequencies.shallow_clone(),
            Some(beyond) => {
                let is_long = lengths.f_gt(beyond.tokens)?.f_unsqueeze(-1)?; // [tokens, 1]
                beyond.frequencies.f_where_self(&is_long, &self.frequencies)?
            }
        };
        let angles = positions.f_to_kind(Kind::Float)?.f_unsqueeze(-1)?.f_mul(&frequencies)?; // [tokens, dim/2]
        let radius = angles.f_full_like(self.attention_factor)?;
        Ok(Rotation { turns: Tensor::f_polar(&radius, &angles)?.f_unsqueeze(1)?, dim: self.dim })
    }

    /// Tokens of the longest text whose rotations stay as they are when it grows by one, where there is such a limit:
    /// beyond it, keys that are kept have to be computed anew.
    pub fn holds_up_to(&self) -> Option<i64> {
        self.beyond.as_ref().map(|beyond| beyond.tokens)
    }
}

impl Rotation {
    /// Rotates queries or keys, `[tokens, heads, head_dim]`. Component `i` pairs with `i + dim / 2`, as in Hugging
    /// Face's checkpoints. The result holds each pair side by side: another order of components than it came in, the
    /// same for queries and keys, so their products are what they should be. What lies beyond `dim` stays as it is.
    pub fn apply(&self, x: &Tensor) -> Result<Tensor, ModelError> {
        let kind = x.f_kind()?;
        let rest = x.size3()?.2 - self.dim;
        let rotated = if rest == 0 { x.shallow_clone() } else { x.f_narrow(-1, 0, self.dim)? };
        let halves = rotated.f_to_kind(Kind::Float)?.f_chunk(2, -1)?;
        let [first, second] = halves.as_slice() else {
            return Err(ModelError::Batch("a head has no second half to rotate".to_owned()));
        };
        let turned = Tensor::f_complex(first, second)?.f_mul(&self.turns)?; // [tokens, heads, dim/2]
        let turned = turned.f_view_as_real()?.f_flatten(-2, -1)?.f_to_kind(kind)?;
        if rest == 0 { Ok(turned) } else { Ok(Tensor::f_cat(&[turned, x.f_narrow(-1, self.dim, rest)?], -1)?) }
    }

    /// Keys that are rotated already, `[tokens, heads, head_dim]` in the order of Hugging Face's checkpoints, in the order
    /// in which [`Self::apply`] leaves the others.
    pub fn reorder(&self, keys: &Tensor) -> Result<Tensor, ModelError> {
        let rest = keys.size3()?.2 - self.dim;
        let pairs = Tensor::f_stack(&keys.f_narrow(-1, 0, self.dim)?.f_chunk(2, -1)?, -1)?.f_flatten(-2, -1)?;
        if rest == 0 { Ok(pairs) } else { Ok(Tensor::f_cat(&[pairs, keys.f_narrow(-1, self.dim, rest)?], -1)?) }
    }
}

/// `1 / (divisor * theta^(2i/d))`
fn divided(periods: &Tensor, divisors: &[f64]) -> Result<Tensor, ModelError> {
    Ok(Tensor::f_from_slice(divisors)?.f_to_kind(Kind::Float)?.f_mul(periods)?.f_reciprocal()?)
}

/// Llama 3.1: wavelengths beyond the old context are divided by the factor, short ones stay, a ramp between.
fn llama3(plain: &Tensor, scaling: &RopeScaling) -> Result<Tensor, ModelError> {
    let RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position_embeddings } = scaling
    else {
        return Ok(plain.shallow_clone());
    };
    let (factor, low_freq_factor, high_freq_factor) = (*factor, *low_freq_factor, *high_freq_factor);
    let old_context = f64::from(*original_max_position_embeddings);
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
fn yarn(periods: &Tensor, config: &RopeConfig) -> Result<Tensor, ModelError> {
    let RopeScaling::Yarn { factor, beta_fast, beta_slow, original_max_position_embeddings, truncate, .. } =
        &config.scaling
    else {
        return Ok(periods.f_reciprocal()?);
    };
    let dim = f64::from(config.dim);
    let old_context = f64::from(*original_max_position_embeddings);
    let dimension_of = |turns: f64| dim * (old_context / (turns * TAU)).ln() / (2.0 * config.theta.ln());
    let (low, high) = (dimension_of(*beta_fast), dimension_of(*beta_slow));
    let (low, high) = if *truncate { (low.floor(), high.ceil()) } else { (low, high) };
    let (low, high) = (low.max(0.0), high.min(dim - 1.0));
    let width = if high == low { 0.001 } else { high - low };
    let index = Tensor::f_arange(i64::from(config.dim / 2), (Kind::Float, Device::Cpu))?;
    let ramp = index.f_sub_scalar(low)?.f_div_scalar(width)?.f_clamp(0.0, 1.0)?; // 1 where interpolated
    let plain = periods.f_reciprocal()?;
    let stretched = periods.f_mul_scalar(*factor)?.f_reciprocal()?;
    Ok(plain.f_lerp_tensor(&stretched, &ramp)?)
}
