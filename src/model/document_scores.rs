//! Log-probabilities of whole documents, for losses that compare documents with each other (DPO).
//!
//! A document's coefficient in such a loss is known only once the log-probabilities are. So they are computed first, then
//! their gradients by the coefficients: a weighted sum of log-probabilities is a cross-entropy with the weights negated.

use finetuned_torch::{Tensor, tch};

use crate::{
    adapter::Adapter,
    causal_lm::CausalLm,
    context::ForwardContext,
    documents::Documents,
    error::ModelError,
    head::Head,
    loss::{Chunk, Wanted, chunk_rows, chunked, supervised_rows},
};

/// Packed documents, scored.
#[derive(Debug)]
pub struct DocumentScores {
    /// Of each document, the log-probability of its supervised tokens together, in nats.
    pub log_probabilities: Vec<f64>,
    /// Of each document, its supervised tokens.
    pub supervised: Vec<u64>,
    /// Of each document, how many of those the model ranked first.
    pub correct: Vec<u64>,
    /// `[supervised, hidden]`, with what it was computed from.
    hidden: Tensor,
    head: Head,
    /// `[supervised]`, i64.
    targets: Tensor,
    /// The document of each supervised token.
    documents: Vec<usize>,
    chunk_rows: i64,
}

/// Scores packed documents; `labels` are as in [`crate::supervised_loss`].
///
/// # Errors
/// As there.
pub fn score_documents(
    model: &CausalLm,
    documents: &Documents,
    labels: &[i64],
    adapter: Option<&Adapter>,
    context: &ForwardContext,
) -> Result<DocumentScores, ModelError> {
    let found = supervised_rows(documents, labels, i64::from(model.facts().vocab_size))?;
    let on_device = |values: &[i64]| Tensor::f_from_slice(values)?.f_to_device(model.device());
    let (rows, targets) = (on_device(&found.rows)?, on_device(&found.targets)?);
    let hidden = model.hidden_rows(documents, &rows, adapter, context)?;
    let count = documents.lengths().len();
    let mut scores = DocumentScores {
        log_probabilities: vec![0.0; count],
        supervised: vec![0; count],
        correct: vec![0; count],
        head: model.head(adapter)?,
        hidden,
        targets,
        documents: found.documents,
        chunk_rows: chunk_rows(model),
    };
    scores.add_up()?;
    Ok(scores)
}

impl DocumentScores {
    /// On the host and in order, so that the sums are the same each time.
    fn add_up(&mut self) -> Result<(), ModelError> {
        let _detached = tch::no_grad_guard();
        for (index, documents) in self.documents.chunks(self.chunk_rows as usize).enumerate() {
            let (start, length) = (index as i64 * self.chunk_rows, documents.len() as i64);
            let (hidden, targets) = (self.hidden.f_narrow(0, start, length)?, self.targets.f_narrow(0, start, length)?);
            let chunk = Chunk::of(&hidden, &self.head, &targets)?;
            let log_probabilities = Vec::<f32>::try_from(chunk.of_targets.f_flatten(0, -1)?)?;
            let correct = Vec::<bool>::try_from(chunk.is_correct()?.f_flatten(0, -1)?)?;
            for ((document, log_probability), correct) in documents.iter().zip(log_probabilities).zip(correct) {
                self.log_probabilities[*document] += f64::from(log_probability);
                self.supervised[*document] += 1;
                self.correct[*document] += u64::from(correct);
            }
        }
        Ok(())
    }

