//! The linter: every row of a file judged while its bytes stream by, in flat memory.

use std::io;

use finetuned_protocol::lint::{Finding, LintSummary, ReadingSpec, RowFormat, Severity};

use crate::{
    Row,
    checks::ContentChecks,
    container::{Container, Detected},
    near::NearRows,
    reader::RowParser,
    rules,
    seen::{self, Seen, SeenRows},
    spill::RowPlace,
    splitter::Piece,
    tally::RuleTally,
};

/// How closely a file is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LintScope {
    /// Whether each row can be read, and whether it equals an earlier one.
    Structure,
    /// What the rows say, and whether one is nearly like another, too.
    Content,
}

/// Takes the bytes of a file in whatever portions they come and reports all findings of all rows.
///
/// Memory: one row (at most 16 MB, and a few times that for its values), the portion, what unpacking needs (64 MB at
/// most) and nine bytes a row (at most 40 MB) for finding duplicates; what more is needed lies in temporary files.
pub struct Linter<S: FnMut(Finding)> {
    container: Container,
    rows: RowJudge<S>,
}

impl<S: FnMut(Finding)> Linter<S> {
    /// Every finding goes to `sink` as soon as it is made, in the order of lines; those about pairs of rows that are
    /// only known at the end follow then.
    pub fn new(reading: &ReadingSpec, scope: LintScope, sink: S) -> Self {
        Self { container: Container::new(reading), rows: RowJudge::new(reading, scope, sink, seen::MAX_ROWS) }
    }

    /// The next bytes of the file.
    pub fn feed(&mut self, bytes: &[u8]) {
        let Self { container, rows } = self;
        container.feed(bytes, &mut |piece| rows.judge(piece));
    }

    /// The end of the file.
    pub fn finish(self) -> LintSummary {
        let Self { container, mut rows } = self;
        let detected = container.finish(&mut |piece| rows.judge(piece));
        rows.finish(detected)
    }
}

/// Counts and reports what is found row by row.
struct RowJudge<S> {
    parser: RowParser,
    seen: Option<SeenRows>,
    near: Option<NearRows>,
    content: Option<ContentChecks>,
    /// Findings of the row at hand.
    findings: Vec<Finding>,
    counts: Counts<S>,
}

impl<S: FnMut(Finding)> RowJudge<S> {
    fn new(reading: &ReadingSpec, scope: LintScope, sink: S, remembered_rows: usize) -> Self {
        let looks_at_content = scope == LintScope::Content;
        let mut counts = Counts::new(sink, reading.disabled_rules.clone());
        let near = if looks_at_content { counts.unless_full(NearRows::new()) } else { None };
        Self {
            parser: RowParser::new(reading),
            seen: Some(SeenRows::new(remembered_rows)),
            near,
            content: looks_at_content.then(ContentChecks::new),
            findings: Vec::new(),
            counts,
        }
    }

    fn judge(&mut self, piece: Piece<'_>) {
        self.counts.rows += 1;
        if let Some(row) = self.parser.read(piece, &mut self.findings) {
            self.compare(&row);
            let format = self.parser.shape.format.unwrap_or(RowFormat::Chat);
            if let Some(content) = &mut self.content {
                content.row(&row.example, format, row.line, &mut self.findings);
            }
        }
        if !self.findings.is_empty() {
            self.counts.take(&mut self.findings);
        }
    }

    /// Compares a row with all before it. A disk that is full ends the comparing, not the linting.
    fn compare(&mut self, row: &Row) {
        let place = RowPlace { row: self.counts.rows - 1, line: row.line };
        let is_new = match self.seen.as_mut().map(|seen| seen.insert(&row.digest, place)).transpose() {
            Ok(Some(Seen::Before)) => {
                self.findings.push(duplicate(row.line));
                false
            }
            Ok(_) => true,
            Err(error) => {
                self.seen = None;
                self.findings.push(unchecked(row.line, &error));
                true
            }
        };
        if let Some(near) = self.near.as_mut().filter(|_| is_new)
            && let Err(error) = near.add(&row.example, place.line, place.row)
        {
            self.near = None;
            self.findings.push(unchecked(row.line, &error));
        }
    }

