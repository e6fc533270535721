//! Llama 3's rotary scaling, which GGUF stores as one divisor a frequency in place of its parameters.

use crate::{
    config::{RopeConfig, RopeScaling},
    error::WeightsError,
};

/// Parameters of the rule beside the factor.
#[derive(Clone, Copy)]
struct Bounds {
    low: f64,
    high: f64,
    original: f64,
}

const PUBLISHED: Bounds = Bounds { low: LOW, high: HIGH, original: ORIGINAL as f64 };

/// The divisors of a rotary embedding with this scaling.
pub(crate) fn of(rope: &RopeConfig) -> Option<Vec<f32>> {
    let RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position_embeddings } =
        rope.scaling
    else {
        return None;
    };
    let bounds =
        Bounds { low: low_freq_factor, high: high_freq_factor, original: original_max_position_embeddings.into() };
    Some(divisors(rope.theta, rope.dim, factor, bounds).map(|divisor| divisor as f32).collect())
}

/// The divisors that Llama 3.1's rule gives (transformers' `_compute_llama3_parameters`), lowest dimension first.
fn divisors(theta: f64, head_dim: u32, factor: f64, bounds: Bounds) -> impl Iterator<Item = f64> {
    let Bounds { low, high, original } = bounds;
    (0..head_dim / 2).map(move |pair| {
        let wavelength = std::f64::consts::TAU * theta.powf(f64::from(2 * pair) / f64::from(head_dim));
        if wavelength < original / high {
            1.0
        } else if wavelength > original / low {
            factor
        } else {
            let smooth = (original / wavelength - low) / (high - low);
            1.0 / ((1.0 - smooth) / factor + smooth)
        }
    })
}

const LOW: f64 = 1.0;
const HIGH: f64 = 4.0;
const ORIGINAL: u32 = 8192;
/// Llama 3.1 and 3.3; Llama 3.2.
const FACTORS: &[f64] = &[8.0, 32.0];

/// The scaling whose divisors these are.
///
/// # Errors
/// Divisors that no published Llama has: the parameters behind them cannot be told.
pub(crate) fn recognise(stored: &[f32], theta: f64, head_dim: u32) -> Result<RopeScaling, WeightsError> {
    let close = |factor: &&f64| {
        stored.len() == (head_dim / 2) as usize
            && divisors(theta, head_dim, **factor, PUBLISHED)
                .zip(stored)
                .all(|(ours, &theirs)| (ours - f64::from(theirs)).abs() <= 1e-4 * ours)
    };
    match FACTORS.iter().find(close) {
        Some(&factor) => Ok(RopeScaling::Llama3 {
            factor,
            low_freq_factor: LOW,
            high_freq_factor: HIGH,
            original_max_position_embeddings: ORIGINAL,
        }),
        None => {
            let known = "the divisors of Llama 3.1 (factor 8) and Llama 3.2 (factor 32)";
            Err(WeightsError::unsupported("GGUF tensor", "rope_freqs.weight with unknown divisors", known))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn published_divisors_are_recognised_and_others_refused() {
        for factor in [8.0, 32.0] {
            let stored: Vec<f32> = divisors(500_000.0, 64, factor, PUBLISHED).map(|divisor| divisor as f32).collect();
            assert_eq!((stored[0], stored[31]), (1.0, factor as f32));
            match recognise(&stored, 500_000.0, 64).unwrap() {
                RopeScaling::Llama3 { factor: found, .. } => assert_eq!(found, factor),
                other => panic!("{other:?}"),
            }
            let scaling = recognise(&stored, 500_000.0, 64).unwrap();
            assert_eq!(of(&RopeConfig { theta: 500_000.0, dim: 64, scaling }).unwrap(), stored);
        }
        assert!(recognise(&[1.0; 32], 500_000.0, 64).unwrap_err().to_string().contains("rope_freqs.weight"));
        assert!(recognise(&[1.0; 3], 500_000.0, 64).is_err());
    }
}
