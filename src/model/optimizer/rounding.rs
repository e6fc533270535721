//! Stochastic rounding to bf16.
//!
//! A second moment with beta 0.999 changes by a thousandth in a step, a quarter of bf16's precision: rounded to the nearest,
//! it would never fall again. Rounded up with the probability of the part that is cut off, it is right on average (Gupta et
//! al. 2015).

use finetuned_torch::{Kind, Tensor};

use crate::{error::ModelError, random::Key};

/// Bits of an f32 that bf16 has no room for.
const CUT_BITS: u32 = 16;

/// `value`, f32, in bf16. Element i is rounded by the i-th draw of `key`.
pub(super) fn to_bf16(value: &Tensor, key: Key) -> Result<Tensor, ModelError> {
    let draws = draws(key, value.numel());
    let draws = Tensor::f_from_slice(&draws)?.f_view(value.size().as_slice())?.f_to_device(value.device())?;
    let draws = draws.f_to_kind(Kind::Int)?.f_bitwise_and((1_i64 << CUT_BITS) - 1)?;
    // In the bits of a float, whatever its sign, adding to those that are cut off carries into those that stay.
    let bits = value.f_contiguous()?.f_view_dtype(Kind::Int)?.f_add(&draws)?;
    let bits = bits.f_bitwise_and(-(1_i64 << CUT_BITS))?;
    Ok(bits.f_view_dtype(Kind::Float)?.f_to_kind(Kind::BFloat16)?)
}

/// Sixteen random bits for each element, four of them a draw.
fn draws(key: Key, count: usize) -> Vec<i16> {
    let mut draws = vec![0; count];
    for (index, four) in draws.chunks_mut((u64::BITS / CUT_BITS) as usize).enumerate() {
        let mut bits = key.bits(index as u64);
        for draw in four {
            *draw = bits as i16;
            bits >>= CUT_BITS;
        }
    }
    draws
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_bf16_can_hold_stays_and_the_rest_is_right_on_average() {
        let exact = Tensor::from_slice(&[0.0_f32, 1.0, -1.5, 2.0_f32.powi(-120), -0.007_812_5, 1.007_812_5]);
        assert!(to_bf16(&exact, Key::new(1)).unwrap().to_kind(Kind::Float).equal(&exact));
        // Three quarters of the way from 1 to the next number, on either side of zero.
        let step = 2.0_f64.powi(-7);
        let count = 40_000;
        for sign in [1.0, -1.0] {
            let value = Tensor::full([count], sign * (1.0 + 0.75 * step), (Kind::Float, finetuned_torch::Device::Cpu));
            let rounded = to_bf16(&value, Key::new(2)).unwrap().to_kind(Kind::Double) * sign;
            let share = ((&rounded - 1.0) / step).mean(Kind::Double).double_value(&[]);
            // Four standard errors.
            assert!((share - 0.75).abs() < 4.0 * (0.75 * 0.25 / count as f64).sqrt(), "{share}");
            assert_eq!((rounded.min().double_value(&[]), rounded.max().double_value(&[])), (1.0, 1.0 + step));
        }
    }

    #[test]
    fn the_same_key_rounds_the_same() {
        let value = crate::test_support::pseudo_random(&[1000], 3);
        let rounded = |key| to_bf16(&value, Key::new(key)).unwrap();
        assert!(rounded(1).equal(&rounded(1)));
        assert!(!rounded(1).equal(&rounded(2)));
    }
}
