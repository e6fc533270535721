//! What the tests of this crate share.

#![allow(clippy::unwrap_used)]

use finetuned_torch::{Kind, Tensor};

use crate::random::Key;

/// Uniform numbers in `[-1, 1)`, f32, the same for every call.
pub(crate) fn pseudo_random(shape: &[i64], seed: u64) -> Tensor {
    let key = Key::new(seed);
    let values: Vec<f64> = (0..shape.iter().product::<i64>() as u64).map(|i| key.uniform(i) * 2.0 - 1.0).collect();
    Tensor::from_slice(&values).to_kind(Kind::Float).reshape(shape)
}
