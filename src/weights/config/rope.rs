//! Rotary position embedding: base and scaling, in both spellings.

use super::fields::Fields;
use crate::error::WeightsError;

/// How rotary frequencies are stretched beyond the context a model was first trained for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RopeScaling {
    /// `1 / theta^(2i/d)`, nothing more.
    Default,
    /// Every frequency divided by `factor`.
    Linear { factor: f64 },
    /// Llama 3.1's: long wavelengths divided by `factor`, short ones kept, a ramp between.
    Llama3 { factor: f64, low_freq_factor: f64, high_freq_factor: f64, original_max_position_embeddings: u32 },
    /// YaRN (Peng et al. 2023).
    Yarn {
        factor: f64,
        beta_fast: f64,
        beta_slow: f64,
        original_max_position_embeddings: u32,
        /// Factor on cos and sin, settled: `0.1 ln(factor) + 1` unless the config says otherwise.
        attention_factor: f64,
        /// Whether the ramp's bounds are rounded to whole dimensions.
        truncate: bool,
    },
}

/// Rotary position embedding over the whole head.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RopeConfig {
    pub theta: f64,
    pub scaling: RopeScaling,
}

const DEFAULT_THETA: f64 = 10_000.0;
const KINDS: &str = "default, linear, llama3, yarn";

/// `rope_parameters`, or else `rope_theta` and `rope_scaling`.
pub(super) fn read(fields: &Fields<'_>, max_positions: u32) -> Result<RopeConfig, WeightsError> {
    let outer_theta = fields.maybe_f64("rope_theta")?;
    let (prefix, map) = match fields.maybe_map("rope_parameters")? {
        Some(map) => ("rope_parameters.", Some(map)),
        None => ("rope_scaling.", fields.maybe_map("rope_scaling")?),
    };
    let Some(map) = map else {
        return Ok(RopeConfig { theta: outer_theta.unwrap_or(DEFAULT_THETA), scaling: RopeScaling::Default });
    };
    let inner = Fields::new(prefix, map);
    let theta = inner.maybe_f64("rope_theta")?.or(outer_theta).unwrap_or(DEFAULT_THETA);
    if inner.maybe_f64("partial_rotary_factor")?.is_some_and(|share| share != 1.0) {
        return Err(WeightsError::config(inner.name("partial_rotary_factor"), "other than 1 is not implemented"));
    }
    Ok(RopeConfig { theta, scaling: scaling(&inner, max_positions)? })
}

fn scaling(inner: &Fields<'_>, max_positions: u32) -> Result<RopeScaling, WeightsError> {
    let kind = match inner.maybe_text("rope_type")? {
        Some(kind) => kind,
        None => inner.maybe_text("type")?.unwrap_or_else(|| "default".to_owned()),
    };
    let (read, knows): (RopeScaling, &[&str]) = match kind.as_str() {
        "default" => (RopeScaling::Default, &[]),
        "linear" => (RopeScaling::Linear { factor: inner.f64("factor")? }, &["factor"]),
        "llama3" => (llama3(inner)?, &["factor", "low_freq_factor", "high_freq_factor", ORIGINAL]),
        "yarn" => (yarn(inner, max_positions)?, YARN_FIELDS),
        other => return Err(WeightsError::unsupported(format!("field `{}`", inner.name("rope_type")), other, KINDS)),
    };
    let common = ["rope_type", "type", "rope_theta", "partial_rotary_factor"];
    match inner
        .keys()
        .find(|key| inner.get(key).is_some() && !knows.contains(&key.as_str()) && !common.contains(&key.as_str()))
    {
        Some(key) => {
            Err(WeightsError::config(inner.name(key), format!("is not implemented for rotary scaling `{kind}`")))
        }
        None => Ok(read),
    }
}

const ORIGINAL: &str = "original_max_position_embeddings";
const YARN_FIELDS: &[&str] =
    &["factor", "beta_fast", "beta_slow", ORIGINAL, "attention_factor", "mscale", "mscale_all_dim", "truncate"];

fn llama3(inner: &Fields<'_>) -> Result<RopeScaling, WeightsError> {
    Ok(RopeScaling::Llama3 {
        factor: inner.f64("factor")?,
        low_freq_factor: inner.f64("low_freq_factor")?,
        high_freq_factor: inner.f64("high_freq_factor")?,
        original_max_position_embeddings: inner.u32(ORIGINAL)?,
    })
}

fn yarn(inner: &Fields<'_>, max_positions: u32) -> Result<RopeScaling, WeightsError> {
    let factor = inner.f64("factor")?;
    let attention_factor = match inner.maybe_f64("attention_factor")? {
        Some(given) => given,
        None => match (inner.maybe_f64("mscale")?, inner.maybe_f64("mscale_all_dim")?) {
            // Zero counts as absent there, as in transformers.
            (Some(one), Some(all)) if one != 0.0 && all != 0.0 => {
                yarn_attention_factor(factor, one) / yarn_attention_factor(factor, all)
            }
            _ => yarn_attention_factor(factor, 1.0),
        },
    };
    Ok(RopeScaling::Yarn {
        factor,
        beta_fast: inner.maybe_f64("beta_fast")?.unwrap_or(32.0),
        beta_slow: inner.maybe_f64("beta_slow")?.unwrap_or(1.0),
        original_max_position_embeddings: inner.maybe_u32(ORIGINAL)?.unwrap_or(max_positions),
        attention_factor,
        truncate: inner.maybe_bool("truncate")?.unwrap_or(true),
    })
}

/// Equation 22 of the YaRN paper: `0.1 m ln(factor) + 1`, and 1 where nothing is stretched.
pub(crate) fn yarn_attention_factor(factor: f64, mscale: f64) -> f64 {
    if factor <= 1.0 { 1.0 } else { 0.1 * mscale * factor.ln() + 1.0 }
}

impl RopeConfig {
    pub(super) fn check(&self) -> Result<(), WeightsError> {
        let positive = |field: &str, value: f64| match value > 0.0 && value.is_finite() {
            true => Ok(()),
            false => Err(WeightsError::config(field, format!("must be a number above 0; it is {value}"))),
        };
        positive("rope_theta", self.theta)?;
        match self.scaling {
            RopeScaling::Default => Ok(()),
            RopeScaling::Linear { factor } => positive("rope factor", factor),
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position_embeddings } => {
                positive("rope factor", factor)?;
                positive("rope low_freq_factor", low_freq_factor)?;
                positive("rope high_freq_factor - low_freq_factor", high_freq_factor - low_freq_factor)?;
                positive("rope original_max_position_embeddings", original_max_position_embeddings.into())
            }
            RopeScaling::Yarn {
                factor,
                beta_fast,
                beta_slow,
                original_max_position_embeddings,
                attention_factor,
                ..
            } => {
                positive("rope factor", factor)?;
                positive("rope beta_fast", beta_fast)?;
                positive("rope beta_slow", beta_slow)?;
                positive("rope attention_factor", attention_factor)?;
                positive("rope original_max_position_embeddings", original_max_position_embeddings.into())
            }
        }
    }
}
