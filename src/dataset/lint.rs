//! The linter: every row of a file judged while its bytes stream by, in flat memory.

use finetuned_protocol::lint::{Finding, LintSummary, RuleCount, Severity};

use crate::{
    reader::RowParser,
    rules::{self, RULES},
    seen::{self, Seen, SeenRows},
    splitter::{Piece, Splitter},
};

/// Takes the bytes of a file in whatever portions they come and reports all findings of all rows.
///
/// Memory: one row (at most 16 MB, and a few times that for its values), the portion, and nine bytes a row (at most 40
/// MB) for finding duplicates.
pub struct Linter<S: FnMut(Finding)> {
    splitter: Splitter,
    rows: RowJudge<S>,
}

impl<S: FnMut(Finding)> Linter<S> {
    /// Every finding goes to `sink` as soon as it is made, in the order of lines.
    pub fn new(sink: S) -> Self {
        Self { splitter: Splitter::new(), rows: RowJudge::new(sink, seen::MAX_ROWS) }
    }

    /// The next bytes of the file.
    pub fn feed(&mut self, bytes: &[u8]) {
        let Self { splitter, rows } = self;
        splitter.feed(bytes, &mut |piece| rows.judge(piece));
    }

    /// The end of the file.
    pub fn finish(self) -> LintSummary {
        let Self { splitter, mut rows } = self;
        let layout = splitter.layout();
        splitter.finish(&mut |piece| rows.judge(piece));
        LintSummary { layout, ..rows.finish() }
    }
}

/// Counts and reports what is found row by row.
struct RowJudge<S> {
    sink: S,
    parser: RowParser,
    seen: SeenRows,
    /// Whether it was said that the memory for duplicates is full.
    told_full: bool,
    /// Findings of the row at hand.
    findings: Vec<Finding>,
    rows: u64,
    error_rows: u64,
    warning_rows: u64,
    /// Rows by rule, as [`RULES`] lists them.
    by_rule: Vec<u64>,
}

impl<S: FnMut(Finding)> RowJudge<S> {
    fn new(sink: S, remembered_rows: usize) -> Self {
        Self {
            sink,
            parser: RowParser::default(),
            seen: SeenRows::new(remembered_rows),
            told_full: false,
            findings: Vec::new(),
            rows: 0,
            error_rows: 0,
            warning_rows: 0,
            by_rule: vec![0; RULES.len()],
        }
    }

    fn judge(&mut self, piece: Piece<'_>) {
        self.rows += 1;
        if let Some(row) = self.parser.read(piece, &mut self.findings) {
            match self.seen.insert(&row.digest) {
                Seen::New => {}
                Seen::Before => {
                    let reason = "the row equals an earlier one; remove it unless it shall weigh more";
                    self.findings.push(rules::DUPLICATE_ROW.at(row.line, "", reason));
                }
                Seen::Unknown if self.told_full => {}
                Seen::Unknown => {
                    self.told_full = true;
                    let reason = "from here on, rows are no longer compared with earlier ones";
                    self.findings.push(rules::DUPLICATES_UNCHECKED.at(row.line, "", reason));
                }
            }
        }
        if !self.findings.is_empty() {
            self.count_and_send();
        }
    }

    fn count_and_send(&mut self) {
        let has = |severity| self.findings.iter().any(|finding| finding.severity == severity);
        self.error_rows += u64::from(has(Severity::Error));
        self.warning_rows += u64::from(has(Severity::Warning));
        for (rule, count) in RULES.iter().zip(&mut self.by_rule) {
            *count += u64::from(self.findings.iter().any(|finding| finding.rule == rule.id));
        }
        self.findings.drain(..).for_each(&mut self.sink);
    }

    fn finish(mut self) -> LintSummary {
        if self.rows == 0 {
            self.findings.push(rules::FILE_EMPTY.at(1, "", "the file has no rows"));
            self.count_and_send();
        }
        let counted = RULES.iter().zip(&self.by_rule).filter(|(_, rows)| **rows > 0);
        LintSummary {
            format: self.parser.format,
            layout: None,
            rows: self.rows,
            error_rows: self.error_rows,
            warning_rows: self.warning_rows,
            by_rule: counted
                .map(|(rule, rows)| RuleCount { rule: rule.id.to_owned(), severity: rule.severity, rows: *rows })
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests;
