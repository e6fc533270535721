//! The passes over the files: one judges, one encodes.

use std::{
    collections::{BTreeMap, HashSet},
    ops::ControlFlow,
    path::Path,
    thread,
};

use finetuned_protocol::{
    lint::{Finding, ReadingSpec, RowFormat, Severity},
    spec::DatasetFacts,
};

use super::{
    Encoded, HeldOut, MAX_FINDINGS,
    encode::{Encoder, Outcome},
    leaks::NearLeaks,
};
use crate::{PrepareError, ReadError, Row, RowCounts, RowOutcome, SourceFile, read_rows, rules};

/// Findings of severity `error` that an error carries.
const MAX_ERRORS: usize = 100;
/// Rows encoded between two calls of the progress callback, at most.
const BATCH_ROWS: usize = 256;
/// Rows of a batch are no more once they have so many bytes of text.
const BATCH_BYTES: usize = 1 << 20;
const MAX_THREADS: usize = 16;

/// One of the job's files.
#[derive(Clone, Copy)]
pub(super) struct Source<'p> {
    pub path: &'p Path,
    pub file: SourceFile,
    pub reading: &'p ReadingSpec,
    /// Share of the rows that may be broken.
    pub tolerance: f64,
}

/// What is told while files are prepared.
pub struct Watch<'w> {
    /// Gets bytes done and bytes in all (each file counts twice), at least every few hundred rows.
    pub progress: &'w mut dyn FnMut(u64, u64) -> ControlFlow<()>,
    /// Gets the findings of one row after the other, all of them.
    pub found: &'w mut dyn FnMut(SourceFile, &[Finding]),
}

/// Progress over all passes.
pub(super) struct Passes<'c> {
    watch: Watch<'c>,
    /// Bytes of the passes that are done.
    done_bytes: u64,
    total_bytes: u64,
    keep: Keep,
}

/// Whether encoded rows are kept or only counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    Rows,
    Counts,
}

/// What encoding gave.
#[derive(Default)]
pub(super) struct Tokens {
    pub train: Vec<Encoded>,
    pub held_out: Vec<HeldOut>,
    pub facts: DatasetFacts,
    pub dropped: Vec<Finding>,
    /// Rows by the rule that they were dropped for.
    pub dropped_by_rule: BTreeMap<String, u64>,
    pub warnings: Vec<Finding>,
}

impl Tokens {
    /// Adds what another file gave.
    pub fn merge(&mut self, other: Self) {
        self.train.extend(other.train);
        self.held_out.extend(other.held_out);
        self.dropped.extend(other.dropped);
        self.warnings.extend(other.warnings);
        for (rule, rows) in other.dropped_by_rule {
            *self.dropped_by_rule.entry(rule).or_default() += rows;
        }
        let DatasetFacts {
            train_rows,
            held_out_rows,
            train_tokens,
            train_supervised_tokens,
            longest_row_tokens,
            truncated_rows,
            dropped_rows,
        } = other.facts;
        self.facts.train_rows += train_rows;
        self.facts.held_out_rows += held_out_rows;
        self.facts.train_tokens += train_tokens;
        self.facts.train_supervised_tokens += train_supervised_tokens;
        self.facts.longest_row_tokens = self.facts.longest_row_tokens.max(longest_row_tokens);
        self.facts.truncated_rows += truncated_rows;
        self.facts.dropped_rows += dropped_rows;
    }

    fn count(&mut self, row: &Encoded, held_out: bool) {
        let facts = &mut self.facts;
        facts.longest_row_tokens = facts.longest_row_tokens.max(row.tokens() as u32);
        facts.truncated_rows += u64::from(row.truncated);
        if held_out {
            facts.held_out_rows += 1;
            return;
        }
        facts.train_rows += 1;
        facts.train_tokens += row.tokens() as u64;
        facts.train_supervised_tokens += row.supervised_tokens() as u64;
    }
}

impl<'c> Passes<'c> {
    pub fn new(
        train: Source<'_>,
        valid: Option<Source<'_>>,
        keep: Keep,
        watch: Watch<'c>,
    ) -> Result<Self, PrepareError> {
        let total_bytes = 2 * (bytes_of(train)? + valid.map_or(Ok(0), bytes_of)?);
        Ok(Self { watch, done_bytes: 0, total_bytes, keep })
    }

    /// Reads all rows and gives their digests and their format; more broken rows than are tolerated are an error, after
    /// all were read.
    pub fn judge(&mut self, source: Source<'_>, near: &mut NearLeaks) -> Result<Judged, PrepareError> {
        let mut digests = Vec::new();
        let mut format = None;
        let mut errors = Errors::new(source);
        let mut rows = 0_usize;
        self.read(source, &mut |outcome, at, passes| {
            match outcome {
                RowOutcome::Good(row) => {
                    format.get_or_insert_with(|| row.example.format());
                    near.add(&row);
                    digests.push(row.digest);
                }
                RowOutcome::Bad(findings) => {
                    passes.found(source.file, &findings);
                    errors.add(findings);
                }
            }
            errors.rows += 1;
            rows += 1;
            if rows.is_multiple_of(BATCH_ROWS) { passes.tell(at) } else { Ok(()) }
        })?;
        if rows == 0 {
            let empty = vec![rules::FILE_EMPTY.at(1, "", "the file has no rows")];
            self.found(source.file, &empty);
            errors.add(empty);
        }
        errors.few_or_error()?;
        match format {
            Some(format) => Ok(Judged { digests, format, errors }),
            // A file without a good row has an error at least.
            None => Err(errors.into()),
        }
    }

