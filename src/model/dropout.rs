//! Dropout whose mask depends on what is masked and on nothing else.

use finetuned_torch::Tensor;

use crate::{context::DropoutKeys, documents::Documents, error::ModelError, random::Key};

/// Masks are drawn with so many bits an element.
const BITS: u32 = 16;

/// Inputs of one module with a share of their elements zeroed (Srivastava et al. 2014).
pub(crate) struct Dropped {
    /// `[tokens, features]`, not yet scaled up.
    pub x: Tensor,
    /// Factor that keeps the mean; whoever multiplies anyway takes it along.
    pub scale: f64,
}

/// Drops elements of `x`, `[tokens, features]`. Whether element `j` of a token is kept depends on (seed, epoch, line,
/// position, module, j) alone, so that packing and accumulation do not change it. The probability is rounded to a
/// multiple of 2^-16.
pub(crate) fn dropout(
    x: &Tensor,
    probability: f64,
    module: &str,
    (keys, documents): (&DropoutKeys, &Documents),
) -> Result<Dropped, ModelError> {
    let features = x.size2()?.1;
    if keys.lines.len() != documents.lengths.len() {
        let (lines, lengths) = (keys.lines.len(), documents.lengths.len());
        return Err(ModelError::Batch(format!("{lines} dropout keys were given for {lengths} documents")));
    }
    let whole = f64::from(1_u32 << BITS);
    let threshold = (probability * whole).round();
    let mut mask = vec![false; (documents.tokens() * features) as usize];
    let run = Key::new(u64::from(keys.seed)).with(u64::from(keys.epoch)).with_name(module);
    let mut rows = mask.chunks_exact_mut(features as usize);
    for (&line, &length) in keys.lines.iter().zip(&documents.lengths) {
        let line = run.with(line);
        for (position, row) in (0..length as u64).zip(&mut rows) {
            fill_row(row, line.with(position), threshold as u64);
        }
    }
    // A mask of bytes: it is kept for the backward pass.
    let mask = Tensor::f_from_slice(&mask)?.f_view([-1, features])?.f_to_device(x.device())?;
    Ok(Dropped { x: x.f_masked_fill(&mask, 0.0)?, scale: whole / (whole - threshold) })
}

/// Marks what is dropped, four elements a draw.
fn fill_row(row: &mut [bool], key: Key, threshold: u64) {
    for (index, elements) in row.chunks_mut((u64::BITS / BITS) as usize).enumerate() {
        let mut bits = key.bits(index as u64);
        for dropped in elements {
            *dropped = bits & ((1 << BITS) - 1) < threshold;
            bits >>= BITS;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use finetuned_torch::{Device, Kind};

    fn keys(lines: &[u64]) -> DropoutKeys {
        DropoutKeys { seed: 1, epoch: 0, lines: lines.to_vec() }
    }

    fn masked(lines: &[u64], lengths: &[usize], module: &str, probability: f64) -> Tensor {
        let documents: Vec<Vec<u32>> = lengths.iter().map(|&length| vec![1; length]).collect();
        let documents = Documents::pack(&documents, Device::Cpu).unwrap();
        let x = Tensor::ones([documents.tokens(), 64], (Kind::Float, Device::Cpu));
        let dropped = dropout(&x, probability, module, (&keys(lines), &documents)).unwrap();
        dropped.x * dropped.scale
    }

    #[test]
    fn the_share_and_the_mean_are_as_asked() {
        let mask = masked(&[1, 2], &[500, 500], "m", 0.25);
        let dropped = mask.eq(0.0).to_kind(Kind::Double).mean(Kind::Double).double_value(&[]);
        assert!((dropped - 0.25).abs() < 0.007, "{dropped}"); // four standard errors of 64,000 draws
        assert!((mask.max().double_value(&[]) - 1.0 / 0.75).abs() < 1e-6);
    }

    #[test]
    fn packing_does_not_change_a_document() {
        let alone = masked(&[9], &[7], "m", 0.5);
        let packed = masked(&[4, 9, 5], &[3, 7, 2], "m", 0.5);
        assert!(packed.narrow(0, 3, 7).equal(&alone));
        assert!(!masked(&[9], &[7], "other", 0.5).equal(&alone));
        assert!(!masked(&[8], &[7], "m", 0.5).equal(&alone));
        let position = alone.narrow(0, 1, 1);
        assert!(!alone.narrow(0, 0, 1).equal(&position));
    }
}
