//! How well the model predicts the held-out answers.

use finetuned_dataset::{Encoded, IGNORED_LABEL};
use finetuned_evaluation::LikelihoodSum;
use finetuned_model::{Adapter, CausalLm, ForwardContext};
use finetuned_protocol::engine::Phase;
use finetuned_weights::TextTokenizer;

use crate::{compute::pass, error::EngineError, watch::Watch};

/// Scores rows, `size` at a time. Nothing is drawn, so `size` changes no more than the rounding.
///
/// # Errors
/// The model's, or the reason to break off.
pub fn score(
    model: &CausalLm,
    adapter: Option<&Adapter>,
    rows: &[&Encoded],
    (size, tokenizer): (usize, &TextTokenizer),
    watch: &mut Watch,
) -> Result<LikelihoodSum, EngineError> {
    let mut sum = LikelihoodSum::default();
    for rows_now in rows.chunks(size.max(1)) {
        watch.tick(Phase::Evaluating, sum.rows, rows.len() as u64)?;
        let parts = tch::no_grad(|| pass(model, adapter, rows_now, None, &ForwardContext::default()))?;
        sum.merge(&LikelihoodSum {
            loss_sum: parts.loss_sum.f_double_value(&[])?,
            correct_tokens: parts.correct.f_int64_value(&[])? as u64,
            supervised_tokens: parts.supervised as u64,
            rows: rows_now.len() as u64,
            supervised_bytes: supervised_bytes(rows_now, tokenizer)?,
        });
    }
    watch.tick(Phase::Evaluating, sum.rows, rows.len() as u64)?;
    Ok(sum)
}

/// Bytes of the text that the rows' supervised tokens stand for.
fn supervised_bytes(rows: &[&Encoded], tokenizer: &TextTokenizer) -> Result<u64, EngineError> {
    let mut bytes = 0;
    for row in rows {
        let labelled = row.ids.iter().zip(&row.labels).filter(|(_, label)| **label != IGNORED_LABEL);
        let ids: Vec<u32> = labelled.map(|(id, _)| *id).collect();
        bytes += tokenizer.decode(&ids, true)?.len() as u64;
    }
    Ok(bytes)
}
