//! Rows to tokens: the worker's validation surveys what the engine then prepares, by the same passes, so they agree.
//!
//! Each file is read twice: first to judge every row and to choose the held-out ones, then to render, tokenise and
//! mask.

mod alpaca;
mod encode;
mod pass;
mod render;
mod statistics;
mod turns;
mod unwritten;
mod view;

use std::{collections::BTreeMap, ops::ControlFlow, path::Path};

use finetuned_protocol::{
    evaluation::HeldOutSource,
    lint::{Finding, RowFormat},
    spec::{DatasetFacts, PreparationSpec, RowsSpec},
};
use finetuned_weights::TextTokenizer;

use crate::{PrepareError, SourceFile, rules, split::held_out_split};
use encode::Encoder;
use pass::{Judged, Keep, Passes, Source, Tokens};
pub use statistics::token_statistics;
pub use view::view_row;

/// The label of a token that carries no loss.
pub const IGNORED_LABEL: i64 = -100;
/// Findings kept of each kind.
const MAX_FINDINGS: usize = 1000;

/// A row as tokens, or a piece of a document.
#[derive(Debug, Clone, PartialEq)]
pub struct Encoded {
    /// Line of the row in its file, counted from 1.
    pub line: u64,
    /// Which piece of its document it is, counted from 0; 0 for any other row.
    pub piece: u32,
    /// At most `max_seq_len` tokens; what follows the last token with loss is left out.
    pub ids: Vec<u32>,
    /// As long as `ids`: the label of the token AT each place, [`IGNORED_LABEL`] for none. The first token, which
    /// nothing predicts, never has one. The shift by one is the loss's affair.
    pub labels: Vec<i64>,
    /// As long as `ids`: what the loss of each token is multiplied by. `None` where that is 1 for all that carry loss.
    pub weights: Option<Vec<f32>>,
    /// The answer that is liked less, of a pair; `ids` are then the better one.
    pub rejected: Option<Rejected>,
    /// Whether tokens with loss were cut off by `max_seq_len`.
    pub truncated: bool,
}

/// The second answer of a pair, behind the same prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// As [`Encoded::ids`].
    pub ids: Vec<u32>,
    /// As [`Encoded::labels`].
    pub labels: Vec<i64>,
}

impl Encoded {
    /// Tokens that carry loss; of a pair, of its better answer.
    pub fn supervised_tokens(&self) -> usize {
        supervised(&self.labels)
    }

    /// Tokens that are computed: of a pair, those of both answers with their prompts.
    pub fn tokens(&self) -> usize {
        self.ids.len() + self.rejected.as_ref().map_or(0, |rejected| rejected.ids.len())
    }
}

fn supervised(labels: &[i64]) -> usize {
    labels.iter().filter(|label| **label != IGNORED_LABEL).count()
}

/// A held-out row: to be scored, and one answer of it (the last whose prompt fits) to be given by the model itself.
#[derive(Debug, Clone, PartialEq)]
pub struct HeldOut {
    pub encoded: Encoded,
    /// Fewer than `max_seq_len` tokens, ending with the generation prompt; empty for documents and rows that came as
    /// tokens.
    pub prompt_ids: Vec<u32>,
    /// The prompt as a person would read it, without the template's markers.
    pub prompt_text: String,
    /// The answer in the row.
    pub reference: String,
}

/// Everything that training and evaluation read.
#[derive(Debug, Clone, PartialEq)]
pub struct Prepared {
    /// In the order of the file.
    pub train: Vec<Encoded>,
    /// In the order of the file.
    pub held_out: Vec<HeldOut>,
    pub facts: DatasetFacts,
    /// Rows left out, at most 1,000 findings; `facts.dropped_rows` counts all.
    pub dropped: Vec<Finding>,
    /// What a person should know of rows that are used, at most 1,000 findings.
    pub warnings: Vec<Finding>,
    pub held_out_source: HeldOutSource,
}

/// What is known of the rows without keeping them.
#[derive(Debug, Clone, PartialEq)]
pub struct Survey {
    pub facts: DatasetFacts,
    /// As in [`Prepared`].
    pub dropped: Vec<Finding>,
    /// Rows that are left out, by rule.
    pub dropped_by_rule: BTreeMap<String, u64>,
    /// As in [`Prepared`].
    pub warnings: Vec<Finding>,
    pub formats: Formats,
}

/// What the rows of each file are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Formats {
    pub train: RowFormat,
    pub valid: Option<RowFormat>,
}

