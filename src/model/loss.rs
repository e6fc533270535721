//! Cross-entropy on supervised tokens only, without ever holding all logits.

use finetuned_torch::{Device, Kind, Tensor, tch};

use crate::{
    adapter::Adapter, causal_lm::CausalLm, context::ForwardContext, documents::Documents, error::ModelError, head::Head,
};

/// Label of a token that carries no loss.
pub const IGNORED_LABEL: i64 = -100;

/// Logits held at once, in bytes; a chunk of rows is as large as fits.
const LOGITS_BYTES: i64 = 64 << 20;

/// What a batch cost.
#[derive(Debug)]
pub struct LossParts {
    /// Sum of the cross-entropy over the supervised tokens, in nats, each by its weight; a scalar (f64) whose backward makes
    /// the gradients.
    pub loss_sum: Tensor,
    /// Supervised tokens.
    pub supervised: i64,
    /// How many of them the model ranked first; a scalar (i64) on the model's device.
    pub correct: Tensor,
}

/// What tokens of a pack are to be predicted.
#[derive(Debug, Clone, Copy)]
pub struct Targets<'a> {
    /// As many as tokens.
    pub labels: &'a [i64],
    /// As many as tokens, where not every one weighs 1.
    pub weights: Option<&'a [f32]>,
}

/// [`weighted_loss`] where every token weighs the same.
///
/// # Errors
/// As there.
pub fn supervised_loss(
    model: &CausalLm,
    documents: &Documents,
    labels: &[i64],
    adapter: Option<&Adapter>,
    context: &ForwardContext,
) -> Result<LossParts, ModelError> {
    weighted_loss(model, documents, Targets { labels, weights: None }, adapter, context)
}

/// The loss of packed documents. `labels[i]` is the label of the token at row `i` of the pack, [`IGNORED_LABEL`] for
/// none; a token is predicted from the one before it in its document, so a document's first label is never used.
///
/// # Errors
/// Labels that do not fit the documents or the vocabulary, or too little memory.
pub fn weighted_loss(
    model: &CausalLm,
    documents: &Documents,
    targets: Targets<'_>,
    adapter: Option<&Adapter>,
    context: &ForwardContext,
) -> Result<LossParts, ModelError> {
    let found = supervised_rows(documents, targets.labels, i64::from(model.facts().vocab_size))?;
    let device = model.device();
    let weights = targets.weights.map(|weights| weights_of(&found, weights, device)).transpose()?;
    let on_device = |values: &[i64]| Tensor::f_from_slice(values)?.f_to_device(device);
    let (rows, targets) = (on_device(&found.rows)?, on_device(&found.targets)?);
    let hidden = model.hidden_rows(documents, &rows, adapter, context)?; // [supervised, hidden]
    let smoothing = context.label_smoothing;
    let wanted = Wanted { targets: &targets, weights: weights.as_ref(), smoothing, chunk_rows: chunk_rows(model) };
    let (loss_sum, correct) = chunked(&hidden, &model.head(adapter)?, wanted)?;
    Ok(LossParts { loss_sum, supervised: found.rows.len() as i64, correct })
}

/// Rows whose logits are held at once.
pub(crate) fn chunk_rows(model: &CausalLm) -> i64 {
    (LOGITS_BYTES / (4 * i64::from(model.facts().vocab_size))).max(1)
}

/// Weights of the supervised tokens, `[supervised]`, f32.
fn weights_of(found: &SupervisedRows, weights: &[f32], device: Device) -> Result<Tensor, ModelError> {
    // A row predicts the token behind it.
    let of_targets: Option<Vec<f32>> = found.rows.iter().map(|&row| weights.get(row as usize + 1).copied()).collect();
    let Some(of_targets) = of_targets else {
        return Err(ModelError::Batch(format!("{} weights are too few", weights.len())));
    };
    Ok(Tensor::f_from_slice(&of_targets)?.f_to_device(device)?)
}

/// The rows whose next token is supervised, and those tokens.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SupervisedRows {
    pub rows: Vec<i64>,
    pub targets: Vec<i64>,
    /// The document of each.
    pub documents: Vec<usize>,
}

