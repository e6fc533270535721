//! From files to rows as JSON, each under the names that its format has for its fields.

use std::ops::ControlFlow;

use finetuned_protocol::{
    lint::{Finding, RowFormat, Severity},
    preparation::SourceRecord,
};

use super::{
    Blame, LeftByRule, MOST_ROWS, Progress, StepError, StepPlan, StepSource, dropped_rules,
    spool::{Record, Spool, SpoolWriter},
};
use crate::{
    container::Container,
    reader::{RowParser, each_portion},
    splitter::Piece,
};

/// Findings that an error names.
const MOST_FINDINGS: usize = 100;

/// Rows of all sources.
pub(super) struct Taken {
    pub spool: Spool,
    pub format: RowFormat,
    pub sources: Vec<SourceRecord>,
}

/// Reads every source.
///
/// # Errors
/// See [`super::apply_steps`].
pub(super) fn take(plan: &StepPlan<'_>, progress: &mut Progress<'_>) -> Result<Taken, StepError> {
    let mut writer = SpoolWriter::new()?;
    let mut sources = Vec::new();
    let droppable = dropped_rules(plan.steps);
    let mut first: Option<(usize, RowFormat)> = None;
    for (index, source) in plan.sources.iter().enumerate() {
        let before = writer.counts().rows;
        let faults = Faults::new(&droppable);
        let mut reading = Reading { plan, index, writer: &mut writer, faults };
        let format = reading.read(source, progress)?;
        let left_by_rule = reading.faults.left_by_rule;
        let rows_in = writer.counts().rows - before + left_by_rule.values().sum::<u64>();
        match (first, format) {
            (None, Some(format)) => first = Some((index, format)),
            (Some((other, wanted)), Some(format)) if format != wanted => {
                let (id, other) = (source.record.file_id, plan.sources[other].record.file_id);
                let message =
                    format!("`{id}` holds {format} rows, and `{other}` {wanted} rows; a dataset has one row format");
                return Err(StepError::refused(Blame::Source(index), message));
            }
            _ => {}
        }
        sources.push(SourceRecord { rows_in, left_by_rule, ..source.record.clone() });
    }
    match first {
        Some((_, format)) => Ok(Taken { spool: writer.finish()?, format, sources }),
        None => Err(StepError::refused(Blame::Sources, "the files have no row that can be read")),
    }
}

/// One source being read.
struct Reading<'r> {
    plan: &'r StepPlan<'r>,
    index: usize,
    writer: &'r mut SpoolWriter,
    faults: Faults<'r>,
}

/// What is wrong with its rows.
struct Faults<'r> {
    /// Rules that a step drops rows by.
    droppable: &'r [&'r str],
    findings: Vec<Finding>,
    total: u64,
    /// Rows that were dropped, by the first rule that they break.
    left_by_rule: LeftByRule,
}

impl<'r> Faults<'r> {
    fn new(droppable: &'r [&'r str]) -> Self {
        Self { droppable, findings: Vec::new(), total: 0, left_by_rule: LeftByRule::new() }
    }

    fn add(&mut self, found: Vec<Finding>) {
        let dropped = found.iter().find(|finding| self.droppable.contains(&finding.rule.as_str()));
        if let Some(finding) = dropped {
            *self.left_by_rule.entry(finding.rule.clone()).or_default() += 1;
            return;
        }
        for finding in found.into_iter().filter(|finding| finding.severity == Severity::Error) {
            self.total += 1;
            if self.findings.len() < MOST_FINDINGS {
                self.findings.push(finding);
            }
        }
    }
}

impl Reading<'_> {
    /// Gives the format of the rows, where there are any.
    fn read(&mut self, source: &StepSource<'_>, progress: &mut Progress<'_>) -> Result<Option<RowFormat>, StepError> {
        let mut container = Container::new(source.reading);
        let mut parser = RowParser::new(source.reading);
        let mut ended = Ok(());
        each_portion(source.path, &mut |portion| {
            container.feed(portion, &mut |piece| {
                if ended.is_ok() {
                    ended = self.take(piece, &mut parser);
                }
            });
            progress.add(portion.len() as u64);
            if ended.is_ok() {
                ended = progress.tell();
            }
            if ended.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        ended?;
        let mut ended = Ok(());
        container.finish(&mut |piece| {
            if ended.is_ok() {
                ended = self.take(piece, &mut parser);
            }
        });
        ended?;
        let total = self.faults.total;
        if total > 0 {
            let findings = std::mem::take(&mut self.faults.findings);
            return Err(StepError::Rows { source_index: self.index, findings, total });
        }
        Ok(parser.shape.format)
    }

    fn take(&mut self, piece: Piece<'_>, parser: &mut RowParser) -> Result<(), StepError> {
        let mut findings = Vec::new();
        let Some((row, fields)) = parser.read_with_fields(piece, &mut findings) else {
            self.faults.add(findings);
            return Ok(());
        };
        let counts = self.writer.counts();
        if counts.rows == MOST_ROWS {
            let message = format!("the files have more than {MOST_ROWS} rows together; prepare them in parts");
            return Err(StepError::refused(Blame::Sources, message));
        }
        let json = serde_json::to_vec(&crate::json::Json::Object(fields)).map_err(std::io::Error::from)?;
        if counts.bytes + json.len() as u64 > self.plan.most_bytes {
            let most = self.plan.most_bytes;
            let message = format!("the rows of the files have more than {most} bytes together; prepare them in parts");
            return Err(StepError::refused(Blame::Sources, message));
        }
        let source = u16::try_from(self.index).unwrap_or(u16::MAX);
        self.writer.push(&Record { index: counts.rows, source, line: row.line, held_out: false, json: &json })?;
        Ok(())
    }
}
