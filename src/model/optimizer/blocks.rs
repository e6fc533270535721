//! Eight-bit numbers by block-wise dynamic quantisation (Dettmers et al. 2022, "8-bit Optimizers via Block-wise
//! Quantization"), with codes and scales as bitsandbytes makes them.
//!
//! A block of 256 elements is divided by its largest magnitude, and each element replaced by the index of the nearest of
//! 256 numbers in [-1, 1]; of a second moment, nothing above zero becomes zero, lest an element move by its first moment over
//! epsilon. Those lie more densely towards zero: with the exponent e from 0 to 6, the middles of the `2^e`
//! equal parts of [0.1, 1] (`2^(e + 1)` where no sign is needed), times `10^(e - 6)`; and zero, and one.

use finetuned_torch::{Kind, Tensor};

use super::moment::Sign;
use crate::error::ModelError;

/// Elements that share a scale.
const BLOCK: i64 = 256;
const EXPONENTS: i32 = 7;

/// A tensor as codes and scales.
#[derive(Debug)]
pub(super) struct Blocks {
    shape: Vec<i64>,
    /// `[256]`, ascending, f32.
    levels: Tensor,
    sign: Sign,
    /// `[255]`, f32: where the nearest level changes.
    bounds: Tensor,
    /// `[elements]`, u8.
    codes: Tensor,
    /// `[blocks]`, f32: the largest magnitude of each block.
    absmax: Tensor,
}

impl Blocks {
    pub fn zeros(like: &Tensor, sign: Sign) -> Result<Self, ModelError> {
        let (elements, device) = (like.numel() as i64, like.device());
        let levels = Tensor::f_from_slice(&levels(sign))?.f_to_device(device)?;
        let bounds = levels.f_narrow(0, 0, 255)?.f_add(&levels.f_narrow(0, 1, 255)?)?.f_mul_scalar(0.5)?;
        let absmax = Tensor::f_zeros([(elements + BLOCK - 1) / BLOCK], (Kind::Float, device))?;
        let codes = Tensor::f_zeros([elements], (Kind::Uint8, device))?;
        let mut blocks = Self { shape: like.size(), levels, sign, bounds, codes, absmax };
        blocks.write(&like.f_zeros_like()?)?;
        Ok(blocks)
    }

    pub fn codes(&self) -> &Tensor {
        &self.codes
    }

    pub fn absmax(&self) -> &Tensor {
        &self.absmax
    }

    /// The numbers that codes and scales stand for, f32.
    pub fn read(&self) -> Result<Tensor, ModelError> {
        let levels = self.levels.f_index_select(0, &self.codes.f_to_kind(Kind::Int)?)?;
        let scaled = self.rows(&levels)?.f_mul(&self.absmax.f_unsqueeze(1)?)?;
        Ok(self.elements(&scaled)?.f_view(self.shape.as_slice())?)
    }

    pub fn write(&mut self, value: &Tensor) -> Result<(), ModelError> {
        let rows = self.rows(&value.f_reshape([-1])?)?;
        self.absmax.f_copy_(&rows.f_abs()?.f_amax([1_i64].as_slice(), false)?)?;
        // A block of zeros has no scale; whatever its elements are divided by, they stay zero.
        let scale = self.absmax.f_clamp_min(f64::from(f32::MIN_POSITIVE))?;
        let share = rows.f_mul(&scale.f_reciprocal()?.f_unsqueeze(1)?)?;
        let mut codes = share.f_bucketize(&self.bounds, true, false)?;
        if self.sign == Sign::Positive {
            codes = codes.f_max_other(&share.f_gt(0.0)?.f_to_kind(Kind::Int)?)?;
        }
        Ok(self.codes.f_copy_(&self.elements(&codes)?)?)
    }

    /// `[blocks, BLOCK]`, the last row filled up with zeros.
    fn rows(&self, elements: &Tensor) -> Result<Tensor, ModelError> {
        let missing = self.absmax.size1()? * BLOCK - elements.size1()?;
        Ok(elements.f_constant_pad_nd([0, missing])?.f_view([-1, BLOCK])?)
    }

    /// `[elements]` of such rows.
    fn elements(&self, rows: &Tensor) -> Result<Tensor, ModelError> {
        Ok(rows.f_view([-1])?.f_narrow(0, 0, self.codes.size1()?)?)
    }
}

/// The 256 numbers, ascending.
fn levels(sign: Sign) -> Vec<f32> {
    let mut levels = vec![0.0, 1.0];
    for exponent in 0..EXPONENTS {
        let parts = match sign {
            Sign::Any => 1 << exponent,
            Sign::Positive => 2 << exponent,
        };
        for part in 0..parts {
            let middle = 0.1 + 0.9 * (f64::from(part) + 0.5) / f64::from(parts);
            let level = 10_f64.powi(exponent - EXPONENTS + 1) * middle;
            levels.push(level);
            if sign == Sign::Any {
                levels.push(-level);
            }
        }
    }
    levels.sort_by(f64::total_cmp);
    levels.into_iter().map(|level| level as f32).collect()
}