pub(crate) fn supervised_rows(
    documents: &Documents,
    labels: &[i64],
    vocabulary: i64,
) -> Result<SupervisedRows, ModelError> {
    if labels.len() as i64 != documents.tokens() {
        let tokens = documents.tokens();
        return Err(ModelError::Batch(format!("{} labels were given for {tokens} tokens", labels.len())));
    }
    let mut found = SupervisedRows { rows: Vec::new(), targets: Vec::new(), documents: Vec::new() };
    for (document, (start, &length)) in documents.starts().zip(&documents.lengths).enumerate() {
        for row in start + 1..start + length {
            let label = labels[row as usize];
            if label == IGNORED_LABEL {
                continue;
            }
            if !(0..vocabulary).contains(&label) {
                return Err(ModelError::Batch(format!("label {label} is outside the vocabulary of {vocabulary}")));
            }
            found.rows.push(row - 1);
            found.targets.push(label);
            found.documents.push(document);
        }
    }
    Ok(found)
}

/// What rows are to predict.
#[derive(Clone, Copy)]
pub(crate) struct Wanted<'a> {
    /// `[rows]`, i64.
    pub targets: &'a Tensor,
    /// `[rows]`, f32, where not every one weighs 1.
    pub weights: Option<&'a Tensor>,
    /// Share of each target that is spread over the vocabulary.
    pub smoothing: f64,
    /// Rows whose logits are held at once.
    pub chunk_rows: i64,
}

impl Wanted<'_> {
    /// Targets and weights of some rows.
    fn narrow(&self, start: i64, length: i64) -> Result<(Tensor, Option<Tensor>), ModelError> {
        let weights = self.weights.map(|weights| weights.f_narrow(0, start, length)).transpose()?;
        Ok((self.targets.f_narrow(0, start, length)?, weights))
    }
}

/// The loss and how many targets were ranked first, with the gradients made chunk by chunk beside the loss, so that the
/// logits of one chunk are all that is ever held. With label smoothing e (Szegedy et al. 2016) a target is `1 - e` of its
/// token and `e / vocab` of every token. The gradient of the sum of cross-entropies by the logits is `softmax - target`; from there, behind the soft cap, it is one product to the hidden states, and one to the head where
/// that is trained.
pub(crate) fn chunked(hidden: &Tensor, head: &Head, wanted: Wanted<'_>) -> Result<(Tensor, Tensor), ModelError> {
    let (rows, _) = hidden.size2()?;
    let device = hidden.device();
    let mut loss = Tensor::f_zeros([], (Kind::Double, device))?;
    let mut correct = Tensor::f_zeros([], (Kind::Int64, device))?;
    let mut slopes = Slopes::new(hidden, &head.weight)?;
    {
        let _detached = tch::no_grad_guard();
        for start in (0..rows).step_by(wanted.chunk_rows as usize) {
            let length = wanted.chunk_rows.min(rows - start);
            let (targets, weights) = wanted.narrow(start, length)?;
            let hidden = hidden.f_narrow(0, start, length)?;
            let part = Chunk::of(&hidden, head, &targets)?;
            loss = loss.f_add(&part.loss(weights.as_ref(), wanted.smoothing)?)?;
            correct = correct.f_add(&part.is_correct()?.f_sum(Kind::Int64)?)?;
            if slopes.are_wanted() {
                slopes.add(
                    &part.slope(head, &targets, (weights.as_ref(), wanted.smoothing))?,
                    &hidden,
                    &head.weight,
                )?;
            }
        }
    }
    Ok((slopes.give(hidden, &head.weight, loss)?, correct))
}

/// Gradients of the loss by what it is computed from, as far as they are wanted.
struct Slopes {
    /// Of each chunk, `[rows, hidden]`.
    hidden: Option<Vec<Tensor>>,
    /// `[vocab, hidden]`, f32.
    head: Option<Tensor>,
}

impl Slopes {
    fn new(hidden: &Tensor, head: &Tensor) -> Result<Self, ModelError> {
        let zeros = || tch::no_grad(|| Tensor::f_zeros(head.size(), (Kind::Float, head.device())));
        Ok(Self {
            hidden: hidden.requires_grad().then(Vec::new),
            head: if head.requires_grad() { Some(zeros()?) } else { None },
        })
    }