    /// Renders, tokenises and masks every row; `is_held_out` goes by the row's index.
    pub fn encode(
        &mut self,
        source: Source<'_>,
        is_held_out: &[bool],
        errors: Errors,
        encoder: &Encoder<'_>,
    ) -> Result<Tokens, PrepareError> {
        let mut sorter = Sorter::new(source, self.keep, errors);
        let mut batch: Vec<(Row, bool)> = Vec::new();
        let (mut index, mut bytes) = (0, 0);
        self.read(source, &mut |outcome, at, passes| {
            let RowOutcome::Good(row) = outcome else { return Ok(()) };
            bytes += row.example.text_bytes();
            batch.push((row, is_held_out.get(index).copied().unwrap_or(false)));
            index += 1;
            if batch.len() == BATCH_ROWS || bytes > BATCH_BYTES {
                bytes = 0;
                sorter.add(&std::mem::take(&mut batch), encoder, &mut |file, findings| passes.found(file, findings))?;
                passes.tell(at)?;
            }
            Ok(())
        })?;
        sorter.add(&batch, encoder, &mut |file, findings| self.found(file, findings))?;
        sorter.finish()
    }

    /// Rows of the validation file that equal a training row.
    pub fn leaks(
        &mut self,
        valid: Source<'_>,
        train: &HashSet<&[u8; 32]>,
        held_out: &[[u8; 32]],
    ) -> Result<Vec<Finding>, PrepareError> {
        let mut leaks = Vec::new();
        let is_disabled = valid.reading.disabled_rules.iter().any(|id| id == rules::HELD_OUT_LEAK.id);
        if is_disabled || !held_out.iter().any(|digest| train.contains(digest)) {
            return Ok(leaks);
        }
        let reason = "validation file: the row equals one of the training file, so it does not show what was learned";
        read_rows(valid.path, valid.reading, &mut |outcome, _| {
            if let RowOutcome::Good(row) = outcome
                && train.contains(&row.digest)
            {
                let leak = [rules::HELD_OUT_LEAK.at(row.line, "", reason)];
                self.found(valid.file, &leak);
                push_some(&mut leaks, leak.into());
            }
            ControlFlow::Continue(())
        })?;
        Ok(leaks)
    }

    /// One pass over a file; `each` gets the bytes read so far.
    fn read(
        &mut self,
        source: Source<'_>,
        each: &mut dyn FnMut(RowOutcome, u64, &mut Self) -> Result<(), PrepareError>,
    ) -> Result<(), PrepareError> {
        let mut result = Ok(());
        read_rows(source.path, source.reading, &mut |outcome, at| {
            result = each(outcome, at, self);
            if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        result?;
        self.done_bytes += bytes_of(source)?;
        self.tell(0)
    }

    pub fn found(&mut self, file: SourceFile, findings: &[Finding]) {
        (self.watch.found)(file, findings);
    }

    fn tell(&mut self, bytes_of_pass: u64) -> Result<(), PrepareError> {
        match (self.watch.progress)(self.done_bytes + bytes_of_pass, self.total_bytes) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(PrepareError::Cancelled),
        }
    }
}

fn bytes_of(source: Source<'_>) -> Result<u64, ReadError> {
    let failed = |cause| ReadError { path: source.path.to_owned(), cause };
    std::fs::metadata(source.path).map(|metadata| metadata.len()).map_err(failed)
}

/// What the rows of a file are, before they are encoded.
pub(super) struct Judged {
    /// Of the rows that can be trained on, in the order of the file.
    pub digests: Vec<[u8; 32]>,
    pub format: RowFormat,
    pub errors: Errors,
}

impl Judged {
    /// Rows of the file, those that cannot be used too.
    pub fn rows(&self) -> u64 {
        self.errors.rows
    }
}

/// Errors of rows: the first hundred, and how many there are.
pub(super) struct Errors {
    file: SourceFile,
    tolerance: f64,
    findings: Vec<Finding>,
    total: u64,
    rows: u64,
    bad_rows: u64,
    /// Bad rows by the first rule that each breaks.
    by_rule: BTreeMap<String, u64>,
}

impl Errors {
    fn new(source: Source<'_>) -> Self {
        Self {
            file: source.file,
            tolerance: source.tolerance,
            findings: Vec::new(),
            total: 0,
            rows: 0,
            bad_rows: 0,
            by_rule: BTreeMap::new(),
        }
    }

    fn add(&mut self, findings: Vec<Finding>) {
        self.bad_rows += 1;
        if let Some(first) = findings.iter().find(|finding| finding.severity == Severity::Error) {
            *self.by_rule.entry(first.rule.clone()).or_default() += 1;
        }
        for finding in findings.into_iter().filter(|finding| finding.severity == Severity::Error) {
            self.total += 1;
            if self.findings.len() < MAX_ERRORS {
                self.findings.push(finding);
            }
        }
    }

