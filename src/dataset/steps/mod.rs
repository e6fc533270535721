//! Datasets made of others: rows of several files go through steps, each a pass from one temporary file to the next.
//!
//! Memory: one row, what a step remembers (at most 16 bytes a row, and [`MOST_ROWS`] rows), and buffers. Disk: the rows
//! twice. The same files, steps and seed give the same bytes: whatever is chosen at random follows from a hash of the
//! seed and the row.

mod check;
mod column;
mod deduplicate;
mod error;
mod filter;
mod moment;
mod read;
mod shuffle;
mod split;
mod spool;
#[cfg(test)]
mod tests;
mod write;

use std::{collections::BTreeMap, ops::ControlFlow, path::Path};

pub use check::{check_steps, dropped_rules};
pub use error::{Blame, StepError};
use finetuned_protocol::{
    lint::{FileLayout, ReadingSpec, RowFormat},
    preparation::{Manifest, PreparationStep, PreparedRecord, SourceRecord, StepRecord},
};
use sha2::{Digest, Sha256};

use finetuned_weights::TextTokenizer;

use crate::{Row, json::Object, reader::RowParser, splitter};
use spool::{Marks, Record, Spool, SpoolWriter};

/// Rows of one preparation, all sources together.
const MOST_ROWS: u64 = 10_000_000;
/// Rows between two calls of the progress callback.
const PROGRESS_ROWS: u64 = 512;

/// A file that rows are taken from.
#[derive(Debug, Clone)]
pub struct StepSource<'p> {
    pub path: &'p Path,
    pub reading: &'p ReadingSpec,
    /// What is known of it; its counts are filled in.
    pub record: SourceRecord,
}

/// What is to be done.
#[derive(Clone, Copy)]
pub struct StepPlan<'p> {
    pub sources: &'p [StepSource<'p>],
    pub steps: &'p [PreparationStep],
    pub seed: u32,
    /// Of the model whose tokens a step counts.
    pub tokenizer: Option<&'p TextTokenizer>,
    /// Most bytes of all rows together.
    pub most_bytes: u64,
}

/// What was done.
#[derive(Debug, Clone, PartialEq)]
pub struct Applied {
    pub sources: Vec<SourceRecord>,
    pub steps: Vec<StepRecord>,
    /// How the files that were written are read.
    pub reading: ReadingSpec,
    pub training_rows: u64,
    /// Zero where no step splits; no file is written then.
    pub held_out_rows: u64,
}

impl Applied {
    /// The record of what was done, with the files that were written.
    pub fn manifest(&self, seed: u32, training: PreparedRecord, held_out: Option<PreparedRecord>) -> Manifest {
        let (sources, steps, reading) = (self.sources.clone(), self.steps.clone(), self.reading.clone());
        Manifest { sources, seed, steps, reading, training, held_out }
    }
}

/// Bytes done and bytes in all, of all passes together.
pub type StepProgress<'c> = &'c mut dyn FnMut(u64, u64) -> ControlFlow<()>;

/// Takes the rows of all sources through the steps and writes them as JSON lines: those to train on to `training`, and
/// where a step splits, the others to `held_out`.
///
/// # Errors
/// Sources and steps that do not go together, rows that cannot be read, nothing left, the disk, or a callback that asked
/// to stop.
pub fn apply_steps(
    plan: &StepPlan<'_>,
    training: &Path,
    held_out: &Path,
    progress: StepProgress<'_>,
) -> Result<Applied, StepError> {
    let source_bytes: u64 = plan.sources.iter().map(|source| source.record.bytes).sum();
    let passes = plan.steps.len() as u64 + 2;
    let mut progress = Progress { call: progress, done: 0, total: source_bytes.saturating_mul(passes).max(1) };
    let read::Taken { mut spool, format, mut sources } = read::take(plan, &mut progress)?;
    let rows = Rows { format, disabled_rules: disabled_rules(plan), plan };
    let mut steps = Vec::new();
    for (index, step) in plan.steps.iter().enumerate() {
        let before = spool.counts;
        let left = rows.apply((index, step), &mut spool, &mut progress)?;
        let after = spool.counts;
        if after.rows == after.held_out {
            let message = format!("no row to train on is left after this step, of {} before it", before.rows);
            return Err(StepError::refused(Blame::Step { index, field: None }, message));
        }
        steps.push(StepRecord {
            step: step.clone(),
            rows_in: before.rows,
            rows_out: after.rows,
            held_out_rows: after.held_out,
            left_by_rule: left,
        });
    }
    let is_shuffled = plan.steps.iter().any(|step| matches!(step, PreparationStep::Shuffle {}));
    rows.weigh(&mut spool, plan, is_shuffled, &mut progress)?;
    write::out(&mut spool, training, held_out, &mut sources)?;
    let Spooled { training_rows, held_out_rows } = spool.counts.into();
    Ok(Applied { sources, steps, reading: rows.reading(), training_rows, held_out_rows })
}

struct Spooled {
    training_rows: u64,
    held_out_rows: u64,
}

impl From<spool::Counts> for Spooled {
    fn from(counts: spool::Counts) -> Self {
        Self { training_rows: counts.rows - counts.held_out, held_out_rows: counts.held_out }
    }
}