    /// The sum of the log-probabilities by a coefficient for each document: a scalar (f64) whose backward makes the
    /// gradients.
    ///
    /// # Errors
    /// Another number of coefficients than documents, or too little memory.
    pub fn weighted_sum(&self, coefficients: &[f64]) -> Result<Tensor, ModelError> {
        let negated: Option<Vec<f32>> =
            self.documents.iter().map(|&document| coefficients.get(document).map(|value| -value as f32)).collect();
        let Some(negated) = negated.filter(|_| coefficients.len() == self.log_probabilities.len()) else {
            let (given, wanted) = (coefficients.len(), self.log_probabilities.len());
            return Err(ModelError::Batch(format!("{given} coefficients were given for {wanted} documents")));
        };
        let weights = Tensor::f_from_slice(&negated)?.f_to_device(self.hidden.device())?;
        let wanted =
            Wanted { targets: &self.targets, weights: Some(&weights), smoothing: 0.0, chunk_rows: self.chunk_rows };
        Ok(chunked(&self.hidden, &self.head, wanted)?.0)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use finetuned_torch::Device;

    use super::*;
    use crate::{family_tests, loss::supervised_loss};

    const CASE: &str = "llama";

    fn labels(texts: &[Vec<u32>]) -> Vec<i64> {
        texts.iter().flatten().map(|&id| if id % 5 == 0 { -100 } else { i64::from(id) }).collect()
    }

    fn score(model: &CausalLm, texts: &[Vec<u32>], adapter: Option<&Adapter>) -> DocumentScores {
        let documents = Documents::pack(texts, Device::Cpu).unwrap();
        score_documents(model, &documents, &labels(texts), adapter, &ForwardContext::default()).unwrap()
    }

    #[test]
    fn a_documents_loss_packed_is_its_loss_alone_whoever_its_neighbours_are() {
        for case in family_tests::CASES {
            let model = family_tests::tiny(case);
            let adapter = family_tests::stirred(&model);
            let texts = family_tests::texts();
            let packed = score(&model, &texts, Some(&adapter));
            for (index, text) in texts.iter().enumerate() {
                let alone = score(&model, std::slice::from_ref(text), Some(&adapter));
                let difference = packed.log_probabilities[index] - alone.log_probabilities[0];
                let tokens = alone.supervised[0].max(1) as f64;
                assert!((difference / tokens).abs() < 1e-5, "{case}, document {index}: {difference}");
                assert_eq!((packed.supervised[index], packed.correct[index]), (alone.supervised[0], alone.correct[0]));
            }
            let mut other = texts.clone();
            other[0].reverse();
            other[3].rotate_left(3);
            let neighboured = score(&model, &other, Some(&adapter));
            for kept in [1, 2, 4] {
                let difference = neighboured.log_probabilities[kept] - packed.log_probabilities[kept];
                let tokens = packed.supervised[kept].max(1) as f64;
                assert!((difference / tokens).abs() < 1e-5, "{case}, document {kept}: {difference}");
            }
            assert_ne!(neighboured.log_probabilities[0], packed.log_probabilities[0]);
        }
    }

    #[test]
    fn coefficients_of_minus_one_are_the_plain_loss() {
        let model = family_tests::tiny(CASE);
        let (adapter, texts) = (family_tests::stirred(&model), family_tests::texts());
        let gradients = |loss: Tensor| -> Vec<Tensor> {
            adapter.named_parameters().iter().for_each(|(_, tensor)| tensor.shallow_clone().zero_grad());
            loss.backward();
            adapter.named_parameters().iter().map(|(_, tensor)| tensor.grad().copy()).collect()
        };
        let scores = score(&model, &texts, Some(&adapter));
        let sum = scores.weighted_sum(&vec![-1.0; texts.len()]).unwrap();
        let documents = Documents::pack(&texts, Device::Cpu).unwrap();
        let context = ForwardContext::default();
        let plain = supervised_loss(&model, &documents, &labels(&texts), Some(&adapter), &context).unwrap();
        assert!((sum.double_value(&[]) - plain.loss_sum.double_value(&[])).abs() < 1e-9);
        assert!((sum.double_value(&[]) + scores.log_probabilities.iter().sum::<f64>()).abs() < 1e-4);
        assert_eq!(scores.supervised.iter().sum::<u64>() as i64, plain.supervised);
        assert_eq!(scores.correct.iter().sum::<u64>() as i64, plain.correct.int64_value(&[]));
        for (a, b) in gradients(sum).iter().zip(gradients(plain.loss_sum)) {
            assert!(a.equal(&b));
        }
        assert!(scores.weighted_sum(&[1.0]).is_err());
    }
}
