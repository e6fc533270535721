//! Rotary position embedding: base, share of the head and scaling, in both spellings.

use super::{common::CommonConfig, fields::Fields};
use crate::error::WeightsError;

/// How rotary frequencies are stretched beyond the context a model was first trained for.
#[derive(Debug, Clone, PartialEq)]
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
    /// LongRoPE (Ding et al. 2024): every frequency divided by a factor of its own.
    LongRope {
        /// Divisors for texts within the original context, lowest dimension first.
        short_factor: Vec<f64>,
        /// Divisors for longer texts.
        long_factor: Vec<f64>,
        original_max_position_embeddings: u32,
        /// Factor on cos and sin, settled.
        attention_factor: f64,
    },
}

/// Rotary position embedding of the first `dim` components of each head.
#[derive(Debug, Clone, PartialEq)]
pub struct RopeConfig {
    pub theta: f64,
    /// Rotated components, an even number.
    pub dim: u32,
    pub scaling: RopeScaling,
}

const KINDS: &str = "default, linear, llama3, yarn, longrope";

/// What a family takes for absent fields, and the sizes that they refer to.
pub(super) struct RopeDefaults {
    pub theta: f64,
    /// Share of a head that is rotated.
    pub share: f64,
    /// Whether the config may name another share; only some families heed it.
    pub share_is_free: bool,
    pub head_dim: u32,
    pub max_positions: u32,
    /// Context before it was stretched, where the config says so outside the rotary fields.
    pub original_max_positions: Option<u32>,
}

impl RopeDefaults {
    /// Llama's: the whole head with a base of 10,000.
    pub(super) fn of(common: &CommonConfig) -> Self {
        let (head_dim, max_positions) = (common.head_dim, common.max_position_embeddings);
        Self {
            theta: 10_000.0,
            share: 1.0,
            share_is_free: false,
            head_dim,
            max_positions,
            original_max_positions: None,
        }
    }
}

/// `rope_parameters`, or else `rope_theta` and `rope_scaling`.
pub(super) fn read(fields: &Fields<'_>, defaults: &RopeDefaults) -> Result<RopeConfig, WeightsError> {
    let defaults = &RopeDefaults {
        theta: fields.maybe_f64("rope_theta")?.unwrap_or(defaults.theta),
        share: fields.maybe_f64("partial_rotary_factor")?.unwrap_or(defaults.share),
        ..*defaults
    };
    let newer = fields.maybe_map("rope_parameters")?.map(|map| Fields::new("rope_parameters.", map));
    let older = fields.maybe_map("rope_scaling")?.map(|map| Fields::new("rope_scaling.", map));
    read_one(newer.or(older).as_ref(), defaults)
}

/// The rotary fields of one kind of layer; `inner` is the object that holds them, where there is one.
pub(super) fn read_one(inner: Option<&Fields<'_>>, defaults: &RopeDefaults) -> Result<RopeConfig, WeightsError> {
    let (theta, share, scaling) = match inner {
        None => (defaults.theta, defaults.share, RopeScaling::Default),
        Some(inner) => (
            inner.maybe_f64("rope_theta")?.unwrap_or(defaults.theta),
            inner.maybe_f64("partial_rotary_factor")?.unwrap_or(defaults.share),
            scaling(inner, defaults)?,
        ),
    };
    if share != 1.0 && !defaults.share_is_free {
        let reason = format!("is {share}, which is not implemented for this family");
        return Err(WeightsError::config("partial_rotary_factor", reason));
    }
    if !(share > 0.0 && share <= 1.0) {
        let reason = format!("must be above 0 and at most 1; it is {share}");
        return Err(WeightsError::config("partial_rotary_factor", reason));
    }
    // Cut off as transformers does.
    let dim = (f64::from(defaults.head_dim) * share) as u32;
    let rope = RopeConfig { theta, dim, scaling };
    rope.check()?;
    Ok(rope)
}

