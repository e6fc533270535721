//! The linter: every row of a file judged while its bytes stream by, in flat memory.

use std::io;

use finetuned_protocol::lint::{Finding, FindingPlace, LintSummary, ReadingSpec, RowFormat, RuleCount, Severity};

use crate::{
    Row,
    checks::ContentChecks,
    container::{Container, Detected},
    near::NearRows,
    reader::RowParser,
    rules::{self, RULES},
    seen::{self, Seen, SeenRows},
    spill::RowPlace,
    splitter::Piece,
};

/// Places kept of each rule.
const MOST_EXAMPLES: usize = 20;

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
    /// As [`RULES`] lists them: rows, and the first of them.
    by_rule: Vec<(u64, Vec<FindingPlace>)>,
}

impl<S: FnMut(Finding)> Counts<S> {
    fn new(sink: S, disabled: Vec<String>) -> Self {
        let by_rule = vec![(0, Vec::new()); RULES.len()];
        Self { sink, disabled, rows: 0, error_rows: 0, warning_rows: 0, warned: Vec::new(), by_rule }
    }

    /// Takes the findings of the row that was counted last.
    fn take(&mut self, findings: &mut Vec<Finding>) {
        findings.retain(|finding| !self.disabled.contains(&finding.rule));
        let has = |severity| findings.iter().any(|finding| finding.severity == severity);
        self.error_rows += u64::from(has(Severity::Error));
        if has(Severity::Warning) {
            self.warn(self.rows.saturating_sub(1));
        }
        for (rule, (rows, examples)) in RULES.iter().zip(&mut self.by_rule) {
            let Some(first) = findings.iter().find(|finding| finding.rule == rule.id) else { continue };
            *rows += 1;
            if examples.len() < MOST_EXAMPLES {
                examples.push(FindingPlace { line: first.line, pointer: first.pointer.clone() });
            }
        }
        findings.drain(..).for_each(&mut self.sink);
    }

    /// A warning about an earlier row.
    fn late(&mut self, row: u64, finding: Finding) {
        if self.disabled.contains(&finding.rule) {
            return;
        }
        self.warn(row);
        if let Some(place) = RULES.iter().position(|rule| rule.id == finding.rule) {
            let (rows, examples) = &mut self.by_rule[place];
            *rows += 1;
            if examples.len() < MOST_EXAMPLES {
                examples.push(FindingPlace { line: finding.line, pointer: finding.pointer.clone() });
            }
        }
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
        let rows = self.rows;
        let counted = RULES.iter().zip(self.by_rule).filter(|(_, (rows, _))| *rows > 0);
        let by_rule = counted.map(|(rule, (broken, examples))| RuleCount {
            rule: rule.id.to_owned(),
            severity: rule.severity,
            rows: broken,
            share: broken as f64 / rows.max(1) as f64,
            examples,
        });
        LintSummary {
            rows,
            error_rows: self.error_rows,
            warning_rows: self.warning_rows,
            by_rule: by_rule.collect(),
            ..LintSummary::default()
        }
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tools_tests;
