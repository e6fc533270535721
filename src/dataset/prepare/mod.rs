//! Rows to tokens: the worker's validation surveys what the engine then prepares, by the same passes, so they agree.
//!
//! Each file is read twice: first to judge every row and to choose the held-out ones, then to render, tokenise and
//! mask.

mod alpaca;
mod encode;
mod leaks;
mod pass;
mod render;
mod statistics;
mod turns;
mod unwritten;
mod view;

use std::{
    collections::{BTreeMap, HashSet},
    ops::ControlFlow,
    path::Path,
};

use finetuned_protocol::{
    evaluation::HeldOutSource,
    lint::{Finding, RowFormat},
    spec::{DatasetFacts, PreparationSpec, RowsSpec},
};
use finetuned_weights::TextTokenizer;

use crate::{PrepareError, RowCounts, SourceFile, rules, split::held_out_split};
use encode::Encoder;
use leaks::{NearLeak, NearLeaks};
pub use pass::Watch;
use pass::{Judged, Keep, Passes, Source, Tokens, push_some};
pub use statistics::token_statistics;
pub(crate) use turns::{readable, turns_of};
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
    /// What a person should know of rows that are used, at most 1,000 findings; a [`Survey`] also compares held-out rows
    /// with training rows.
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
    pub rows: RowCounts,
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
    let watch = Watch { progress, found: &mut |_, _| {} };
    let (Tokens { train, held_out, facts, dropped, warnings, dropped_by_rule: _ }, ..) =
        encode_all(spec, Files::new(&spec.rows, train, valid), tokenizer, (Keep::Rows, watch))?;
    Ok(Prepared { train, held_out, facts, dropped, warnings, held_out_source: source })
}

/// The same without the rows themselves: memory does not grow with the file's tokens. Held-out rows are compared with
/// training rows, and `watch` gets every finding.
///
/// # Errors
/// As [`prepare`].
pub fn survey(
    spec: &PreparationSpec,
    train: &Path,
    valid: Option<&Path>,
    tokenizer: &TextTokenizer,
    watch: Watch<'_>,
) -> Result<Survey, PrepareError> {
    let (Tokens { facts, dropped, dropped_by_rule, warnings, .. }, formats, rows) =
        encode_all(spec, Files::new(&spec.rows, train, valid), tokenizer, (Keep::Counts, watch))?;
    Ok(Survey { facts, dropped, dropped_by_rule, warnings, formats, rows })
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
    (keep, watch): (Keep, Watch<'_>),
) -> Result<(Tokens, Formats, RowCounts), PrepareError> {
    let mut passes = Passes::new(train, valid, keep, watch)?;
    let holder = valid.unwrap_or(train);
    let is_compared = keep == Keep::Counts
        && (valid.is_some() || spec.eval_fraction > 0.0)
        && !holder.reading.disabled_rules.iter().any(|id| id == rules::HELD_OUT_NEAR.id);
    let mut near = if is_compared { NearLeaks::new() } else { NearLeaks::default() };
    let judged = passes.judge(train, &mut near)?;
    let judged_valid = valid.map(|valid| passes.judge(valid, &mut near)).transpose()?;
    let formats = Formats { train: judged.format, valid: judged_valid.as_ref().map(|judged| judged.format) };
    let rows = RowCounts { train: judged.rows(), valid: judged_valid.as_ref().map_or(0, Judged::rows) };
    let Judged { digests, errors, .. } = judged;
    let is_held_out = match valid {
        Some(_) => vec![false; digests.len()],
        None => held_out_split(&digests, spec.eval_fraction, spec.split_seed),
    };
    let encoder = Encoder::new(spec, tokenizer);
    let mut tokens = passes.encode(train, &is_held_out, errors, &encoder)?;
    let mut leaks = Vec::new();
    if let (Some(valid), Some(Judged { digests: held_out, errors, .. })) = (valid, judged_valid) {
        let known: HashSet<&[u8; 32]> = digests.iter().collect();
        leaks = passes.leaks(valid, &known, &held_out)?;
        tokens.merge(passes.encode(valid, &vec![true; held_out.len()], errors, &encoder)?);
        let first = digests.len() as u64;
        // Those that equal a row are told already.
        let is_new = |row: u64| held_out.get((row - first) as usize).is_some_and(|digest| !known.contains(digest));
        tell_near(near, &|row| row >= first && is_new(row), holder, (&mut passes, &mut leaks));
    } else {
        tell_near(near, &|row| is_held_out.get(row as usize) == Some(&true), holder, (&mut passes, &mut leaks));
    }
    tokens.warnings.splice(0..0, leaks);
    if tokens.facts.train_rows == 0 {
        let dropped = tokens.facts.dropped_rows;
        return Err(PrepareError::NothingToTrain { rows, dropped, findings: tokens.dropped });
    }
    if tokens.facts.held_out_rows == 0 && (valid.is_some() || spec.eval_fraction > 0.0) {
        let reason = "no row could be held out, so the result cannot be judged; give more, or shorter, rows";
        let empty = rules::HELD_OUT_EMPTY.at(1, "", reason);
        passes.found(holder.file, std::slice::from_ref(&empty));
        tokens.warnings.insert(0, empty);
    }
    tokens.dropped.truncate(MAX_FINDINGS);
    tokens.warnings.truncate(MAX_FINDINGS);
    Ok((tokens, formats, rows))
}

/// Tells the held-out rows that are nearly like a training row; `holder` is the file that they lie in.
fn tell_near(
    near: NearLeaks,
    is_held_out: &dyn Fn(u64) -> bool,
    holder: Source<'_>,
    (passes, leaks): (&mut Passes<'_>, &mut Vec<Finding>),
) {
    let prefix = if holder.file == SourceFile::Validation { "validation file: " } else { "" };
    let mut tell = |finding: Finding| {
        passes.found(holder.file, std::slice::from_ref(&finding));
        push_some(leaks, vec![finding]);
    };
    match near.finish(is_held_out) {
        Ok(found) => found.into_iter().for_each(|NearLeak { held_out, train }| {
            let reason = format!(
                "{prefix}the held-out row is nearly the training row of line {train}, so it hardly shows what was learned"
            );
            tell(rules::HELD_OUT_NEAR.at(held_out, "", reason));
        }),
        Err(unchecked) => tell(unchecked),
    }
}

#[cfg(test)]
mod mask_tests;
#[cfg(test)]
mod objective_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tools_tests;