    fn finish(mut self, detected: Detected) -> LintSummary {
        if self.counts.rows == 0 {
            self.findings.push(rules::FILE_EMPTY.at(1, "", "the file has no rows"));
            self.counts.take(&mut self.findings);
        }
        let Self { parser, seen, near, content, mut counts, .. } = self;
        if let Some(seen) = seen {
            let told = seen.finish(&mut |place| counts.late(place.row, duplicate(place.line)));
            counts.unless_full(told);
        }
        if let Some(near) = near {
            let told = near.finish(&mut |place, earlier| counts.late(place.row, near_duplicate(place.line, earlier)));
            counts.unless_full(told);
        }
        let (languages, mixed) = content.map(ContentChecks::finish).unwrap_or_default();
        if let Some(mixed) = mixed {
            counts.late(0, mixed);
        }
        let Detected { compression, layout, mut evidence } = detected;
        evidence.extend(parser.shape.evidence);
        let summary = counts.finish();
        LintSummary { format: parser.shape.format, layout, compression, evidence, languages, ..summary }
    }
}

fn duplicate(line: u64) -> Finding {
    rules::DUPLICATE_ROW.at(line, "", "the row equals an earlier one; remove it unless it shall weigh more")
}

fn near_duplicate(line: u64, earlier: u64) -> Finding {
    let reason =
        format!("the row is nearly the one of line {earlier}; a few such rows are taught in place of many others");
    rules::NEAR_DUPLICATE.at(line, "", reason)
}

fn unchecked(line: u64, error: &io::Error) -> Finding {
    let reason = format!("from here on, rows are not compared with earlier ones: the service's disk fails ({error})");
    rules::DUPLICATES_UNCHECKED.at(line, "", reason)
}

/// Findings on their way out.
struct Counts<S> {
    sink: S,
    disabled: Vec<String>,
    rows: u64,
    error_rows: u64,
    warning_rows: u64,
    /// One bit a row: whether a warning was counted for it.
    warned: Vec<u64>,
    tally: RuleTally,
}

impl<S: FnMut(Finding)> Counts<S> {
    fn new(sink: S, disabled: Vec<String>) -> Self {
        let tally = RuleTally::default();
        Self { sink, disabled, rows: 0, error_rows: 0, warning_rows: 0, warned: Vec::new(), tally }
    }

    /// Takes the findings of the row that was counted last.
    fn take(&mut self, findings: &mut Vec<Finding>) {
        findings.retain(|finding| !self.disabled.contains(&finding.rule));
        let has = |severity| findings.iter().any(|finding| finding.severity == severity);
        self.error_rows += u64::from(has(Severity::Error));
        if has(Severity::Warning) {
            self.warn(self.rows.saturating_sub(1));
        }
        self.tally.add(findings);
        findings.drain(..).for_each(&mut self.sink);
    }

    /// A warning about an earlier row.
    fn late(&mut self, row: u64, finding: Finding) {
        if self.disabled.contains(&finding.rule) {
            return;
        }
        self.warn(row);
        self.tally.add(std::slice::from_ref(&finding));
        (self.sink)(finding);
    }

    fn warn(&mut self, row: u64) {
        let (word, bit) = ((row / 64) as usize, 1_u64 << (row % 64));
        if word >= self.warned.len() {
            self.warned.resize(word + 1, 0);
        }
        self.warning_rows += u64::from(self.warned[word] & bit == 0);
        self.warned[word] |= bit;
    }

    /// What was made, or a finding that the disk failed.
    fn unless_full<T>(&mut self, made: io::Result<T>) -> Option<T> {
        match made {
            Ok(made) => Some(made),
            Err(error) => {
                self.late(self.rows, unchecked(1, &error));
                None
            }
        }
    }

    fn finish(self) -> LintSummary {
        LintSummary {
            rows: self.rows,
            error_rows: self.error_rows,
            warning_rows: self.warning_rows,
            by_rule: self.tally.finish(self.rows),
            ..LintSummary::default()
        }
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tools_tests;