    fn are_wanted(&self) -> bool {
        self.hidden.is_some() || self.head.is_some()
    }

    /// Adds a chunk whose gradient by the products of hidden states and head is `slope`, `[rows, vocab]`.
    fn add(&mut self, slope: &Tensor, hidden: &Tensor, head: &Tensor) -> Result<(), ModelError> {
        if let Some(parts) = &mut self.hidden {
            parts.push(slope.f_matmul(head)?);
        }
        if let Some(sum) = &mut self.head {
            let _ = sum.f_add_(&slope.f_tr()?.f_matmul(hidden)?)?;
        }
        Ok(())
    }

    /// A function of the hidden states and the head with these gradients and the value `loss`. In f64 the constant that
    /// brings it to the value takes nothing from its precision.
    fn give(self, hidden: &Tensor, head: &Tensor, loss: Tensor) -> Result<Tensor, ModelError> {
        let mut sum = loss;
        let mut tilt = |x: &Tensor, gradient: &Tensor| -> Result<(), ModelError> {
            let slope = x.f_mul(gradient)?.f_sum(Kind::Double)?;
            sum = slope.f_add(&sum.f_sub(&slope.f_detach()?)?)?;
            Ok(())
        };
        if let Some(parts) = self.hidden {
            // Without a supervised token the gradient is zero, and a backward pass is as valid as any.
            let gradient = if parts.is_empty() { hidden.f_detach()? } else { Tensor::f_cat(&parts, 0)? };
            tilt(hidden, &gradient)?;
        }
        if let Some(gradient) = self.head {
            tilt(head, &gradient)?;
        }
        Ok(sum)
    }
}

/// Some rows of the loss.
pub(crate) struct Chunk {
    /// `[rows, vocab]`, f32.
    log_probabilities: Tensor,
    /// `[rows, vocab]`, f32.
    logits: Tensor,
    /// `[rows, 1]`, f32: the log-probabilities of the targets.
    pub of_targets: Tensor,
}

impl Chunk {
    pub fn of(hidden: &Tensor, head: &Head, targets: &Tensor) -> Result<Self, ModelError> {
        let logits = head.logits_f32(hidden)?;
        let log_probabilities = logits.f_log_softmax(-1, None)?;
        let of_targets = log_probabilities.f_gather(1, &targets.f_unsqueeze(1)?, false)?;
        Ok(Self { log_probabilities, logits, of_targets })
    }

    /// Whether the model ranked a target first, `[rows, 1]`.
    pub fn is_correct(&self) -> Result<Tensor, ModelError> {
        let best = self.log_probabilities.f_amax([-1_i64].as_slice(), true)?;
        Ok(self.of_targets.f_ge_tensor(&best)?)
    }

    /// Sum of the cross-entropies, each by its weight.
    fn loss(&self, weights: Option<&Tensor>, smoothing: f64) -> Result<Tensor, ModelError> {
        let mut each = self.of_targets.shallow_clone();
        if smoothing > 0.0 {
            let spread = self.log_probabilities.f_mean_dim(-1, true, Kind::Float)?;
            each = each.f_mul_scalar(1.0 - smoothing)?.f_add(&spread.f_mul_scalar(smoothing)?)?;
        }
        let sum = match weights {
            None => each.f_sum(Kind::Double)?,
            Some(weights) => each.f_mul(&weights.f_unsqueeze(1)?)?.f_sum(Kind::Double)?,
        };
        Ok(sum.f_neg()?)
    }

