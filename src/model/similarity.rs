//! How alike two texts are to an encoder.

use finetuned_protocol::embedding::TextSimilarity;
use finetuned_torch::{Kind, Tensor};

use crate::{encoder::EncodedStates, error::ModelError};

/// Likeness of a prediction to its reference. The token figures are the greedy matching of BERTScore (Zhang et al. 2020),
/// without its weighting by rarity and without its rescaling; and by the last layer of whichever encoder saw the texts. It
/// is none of the models that BERTScore's published figures are of, so the two must not be compared.
///
/// # Errors
/// Too little memory.
pub fn similarity(reference: &EncodedStates, prediction: &EncodedStates) -> Result<TextSimilarity, ModelError> {
    let cosine = reference.embedding.f_dot(&prediction.embedding)?.f_double_value(&[])?;
    let (token_precision, token_recall) = matched(&reference.tokens, &prediction.tokens)?;
    let is_like = token_precision > 0.0 && token_recall > 0.0;
    let token_f1 = if is_like { 2.0 * token_precision * token_recall / (token_precision + token_recall) } else { 0.0 };
    Ok(TextSimilarity { cosine, token_precision, token_recall, token_f1 })
}

/// Precision and recall; both are `[tokens, hidden]` of length one. A text without tokens matches another such only.
fn matched(reference: &Tensor, prediction: &Tensor) -> Result<(f64, f64), ModelError> {
    match (reference.size2()?.0, prediction.size2()?.0) {
        (0, 0) => Ok((1.0, 1.0)),
        (0, _) | (_, 0) => Ok((0.0, 0.0)),
        _ => {
            let likeness = prediction.f_matmul(&reference.f_tr()?)?; // [prediction, reference]
            let mean_of_best = |dim: i64| {
                let best = likeness.f_amax([dim].as_slice(), false)?;
                best.f_mean(Kind::Double)?.f_double_value(&[])
            };
            Ok((mean_of_best(1)?, mean_of_best(0)?))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn tokens(rows: &[[f64; 2]]) -> Tensor {
        Tensor::from_slice2(rows).to_kind(Kind::Float)
    }

    #[test]
    fn each_token_is_matched_with_its_nearest() {
        let reference = tokens(&[[1.0, 0.0], [0.0, 1.0]]);
        let prediction = tokens(&[[1.0, 0.0], [0.6, 0.8], [0.8, 0.6]]);
        let (precision, recall) = matched(&reference, &prediction).unwrap();
        // Nearest: 1, 0.8, 0.8 of the prediction's; 1 and 0.8 of the reference's.
        assert!((precision - 2.6 / 3.0).abs() < 1e-6, "{precision}");
        assert!((recall - 0.9).abs() < 1e-6, "{recall}");
    }

    #[test]
    fn a_text_without_tokens_is_like_nothing_else() {
        let some = tokens(&[[1.0, 0.0]]);
        let none = some.narrow(0, 0, 0);
        assert_eq!(matched(&none, &some).unwrap(), (0.0, 0.0));
        assert_eq!(matched(&some, &none).unwrap(), (0.0, 0.0));
        assert_eq!(matched(&none, &none).unwrap(), (1.0, 1.0));
    }
}
