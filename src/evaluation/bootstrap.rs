//! Is a difference real: the percentile bootstrap of a paired mean difference.
//!
//! Efron & Tibshirani 1993, chapter 13: rows are drawn with replacement, as many as there are; the mean difference of
//! each resample is kept; the interval runs from the 2.5th to the 97.5th percentile of those means.

use finetuned_protocol::evaluation::{PairedComparison, Verdict};

use crate::EvaluationError;

/// Coverage of every interval.
pub const CONFIDENCE: f64 = 0.95;
/// Resamples of an interval where nobody asks for another number.
pub const RESAMPLES: u32 = 10_000;

/// Compares two models on the same rows; `base[i]` and `tuned[i]` are figures of row `i`, larger being better.
///
/// Deterministic on every platform: draw `j` of resample `r` is a function of (seed, r, j) alone, and sums run in one
/// order.
///
/// # Errors
/// No rows, lists of different lengths, a figure that is not finite, or no resamples.
pub fn paired_bootstrap(
    base: &[f64],
    tuned: &[f64],
    seed: u64,
    resamples: u32,
) -> Result<PairedComparison, EvaluationError> {
    let differences = paired_differences(base, tuned)?;
    if resamples == 0 {
        return Err(EvaluationError::NoResamples);
    }
    let mut means: Vec<f64> = (0..resamples).map(|resample| resampled_mean(&differences, seed, resample)).collect();
    means.sort_unstable_by(f64::total_cmp);
    let tail = (1.0 - CONFIDENCE) / 2.0;
    let (low, high) = (percentile(&means, tail), percentile(&means, 1.0 - tail));
    Ok(PairedComparison {
        base: mean(base),
        tuned: mean(tuned),
        difference: mean(&differences),
        low,
        high,
        confidence: CONFIDENCE,
        resamples,
        seed,
        verdict: verdict(low, high),
    })
}

fn paired_differences(base: &[f64], tuned: &[f64]) -> Result<Vec<f64>, EvaluationError> {
    if base.len() != tuned.len() {
        return Err(EvaluationError::Unpaired { base: base.len(), tuned: tuned.len() });
    }
    if base.is_empty() {
        return Err(EvaluationError::NoRows);
    }
    let differences: Vec<f64> = base.iter().zip(tuned).map(|(base, tuned)| tuned - base).collect();
    match differences.iter().position(|difference| !difference.is_finite()) {
        Some(row) => Err(EvaluationError::NotFinite { row }),
        None => Ok(differences),
    }
}