fn scaling(inner: &Fields<'_>, defaults: &RopeDefaults) -> Result<RopeScaling, WeightsError> {
    let (newer, older) = (inner.maybe_text("rope_type")?, inner.maybe_text("type")?);
    let kind = newer.or(older).unwrap_or_else(|| "default".to_owned());
    let read = match kind.as_str() {
        "default" => RopeScaling::Default,
        "linear" => RopeScaling::Linear { factor: inner.f64("factor")? },
        "llama3" => llama3(inner)?,
        "yarn" => yarn(inner, defaults.max_positions)?,
        "longrope" | "su" => longrope(inner, defaults)?,
        other => return Err(WeightsError::unsupported(format!("field `{}`", inner.name("rope_type")), other, KINDS)),
    };
    inner.refuse_unread(&format!("rotary scaling `{kind}`"))?;
    Ok(read)
}

const ORIGINAL: &str = "original_max_position_embeddings";

/// LongRoPE (Ding et al. 2024): one divisor a frequency, other ones beyond the original context.
fn longrope(inner: &Fields<'_>, defaults: &RopeDefaults) -> Result<RopeScaling, WeightsError> {
    let original = match inner.maybe_u32(ORIGINAL)?.or(defaults.original_max_positions) {
        Some(original) => original,
        None => return Err(WeightsError::config(inner.name(ORIGINAL), "is missing")),
    };
    let stretched = f64::from(defaults.max_positions) / f64::from(original);
    let factor = inner.maybe_f64("factor")?.unwrap_or(stretched);
    let attention_factor = match inner.maybe_f64("attention_factor")? {
        Some(given) => given,
        None if factor <= 1.0 => 1.0,
        None => (1.0 + factor.ln() / f64::from(original).ln()).sqrt(),
    };
    Ok(RopeScaling::LongRope {
        short_factor: inner.numbers("short_factor")?,
        long_factor: inner.numbers("long_factor")?,
        original_max_position_embeddings: original,
        attention_factor,
    })
}

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
    pub(crate) fn check(&self) -> Result<(), WeightsError> {
        if self.dim == 0 || !self.dim.is_multiple_of(2) {
            let reason = format!("must leave an even number of rotated dimensions; {} are", self.dim);
            return Err(WeightsError::config("head_dim", reason));
        }
        positive("rope_theta", self.theta)?;
        match &self.scaling {
            RopeScaling::Default => Ok(()),
            RopeScaling::Linear { factor } => positive("rope factor", *factor),
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position_embeddings } => {
                positive("rope factor", *factor)?;
                positive("rope low_freq_factor", *low_freq_factor)?;
                positive("rope high_freq_factor - low_freq_factor", high_freq_factor - low_freq_factor)?;
                positive("rope original_max_position_embeddings", f64::from(*original_max_position_embeddings))
            }
            RopeScaling::Yarn {
                factor,
                beta_fast,
                beta_slow,
                original_max_position_embeddings,
                attention_factor,
                ..
            } => {
                positive("rope factor", *factor)?;
                positive("rope beta_fast", *beta_fast)?;
                positive("rope beta_slow", *beta_slow)?;
                positive("rope attention_factor", *attention_factor)?;
                positive("rope original_max_position_embeddings", f64::from(*original_max_position_embeddings))
            }
            RopeScaling::LongRope { short_factor, long_factor, original_max_position_embeddings, attention_factor } => {
                positive("rope original_max_position_embeddings", f64::from(*original_max_position_embeddings))?;
                positive("rope attention_factor", *attention_factor)?;
                self.check_divisors("rope short_factor", short_factor)?;
                self.check_divisors("rope long_factor", long_factor)
            }
        }
    }

    fn check_divisors(&self, field: &str, divisors: &[f64]) -> Result<(), WeightsError> {
        if divisors.len() != (self.dim / 2) as usize {
            let reason = format!("must have {} entries, one a frequency; it has {}", self.dim / 2, divisors.len());
            return Err(WeightsError::config(field, reason));
        }
        divisors.iter().try_for_each(|divisor| positive(field, *divisor))
    }
}

fn positive(field: &str, value: f64) -> Result<(), WeightsError> {
    if value > 0.0 && value.is_finite() {
        return Ok(());
    }
    Err(WeightsError::config(field, format!("must be a number above 0; it is {value}")))
}