/// Reads, renders, tokenises, masks and splits. The same files, settings and tokenizer give the same result, byte by
/// byte.
///
/// Which tokens carry loss: those of answers (but answers of weight 0) and of the marker that ends an answer, not the
/// white space after it; with `train_on_prompt` every token but a row's first; in rows that came as tokens, those with
/// a label; in documents, every token but the first, and the token that ends them. A document longer than `max_seq_len`
/// becomes several pieces, each of which begins with the last token of the one before, so that no token goes unlearned. An answer is found by rendering the messages before it with the generation prompt and the messages up to
/// it; where a template writes these differently, so that one is no beginning of the other, the answer carries no loss
/// and a finding says so. Prompt and answer are tokenised apart, so that the answer's tokens are those the model itself
/// would give.
///
/// `progress` gets bytes done and bytes in all (each file counts twice), at least every few hundred rows.
///
/// # Errors
/// Rows that cannot be trained on (all counted, the first 100 named), nothing left to train on, a file that cannot be
/// read, a tokenizer that fails, or a callback that asked to stop.
pub fn prepare(
    spec: &PreparationSpec,
    train: &Path,
    valid: Option<&Path>,
    tokenizer: &TextTokenizer,
    progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
) -> Result<Prepared, PrepareError> {
    let source = if valid.is_some() { HeldOutSource::ValidationFile } else { HeldOutSource::Split };
    let (Tokens { train, held_out, facts, dropped, warnings, dropped_by_rule: _ }, _) =
        encode_all(spec, Files::new(&spec.rows, train, valid), tokenizer, (Keep::Rows, progress))?;
    Ok(Prepared { train, held_out, facts, dropped, warnings, held_out_source: source })
}

/// The same without the rows themselves: memory does not grow with the file's tokens.
///
/// # Errors
/// As [`prepare`].
pub fn survey(
    spec: &PreparationSpec,
    train: &Path,
    valid: Option<&Path>,
    tokenizer: &TextTokenizer,
    progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
) -> Result<Survey, PrepareError> {
    let (Tokens { facts, dropped, dropped_by_rule, warnings, .. }, formats) =
        encode_all(spec, Files::new(&spec.rows, train, valid), tokenizer, (Keep::Counts, progress))?;
    Ok(Survey { facts, dropped, dropped_by_rule, warnings, formats })
}

/// A job's files.
#[derive(Clone, Copy)]
struct Files<'p> {
    train: Source<'p>,
    valid: Option<Source<'p>>,
}

impl<'p> Files<'p> {
    fn new(rows: &'p RowsSpec, train: &'p Path, valid: Option<&'p Path>) -> Self {
        let source = |path, file, reading| Source { path, file, reading, tolerance: rows.invalid_row_tolerance };
        Self {
            train: source(train, SourceFile::Training, &rows.training),
            valid: valid.map(|path| source(path, SourceFile::Validation, &rows.validation)),
        }
    }
}

fn encode_all(
    spec: &PreparationSpec,
    Files { train, valid }: Files<'_>,
    tokenizer: &TextTokenizer,
    (keep, progress): (Keep, &mut dyn FnMut(u64, u64) -> ControlFlow<()>),
) -> Result<(Tokens, Formats), PrepareError> {
    let mut passes = Passes::new(train, valid, keep, progress)?;
    let Judged { digests: train_digests, format: train_format, errors } = passes.judge(train)?;
    let judged_valid = valid.map(|valid| passes.judge(valid)).transpose()?;
    let valid_format = judged_valid.as_ref().map(|judged| judged.format);
    let is_held_out = match valid {
        Some(_) => vec![false; train_digests.len()],
        None => held_out_split(&train_digests, spec.eval_fraction, spec.split_seed),
    };
    let encoder = Encoder::new(spec, tokenizer);
    let mut tokens = passes.encode(train, &is_held_out, errors, &encoder)?;
    if let (Some(valid), Some(Judged { digests, errors, .. })) = (valid, judged_valid) {
        let leaks = passes.leaks(valid, &train_digests, &digests)?;
        tokens.merge(passes.encode(valid, &vec![true; digests.len()], errors, &encoder)?);
        tokens.warnings.splice(0..0, leaks);
    }
    if tokens.facts.train_rows == 0 {
        let (rows, dropped) = (train_digests.len() as u64, tokens.facts.dropped_rows);
        return Err(PrepareError::NothingToTrain { rows, dropped, findings: tokens.dropped });
    }
    if tokens.facts.held_out_rows == 0 && (valid.is_some() || spec.eval_fraction > 0.0) {
        let reason = "no row could be held out, so the result cannot be judged; give more, or shorter, rows";
        tokens.warnings.insert(0, rules::HELD_OUT_EMPTY.at(1, "", reason));
    }
    tokens.dropped.truncate(MAX_FINDINGS);
    tokens.warnings.truncate(MAX_FINDINGS);
    Ok((tokens, Formats { train: train_format, valid: valid_format }))
}

#[cfg(test)]
mod mask_tests;
#[cfg(test)]
mod objective_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tools_tests;
