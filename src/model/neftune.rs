//! Noise on the embeddings in training (NEFTune: Jain et al. 2023).

use finetuned_torch::{Kind, Tensor, tch};

use crate::{
    context::{DropoutKeys, ForwardContext},
    documents::Documents,
    error::ModelError,
    random::Key,
};

/// What is added to the embeddings of `placed`, `[tokens, hidden]`, f32: uniform between `-m` and `m` with
/// `m = alpha / sqrt(length * hidden)`, where `length` is a document's own. Whether a document is packed, and with what, does
/// not change its noise, which depends on (seed, epoch, line, position, feature) alone. Rows that are no tokens, of which
/// `placed` has more than `documents`, get none.
pub(crate) fn noise(
    documents: &Documents,
    placed: &Documents,
    context: &ForwardContext,
    hidden: i64,
) -> Result<Option<Tensor>, ModelError> {
    let Some(keys) = context.dropout.as_ref().filter(|_| context.neftune_noise_alpha > 0.0) else { return Ok(None) };
    if keys.lines.len() != documents.lengths.len() {
        let (lines, lengths) = (keys.lines.len(), documents.lengths.len());
        return Err(ModelError::Batch(format!("{lines} keys of noise were given for {lengths} documents")));
    }
    let _detached = tch::no_grad_guard();
    let drawn = draw(documents, keys, context.neftune_noise_alpha, hidden);
    let noise = Tensor::f_from_slice(&drawn)?.f_view([-1, hidden])?.f_to_device(documents.ids.device())?;
    match &placed.virtual_rows {
        None => Ok(Some(noise)),
        Some(rows) => {
            let zeros = Tensor::f_zeros([placed.tokens(), hidden], (Kind::Float, noise.device()))?;
            Ok(Some(zeros.f_index_copy(0, &rows.real, &noise)?))
        }
    }
}

fn draw(documents: &Documents, keys: &DropoutKeys, alpha: f64, hidden: i64) -> Vec<f32> {
    let run = Key::new(u64::from(keys.seed)).with(u64::from(keys.epoch)).with_name("neftune");
    let mut noise = Vec::with_capacity((documents.tokens() * hidden) as usize);
    for (&line, &length) in keys.lines.iter().zip(&documents.lengths) {
        let most = alpha / ((length * hidden) as f64).sqrt();
        for position in 0..length as u64 {
            let key = run.with(line).with(position);
            noise.extend((0..hidden as u64).map(|feature| ((2.0 * key.uniform(feature) - 1.0) * most) as f32));
        }
    }
    noise
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use finetuned_torch::Device;

    const HIDDEN: i64 = 64;

    fn context(alpha: f64, epoch: u32, lines: &[u64]) -> ForwardContext {
        let dropout = Some(DropoutKeys { seed: 3, epoch, lines: lines.to_vec() });
        ForwardContext { dropout, neftune_noise_alpha: alpha, ..ForwardContext::default() }
    }

    fn packed(lengths: &[usize]) -> Documents {
        let documents: Vec<Vec<u32>> = lengths.iter().map(|&length| vec![1; length]).collect();
        Documents::pack(&documents, Device::Cpu).unwrap()
    }

    fn drawn(alpha: f64, epoch: u32, lines: &[u64], lengths: &[usize]) -> Tensor {
        let documents = packed(lengths);
        noise(&documents, &documents, &context(alpha, epoch, lines), HIDDEN).unwrap().unwrap()
    }

    #[test]
    fn it_is_uniform_and_scaled_by_the_length_of_each_document() {
        let noise = drawn(5.0, 0, &[1, 2], &[400, 100]).to_kind(Kind::Double);
        for (start, length) in [(0, 400), (400, 100)] {
            let most = 5.0 / ((length * HIDDEN) as f64).sqrt();
            let of_document = noise.narrow(0, start, length) / most;
            assert!(of_document.abs().max().double_value(&[]) <= 1.0 + 1e-6);
            // Four standard errors of the moments of a uniform number in [-1, 1]: 0 and 1/3, of variance 1/3 and 4/45.
            let count = (length * HIDDEN) as f64;
            let mean = of_document.mean(Kind::Double).double_value(&[]);
            let square = of_document.square().mean(Kind::Double).double_value(&[]);
            assert!(mean.abs() < 4.0 * (1.0 / (3.0 * count)).sqrt(), "{mean}");
            assert!((square - 1.0 / 3.0).abs() < 4.0 * (4.0 / (45.0 * count)).sqrt(), "{square}");
        }
    }

    #[test]
    fn neither_packing_nor_alpha_changes_what_is_drawn() {
        let alone = drawn(5.0, 1, &[9], &[7]);
        assert!(drawn(5.0, 1, &[4, 9, 5], &[3, 7, 2]).narrow(0, 3, 7).equal(&alone));
        assert!((drawn(10.0, 1, &[9], &[7]) - &alone * 2.0).abs().max().double_value(&[]) < 1e-6);
        assert!(!drawn(5.0, 1, &[8], &[7]).equal(&alone));
        assert!(!drawn(5.0, 2, &[9], &[7]).equal(&alone));
    }

    #[test]
    fn virtual_tokens_and_evaluations_have_none() {
        let documents = packed(&[2, 1]);
        let placed = documents.behind_virtual(2).unwrap();
        let plain = drawn(5.0, 0, &[1, 2], &[2, 1]);
        let behind = noise(&documents, &placed, &context(5.0, 0, &[1, 2]), HIDDEN).unwrap().unwrap();
        assert_eq!(behind.size(), [7, HIDDEN]);
        let real = Tensor::from_slice(&[2_i64, 3, 6]);
        assert!(behind.index_select(0, &real).equal(&plain));
        assert_eq!(behind.abs().sum(Kind::Float).double_value(&[]), plain.abs().sum(Kind::Float).double_value(&[]));
        assert!(noise(&documents, &documents, &ForwardContext::default(), HIDDEN).unwrap().is_none());
        assert!(noise(&documents, &documents, &context(0.0, 0, &[1, 2]), HIDDEN).unwrap().is_none());
    }
}