/// Rules that a source does without, which a row may therefore break.
fn disabled_rules(plan: &StepPlan<'_>) -> Vec<String> {
    let mut rules: Vec<String> =
        plan.sources.iter().flat_map(|source| source.reading.disabled_rules.iter().cloned()).collect();
    rules.sort_unstable();
    rules.dedup();
    rules
}

/// How far the passes are.
struct Progress<'c> {
    call: StepProgress<'c>,
    done: u64,
    total: u64,
}

impl Progress<'_> {
    fn add(&mut self, bytes: u64) {
        self.done = (self.done + bytes).min(self.total);
    }

    fn tell(&mut self) -> Result<(), StepError> {
        match (self.call)(self.done, self.total) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(StepError::Cancelled),
        }
    }
}

/// What all rows have in common.
struct Rows<'p> {
    format: RowFormat,
    disabled_rules: Vec<String>,
    plan: &'p StepPlan<'p>,
}

/// Rows that left, by the rule that they left by.
type LeftByRule = BTreeMap<String, u64>;

/// What becomes of a row.
enum Verdict {
    Stays,
    IsHeldOut,
    Leaves(&'static str),
}

impl Rows<'_> {
    fn reading(&self) -> ReadingSpec {
        ReadingSpec {
            layout: Some(FileLayout::JsonLines),
            format: Some(self.format),
            disabled_rules: self.disabled_rules.clone(),
            ..ReadingSpec::default()
        }
    }

    fn apply(
        &self,
        (index, step): (usize, &PreparationStep),
        spool: &mut Spool,
        progress: &mut Progress<'_>,
    ) -> Result<LeftByRule, StepError> {
        match step {
            PreparationStep::Deduplicate { near } => self.deduplicate(*near, spool, progress),
            PreparationStep::Drop { rules } => self.drop_by_rule(rules, spool, progress),
            PreparationStep::Redact { kinds } => self.redact(kinds.as_deref(), spool, progress),
            PreparationStep::FilterLength(filter) => self.filter_length(filter, index, (spool, progress)),
            PreparationStep::CapPerSource(cap) => self.cap_per_source(cap, index, (spool, progress)),
            PreparationStep::Split(split) => self.split(split, index, (spool, progress)),
            PreparationStep::Shuffle {} => {
                self.shuffle(spool, "shuffle", progress)?;
                Ok(LeftByRule::new())
            }
        }
    }

    /// Gives every row with what it says.
    fn each_row(
        &self,
        spool: &mut Spool,
        progress: &mut Progress<'_>,
        each: &mut dyn FnMut(&Record<'_>, Row, Object<'_>) -> Result<(), StepError>,
    ) -> Result<(), StepError> {
        let mut parser = RowParser::new(&self.reading());
        let mut findings = Vec::new();
        pass(spool, progress, &mut |record| {
            let place = splitter::Place { line: record.line, column: 0 };
            let piece = splitter::Piece::Row { place, bytes: record.json, terminated: true };
            findings.clear();
            // It was read before, when it was taken from its source.
            match parser.read_with_fields(piece, &mut findings) {
                Some((row, fields)) => each(record, row, fields),
                None => {
                    let reason = findings.first().map_or_else(String::new, |finding| finding.reason.clone());
                    Err(std::io::Error::other(format!("a row that was read cannot be read again: {reason}")).into())
                }
            }
        })
    }

    /// Numbers that are as good as drawn, and the same for the same seed, purpose and bytes.
    fn draw(&self, purpose: &str, bytes: &[u8]) -> u64 {
        let hash = Sha256::new().chain_update(self.plan.seed.to_le_bytes()).chain_update(purpose).chain_update([0]);
        let [a, b, c, d, e, f, g, h, ..] = <[u8; 32]>::from(hash.chain_update(bytes).finalize());
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    }
}

/// Gives every row of a spool, with progress.
fn pass(
    spool: &mut Spool,
    progress: &mut Progress<'_>,
    each: &mut dyn FnMut(&Record<'_>) -> Result<(), StepError>,
) -> Result<(), StepError> {
    spool.each(&mut |record| {
        progress.add(record.json.len() as u64);
        if record.index.is_multiple_of(PROGRESS_ROWS) {
            progress.tell()?;
        }
        each(&record)
    })
}

/// Copies the rows that stay.
fn sift(
    spool: &mut Spool,
    progress: &mut Progress<'_>,
    judge: &mut dyn FnMut(&Record<'_>) -> Result<Verdict, StepError>,
) -> Result<LeftByRule, StepError> {
    let mut left = LeftByRule::new();
    let mut writer = SpoolWriter::new()?;
    spool.each(&mut |record| {
        if record.index.is_multiple_of(PROGRESS_ROWS) {
            progress.tell()?;
        }
        match judge(&record)? {
            Verdict::Stays => writer.push(&record)?,
            Verdict::IsHeldOut => writer.push(&Record { held_out: true, ..record })?,
            Verdict::Leaves(rule) => *left.entry(rule.to_owned()).or_default() += 1,
        }
        Ok(())
    })?;
    *spool = writer.finish()?;
    Ok(left)
}

/// Rows that equal an earlier one, and rows that are nearly like one.
struct Repeated {
    equal: Marks,
    near: Marks,
}
