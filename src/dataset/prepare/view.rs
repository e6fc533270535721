//! One row as training sees it.

use finetuned_protocol::{
    inspection::{RowView, TokenView},
    lint::RowFormat,
    spec::PreparationSpec,
};
use finetuned_weights::{TextTokenizer, WeightsError};

use super::{
    IGNORED_LABEL,
    encode::{Encoder, Outcome},
};
use crate::example::Row;

/// Renders, tokenises and masks a row, and tells where `max_seq_len` cuts it.
///
/// # Errors
/// A tokenizer that fails; a template that refuses the row is one of its findings.
pub fn view_row(
    spec: &PreparationSpec,
    row: &Row,
    format: Option<RowFormat>,
    tokenizer: &TextTokenizer,
) -> Result<RowView, WeightsError> {
    // Whole, so that what is cut off can be seen.
    let whole = PreparationSpec { max_seq_len: u32::MAX, ..spec.clone() };
    let encoder = Encoder::new(&whole, tokenizer);
    let Outcome { encoded, .. } = encoder.row(row, false)?;
    let Outcome { mut findings, .. } = Encoder::new(spec, tokenizer).row(row, false)?;
    findings.retain(|finding| !spec.rows.training.disabled_rules.contains(&finding.rule));
    // Uncut, a document is one piece; of a pair, the answer that is liked better is shown.
    let encoded = encoded.into_iter().next().map(|row| row.encoded);
    let mut tokens = Vec::new();
    if let Some(encoded) = &encoded {
        for (id, label) in encoded.ids.iter().zip(&encoded.labels) {
            let text = tokenizer.decode(&[*id], false)?;
            tokens.push(TokenView { id: *id, text, has_loss: *label != IGNORED_LABEL });
        }
    }
    let most = u64::from(spec.max_seq_len);
    Ok(RowView {
        line: row.line,
        format,
        rendered: encoder.text(row)?.unwrap_or_default(),
        supervised_tokens: encoded.map_or(0, |encoded| encoded.supervised_tokens() as u64),
        truncated_at: (tokens.len() as u64 > most).then_some(most),
        tokens,
        max_seq_len: spec.max_seq_len,
        findings,
    })
}