    /// Gradient of the loss by the products of hidden states and head, `[rows, vocab]`, in their type.
    fn slope(
        self,
        head: &Head,
        targets: &Tensor,
        (weights, smoothing): (Option<&Tensor>, f64),
    ) -> Result<Tensor, ModelError> {
        let mut by_logits = self.log_probabilities;
        let _ = by_logits.f_exp_()?;
        if smoothing > 0.0 {
            let (_, vocabulary) = by_logits.size2()?;
            let _ = by_logits.f_sub_scalar_(smoothing / vocabulary as f64)?;
        }
        let share = Tensor::f_full([targets.size1()?, 1], smoothing - 1.0, (Kind::Float, targets.device()))?;
        let _ = by_logits.f_scatter_add_(1, &targets.f_unsqueeze(1)?, &share)?;
        if let Some(weights) = weights {
            let _ = by_logits.f_mul_(&weights.f_unsqueeze(1)?)?;
        }
        head.by_products(by_logits, &self.logits)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::test_support::pseudo_random;

    /// All logits at once, by libtorch's own cross-entropy and automatic differentiation.
    fn plain(hidden: &Tensor, head: &Head, wanted: Wanted<'_>) -> (Tensor, Tensor) {
        let logits = head.logits_f32(hidden).unwrap();
        let correct = logits.argmax(-1, false).eq_tensor(wanted.targets).sum(Kind::Int64);
        let (none, each): (Option<&Tensor>, _) = (None, tch::Reduction::None);
        let losses = logits.cross_entropy_loss(wanted.targets, none, each, IGNORED_LABEL, wanted.smoothing);
        let weighted = wanted.weights.map_or_else(|| losses.shallow_clone(), |weights| &losses * weights);
        (weighted.sum(Kind::Double), correct)
    }

    #[test]
    fn chunks_agree_with_the_whole() {
        let (vocabulary, rows) = (50, 7);
        let targets = Tensor::from_slice(&[0_i64, 5, 2, vocabulary - 1, 7, 8, 9]);
        let trains = [(true, false), (false, true), (true, true)];
        // A negative weight is what a loss that falls with a text's probability has.
        let weights = Tensor::from_slice(&[1.0_f32, 0.5, 2.0, -1.5, 0.25, 3.0, 1.0]);
        let cases = trains.into_iter().flat_map(|trains| [None, Some(0.3)].map(|soft_cap| (trains, soft_cap)));
        let cases = cases.flat_map(|case| [0.0, 0.3].map(|smoothing| (case, smoothing)));
        let cases = cases.flat_map(|case| [None, Some(&weights)].map(|weights| (case, weights)));
        for ((((hidden_trains, head_trains), soft_cap), smoothing), weights) in cases {
            let wanted = Wanted { targets: &targets, weights, smoothing, chunk_rows: 3 };
            let leaves = || {
                let weight = pseudo_random(&[vocabulary, 4], 1).set_requires_grad(head_trains);
                (pseudo_random(&[rows, 4], 2).set_requires_grad(hidden_trains), Head { weight, soft_cap })
            };
            let (whole, parts) = (leaves(), leaves());
            let (expected, expected_correct) = plain(&whole.0, &whole.1, wanted);
            let (found, found_correct) = chunked(&parts.0, &parts.1, wanted).unwrap();
            (&expected / 7.0).backward();
            (&found / 7.0).backward();
            assert!((found.double_value(&[]) - expected.double_value(&[])).abs() < 1e-4);
            assert!(found_correct.equal(&expected_correct));
            let heads = (head_trains, &whole.1.weight, &parts.1.weight);
            for (trains, a, b) in [(hidden_trains, &whole.0, &parts.0), heads] {
                assert_eq!(b.grad().defined(), trains);
                if trains {
                    assert!((a.grad() - b.grad()).abs().max().double_value(&[]) < 1e-6, "{soft_cap:?}");
                    assert!(b.grad().abs().max().double_value(&[]) > 1e-3);
                }
            }
        }
    }

    #[test]
    fn labels_are_shifted_within_their_document() {
        let documents = Documents::pack(&[vec![1, 2, 3], vec![4], vec![5, 6]], Device::Cpu).unwrap();
        let found = supervised_rows(&documents, &[9, -100, 3, 4, 5, 6], 10).unwrap();
        assert_eq!(found, SupervisedRows { rows: vec![1, 4], targets: vec![3, 6], documents: vec![0, 2] });
        let weights = weights_of(&found, &[0.1, 0.2, 0.3, 0.4, 0.5, 0.6], Device::Cpu).unwrap();
        assert_eq!(Vec::<f32>::try_from(weights).unwrap(), [0.3, 0.6]);
        assert!(supervised_rows(&documents, &[1], 10).is_err());
        assert!(supervised_rows(&documents, &[0, 0, 10, 0, 0, 0], 10).is_err());
    }
}