/// An interval that touches zero shows no difference.
fn verdict(low: f64, high: f64) -> Verdict {
    if low > 0.0 {
        Verdict::Better
    } else if high < 0.0 {
        Verdict::Worse
    } else {
        Verdict::NoDifferenceShown
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn resampled_mean(values: &[f64], seed: u64, resample: u32) -> f64 {
    let key = mix(seed ^ mix(u64::from(resample)));
    let sum: f64 = (0..values.len() as u64).map(|draw| values[below(mix(key ^ mix(draw)), values.len())]).sum();
    sum / values.len() as f64
}

/// A random word as an index below `n`, by multiplication: its bias is below `n / 2^64`.
fn below(word: u64, n: usize) -> usize {
    ((u128::from(word) * n as u128) >> 64) as usize
}

/// Percentile by linear interpolation between the two nearest of the sorted values (type 7 of Hyndman & Fan 1996).
fn percentile(sorted: &[f64], share: f64) -> f64 {
    let place = share * (sorted.len() - 1) as f64;
    let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    below + (above - below) * place.fract()
}

/// The finaliser of SplitMix64 (Steele, Lea & Flood 2014): a bijection of 64-bit words that mixes every bit.
fn mix(word: u64) -> u64 {
    let mut z = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    #[test]
    fn a_constant_difference_has_an_interval_of_no_width() {
        let found = paired_bootstrap(&[0.25; 20], &[0.75; 20], 0, 500).unwrap();
        assert_eq!((found.difference, found.low, found.high), (0.5, 0.5, 0.5));
        assert_eq!((found.base, found.tuned, found.verdict), (0.25, 0.75, Verdict::Better));
        assert_eq!(paired_bootstrap(&[0.75; 3], &[0.25; 3], 0, 500).unwrap().verdict, Verdict::Worse);
        assert_eq!(paired_bootstrap(&[0.5; 3], &[0.5; 3], 0, 500).unwrap().verdict, Verdict::NoDifferenceShown);
    }

    /// Differences of -1 and +1 in equal number: a resample's mean is (2 B - n) / n, B binomial (n, 1/2).
    #[test]
    fn the_interval_agrees_with_the_binomial_distribution() {
        let n = 100;
        let tuned: Vec<f64> = (0..n).map(|row| if row % 2 == 0 { 1.0 } else { -1.0 }).collect();
        let found = paired_bootstrap(&vec![0.0; n], &tuned, 9, 20_000).unwrap();
        // The 2.5th and 97.5th percentiles of the binomial (100, 1/2) are 40 and 60 (P(B <= 39) = 0.0176, P(B <= 40) =
        // 0.0284).
        assert!((found.low + 0.2).abs() < 1e-9 && (found.high - 0.2).abs() < 1e-9, "{found:?}");
        assert_eq!(found.verdict, Verdict::NoDifferenceShown);
    }

    /// With two rows the three possible means come with chances 1/4, 1/2, 1/4, so the interval is the whole range.
    #[test]
    fn two_rows_show_nothing() {
        let found = paired_bootstrap(&[0.0, 0.0], &[-0.1, 0.9], 1, 2_000).unwrap();
        assert!((found.low + 0.1).abs() < 1e-12 && (found.high - 0.9).abs() < 1e-12);
    }

    /// The interval of a mean of n normal-like values is about 2 * 1.96 * s / sqrt(n) wide.
    #[test]
    fn the_width_follows_the_standard_error() {
        let n = 400_u64;
        let uniform = |row: u64| (mix(row) >> 11) as f64 / (1_u64 << 53) as f64;
        let tuned: Vec<f64> = (0..n).map(uniform).collect();
        let found = paired_bootstrap(&vec![0.0; n as usize], &tuned, 2, 10_000).unwrap();
        let expected = 2.0 * 1.96 * (1.0_f64 / 12.0).sqrt() / (n as f64).sqrt();
        assert!(((found.high - found.low) / expected - 1.0).abs() < 0.08, "{found:?}, {expected}");
    }

    #[test]
    fn percentiles_interpolate() {
        let values = [1.0, 2.0, 3.0, 4.0];
        assert_eq!([0.0, 0.5, 1.0, 0.25].map(|share| percentile(&values, share)), [1.0, 2.5, 4.0, 1.75]);
    }

    #[test]
    fn the_seed_decides_and_the_same_seed_gives_the_same_bits() {
        let tuned: Vec<f64> = (0..30).map(|row| f64::from(row) / 30.0).collect();
        let run = |seed| paired_bootstrap(&[0.4; 30], &tuned, seed, 300).unwrap();
        assert_eq!(run(5), run(5));
        assert_ne!(run(5).low, run(6).low);
    }

    #[test]
    fn what_cannot_be_compared_is_refused() {
        let refusal = |base: &[f64], tuned: &[f64], resamples| paired_bootstrap(base, tuned, 0, resamples).unwrap_err();
        assert_eq!(refusal(&[], &[], 10), EvaluationError::NoRows);
        assert_eq!(refusal(&[1.0], &[], 10), EvaluationError::Unpaired { base: 1, tuned: 0 });
        assert_eq!(refusal(&[1.0, 1.0], &[1.0, f64::NAN], 10), EvaluationError::NotFinite { row: 1 });
        assert_eq!(refusal(&[1.0], &[1.0], 0), EvaluationError::NoResamples);
    }
}