    /// # Errors
    /// More of the rows are bad than are tolerated.
    fn few_or_error(&self) -> Result<(), PrepareError> {
        if self.bad_rows as f64 <= self.tolerance * self.rows as f64 {
            return Ok(());
        }
        let rows = self.row_counts();
        Err(PrepareError::Rows { file: self.file, findings: self.findings.clone(), total: self.total, rows })
    }

    fn row_counts(&self) -> RowCounts {
        match self.file {
            SourceFile::Training => RowCounts { train: self.rows, valid: 0 },
            SourceFile::Validation => RowCounts { train: 0, valid: self.rows },
        }
    }
}

impl From<Errors> for PrepareError {
    fn from(errors: Errors) -> Self {
        let rows = errors.row_counts();
        let Errors { file, findings, total, .. } = errors;
        Self::Rows { file, findings, total, rows }
    }
}

/// Puts encoded rows where they belong, in the order of the file.
struct Sorter<'p> {
    file: SourceFile,
    disabled: &'p [String],
    keep: Keep,
    tokens: Tokens,
    errors: Errors,
    told_no_end_marker: bool,
}

impl<'p> Sorter<'p> {
    fn new(source: Source<'p>, keep: Keep, errors: Errors) -> Self {
        let Source { file, reading, .. } = source;
        Self {
            file,
            disabled: &reading.disabled_rules,
            keep,
            tokens: Tokens::default(),
            errors,
            told_no_end_marker: false,
        }
    }

    fn add(
        &mut self,
        batch: &[(Row, bool)],
        encoder: &Encoder<'_>,
        found: &mut dyn FnMut(SourceFile, &[Finding]),
    ) -> Result<(), PrepareError> {
        let outcomes = in_parallel(batch, |(row, held_out)| encoder.row(row, *held_out));
        for (outcome, (_, held_out)) in outcomes.into_iter().zip(batch) {
            let outcome = outcome.map_err(|cause| PrepareError::Tokenizer { file: self.file, cause })?;
            self.sort(outcome, *held_out, found);
        }
        Ok(())
    }

    fn sort(&mut self, outcome: Outcome, held_out: bool, found: &mut dyn FnMut(SourceFile, &[Finding])) {
        let Outcome { encoded, mut findings } = outcome;
        if self.file == SourceFile::Validation {
            findings.iter_mut().for_each(|finding| finding.reason.insert_str(0, "validation file: "));
        }
        // A matter of the template, not of the row: once is enough.
        findings.retain(|finding| {
            finding.rule != rules::NO_END_MARKER.id || !std::mem::replace(&mut self.told_no_end_marker, true)
        });
        // What a row is dropped for counts, whether it is told or not.
        let last = findings.last().map(|finding| finding.rule.clone());
        findings.retain(|finding| !self.disabled.contains(&finding.rule));
        if !findings.is_empty() {
            found(self.file, &findings);
        }
        if !encoded.is_empty() {
            push_some(&mut self.tokens.warnings, findings);
            encoded.into_iter().for_each(|row| self.keep(row, held_out));
        } else if findings.iter().any(|finding| finding.severity == Severity::Error) {
            self.errors.add(findings);
        } else {
            self.tokens.facts.dropped_rows += 1;
            if let Some(rule) = last {
                *self.tokens.dropped_by_rule.entry(rule).or_default() += 1;
            }
            push_some(&mut self.tokens.dropped, findings);
        }
    }

    fn keep(&mut self, row: HeldOut, held_out: bool) {
        self.tokens.count(&row.encoded, held_out);
        match (self.keep, held_out) {
            (Keep::Counts, _) => {}
            (Keep::Rows, true) => self.tokens.held_out.push(row),
            (Keep::Rows, false) => self.tokens.train.push(row.encoded),
        }
    }

    fn finish(self) -> Result<Tokens, PrepareError> {
        let Self { mut tokens, errors, .. } = self;
        errors.few_or_error()?;
        tokens.facts.dropped_rows += errors.bad_rows;
        push_some(&mut tokens.dropped, errors.findings);
        for (rule, rows) in errors.by_rule {
            *tokens.dropped_by_rule.entry(rule).or_default() += rows;
        }
        Ok(tokens)
    }
}

pub(super) fn push_some(kept: &mut Vec<Finding>, findings: Vec<Finding>) {
    let room = MAX_FINDINGS.saturating_sub(kept.len());
    kept.extend(findings.into_iter().take(room));
}

/// Applies `work` to all items on several threads; results come in the order of the items.
pub(super) fn in_parallel<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let threads = thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS);
    let share = items.len().div_ceil(threads).max(1);
    thread::scope(|scope| {
        let work = &work;
        let handles: Vec<_> =
            items.chunks(share).map(|part| scope.spawn(move || part.iter().map(work).collect::<Vec<R>>())).collect();
        handles
            .into_iter()
            .flat_map(|handle| handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    })
}
