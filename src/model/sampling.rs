//! The next token from logits.

use finetuned_torch::{Kind, Tensor};

use crate::{error::ModelError, random::Key};

/// How the next token is chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Sampling {
    /// The likeliest.
    Greedy,
    /// Drawn by probability; the draw is a function of the seed, the prompt's index and the token's position.
    Sample {
        /// Divides the logits; above zero.
        temperature: f64,
        /// Only the smallest set of likeliest tokens that holds this probability (0 to 1; 1 keeps all).
        top_p: f64,
        /// Only so many of the likeliest tokens; zero keeps all.
        top_k: u32,
        seed: u64,
    },
}

impl Sampling {
    pub(crate) fn check(&self) -> Result<(), ModelError> {
        let Self::Sample { temperature, top_p, .. } = *self else {
            return Ok(());
        };
        if !(temperature > 0.0 && temperature.is_finite()) {
            return Err(ModelError::Setting { field: "temperature", reason: "must be above zero".to_owned() });
        }
        if !(top_p > 0.0 && top_p <= 1.0) {
            return Err(ModelError::Setting { field: "top_p", reason: "must be above 0 and at most 1".to_owned() });
        }
        Ok(())
    }

    /// One token a row of `logits`, `[rows, vocab]`; `places` has the prompt's index and the new token's position of
    /// each.
    pub(crate) fn choose(&self, logits: &Tensor, places: &[(u64, u64)]) -> Result<Vec<i64>, ModelError> {
        let chosen = match *self {
            Self::Greedy => logits.f_argmax(-1, false)?,
            Self::Sample { temperature, top_p, top_k, seed } => {
                let key = Key::new(seed).with_name("sampling");
                let draws: Vec<f64> = places.iter().map(|&(row, position)| key.with(row).uniform(position)).collect();
                let draws = Tensor::f_from_slice(&draws)?.f_to_device(logits.device())?;
                sample(&logits.f_to_kind(Kind::Double)?.f_div_scalar(temperature)?, top_p, top_k, &draws)?
            }
        };
        Ok(Vec::<i64>::try_from(&chosen)?)
    }
}

/// Inverse of the cumulative distribution at `draws`, `[rows]`, over the tokens that are left, likeliest first.
fn sample(logits: &Tensor, top_p: f64, top_k: u32, draws: &Tensor) -> Result<Tensor, ModelError> {
    let (sorted, tokens) = logits.f_sort_stable(true, -1, true)?;
    let kept = match i64::from(top_k) {
        0 => sorted.size2()?.1,
        k => k.min(sorted.size2()?.1),
    };
    let probabilities = sorted.f_narrow(1, 0, kept)?.f_softmax(-1, None)?;
    let before = probabilities.f_cumsum(-1, None)?.f_sub(&probabilities)?;
    // A token stays while those before it hold less than top_p; the first always does.
    let nucleus = probabilities.f_mul(&before.f_lt(top_p)?.f_to_kind(Kind::Double)?)?;
    let cumulative = nucleus.f_cumsum(-1, None)?;
    let total = cumulative.f_narrow(1, kept - 1, 1)?;
    let passed = cumulative.f_le_tensor(&draws.f_unsqueeze(1)?.f_mul(&total)?)?;
    let place = passed.f_sum_dim_intlist([-1_i64].as_slice(), true, Kind::Int64)?.f_clamp_max(kept - 1)?;
    Ok(tokens.f_gather(1, &place, false)?.f_squeeze_dim(1)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn shares(sampling: Sampling) -> [f64; 4] {
        let rows = 8000;
        let logits = Tensor::from_slice(&[0.1_f32, 0.4, 0.2, 0.3]).log().expand([rows, 4], false);
        let places: Vec<(u64, u64)> = (0..rows as u64).map(|row| (row, 3)).collect();
        let chosen = sampling.choose(&logits, &places).unwrap();
        assert_eq!(chosen, sampling.choose(&logits, &places).unwrap());
        std::array::from_fn(|token| {
            chosen.iter().filter(|&&id| id == token as i64).count() as f64 / f64::from(rows as i32)
        })
    }

    fn close(found: [f64; 4], expected: [f64; 4]) {
        // Four standard errors of a share of one half in 8,000 draws.
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 0.0224), "{found:?} {expected:?}");
    }

    #[test]
    fn shares_follow_the_closed_forms() {
        let sample = |temperature, top_p, top_k| Sampling::Sample { temperature, top_p, top_k, seed: 5 };
        close(shares(sample(1.0, 1.0, 0)), [0.1, 0.4, 0.2, 0.3]);
        close(shares(sample(1.0, 1.0, 2)), [0.0, 4.0 / 7.0, 0.0, 3.0 / 7.0]);
        close(shares(sample(1.0, 0.5, 0)), [0.0, 4.0 / 7.0, 0.0, 3.0 / 7.0]);
        close(shares(sample(1.0, 0.4, 0)), [0.0, 1.0, 0.0, 0.0]);
        close(shares(sample(0.5, 1.0, 0)), [1.0 / 30.0, 16.0 / 30.0, 4.0 / 30.0, 9.0 / 30.0]);
        close(shares(Sampling::Greedy), [0.0, 1.0, 0.0, 0.0]);
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(Sampling::Sample { temperature: 0.0, top_p: 1.0, top_k: 0, seed: 0 }.check().is_err());
        assert!(Sampling::Sample { temperature: 1.0, top_p: 1.5, top_k: 0, seed: 0 }.check().is_err());
        assert!(Sampling::Greedy.check().is_ok());
    }
}
