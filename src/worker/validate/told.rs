//! What a client is told of rows that can be trained on.

use std::collections::BTreeMap;

use finetuned_protocol::{
    lint::Finding,
    spec::{DatasetFacts, Estimate},
    status::EventLevel,
};
use finetuned_store::NewEvent;
use serde_json::json;

use crate::words;

/// Rows that are named in an event.
const MOST_NAMED: usize = 100;

/// Warnings about rows that were left out, cut off, or otherwise worth a look.
pub fn about_rows(
    dataset: &DatasetFacts,
    max_seq_len: u32,
    dropped: &[Finding],
    (warnings, tallies): (&[Finding], &Tallies),
) -> Vec<NewEvent> {
    let mut events = Vec::new();
    if dataset.dropped_rows > 0 {
        let rows = words::counted(dataset.dropped_rows, "row");
        let message = format!("{rows} left out: no token to learn from within {max_seq_len} tokens");
        events.push(warning("rows:dropped", message, dropped));
    }
    if dataset.truncated_rows > 0 {
        let rows = words::counted(dataset.truncated_rows, "row");
        let cut: Vec<Finding> = warnings.iter().filter(|finding| is_cut(finding)).cloned().collect();
        events.push(warning("rows:truncated", format!("{rows} cut off at {max_seq_len} tokens (`max_seq_len`)"), &cut));
    }
    let mut by_rule: BTreeMap<&str, Vec<Finding>> = BTreeMap::new();
    for finding in warnings.iter().filter(|finding| !is_cut(finding)) {
        by_rule.entry(&finding.rule).or_default().push(finding.clone());
    }
    for (rule, findings) in by_rule {
        let Some(first) = findings.first() else { continue };
        let times = words::counted(tallies.rows(rule).max(findings.len() as u64), "time");
        let message = format!("Worth a look, {times} ({rule}), first in line {}: {}", first.line, first.reason);
        events.push(warning(&format!("rows:{rule}"), message, &findings));
    }
    events
}

/// Counted as [`DatasetFacts::truncated_rows`], whether the rule is switched off or not.
fn is_cut(finding: &Finding) -> bool {
    finding.rule == "answer_truncated"
}

/// Rows by rule: lists of findings end at a thousand, counts do not.
#[derive(Debug, Default)]
pub struct Tallies(BTreeMap<String, u64>);

impl Tallies {
    /// Adds what was found in one row.
    pub fn add(&mut self, findings: &[Finding]) {
        for (at, finding) in findings.iter().enumerate() {
            if findings[..at].iter().all(|earlier| earlier.rule != finding.rule) {
                *self.0.entry(finding.rule.clone()).or_default() += 1;
            }
        }
    }

    fn rows(&self, rule: &str) -> u64 {
        self.0.get(rule).copied().unwrap_or(0)
    }
}

fn warning(key: &str, message: String, rows: &[Finding]) -> NewEvent {
    let rows: Vec<&Finding> = rows.iter().take(MOST_NAMED).collect();
    NewEvent {
        once: Some(key.to_owned()),
        data: Some(json!({ "rows": rows })),
        ..NewEvent::message(EventLevel::Warn, message)
    }
}

/// `112 rows: 100 train, 12 held out, 12,345 tokens, 39 steps, about 2 minutes`
pub fn summary(dataset: &DatasetFacts, estimate: &Estimate) -> NewEvent {
    let message = format!(
        "{}: {} train, {} held out, {}, {}, {}",
        words::counted(dataset.train_rows + dataset.held_out_rows, "row"),
        words::grouped(dataset.train_rows),
        words::grouped(dataset.held_out_rows),
        words::counted(dataset.train_tokens, "token"),
        words::counted(u64::from(estimate.steps), "step"),
        words::about(estimate.seconds),
    );
    NewEvent {
        once: Some("validated".into()),
        data: Some(json!({ "dataset": dataset, "estimate": estimate })),
        ..NewEvent::message(EventLevel::Info, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_is_one_line() {
        let dataset = DatasetFacts {
            train_rows: 100,
            held_out_rows: 12,
            train_tokens: 12_345,
            train_supervised_tokens: 4000,
            longest_row_tokens: 300,
            truncated_rows: 0,
            dropped_rows: 0,
        };
        let estimate =
            Estimate { tokens: 37_035, steps: 39, peak_memory_bytes: 1 << 30, seconds: 118, disk: Default::default() };
        assert_eq!(
            summary(&dataset, &estimate).message,
            "112 rows: 100 train, 12 held out, 12,345 tokens, 39 steps, about 2 minutes"
        );
    }

    #[test]
    fn warnings_come_once_a_rule() {
        let finding = |line, rule: &str| Finding {
            line,
            pointer: String::new(),
            rule: rule.into(),
            severity: finetuned_protocol::lint::Severity::Warning,
            reason: "the row was seen before".into(),
        };
        let dataset = DatasetFacts {
            train_rows: 10,
            held_out_rows: 0,
            train_tokens: 1,
            train_supervised_tokens: 1,
            longest_row_tokens: 1,
            truncated_rows: 3,
            dropped_rows: 1,
        };
        let findings = [finding(3, "duplicate_row"), finding(9, "duplicate_row"), finding(4, "role_order")];
        let mut tallies = Tallies::default();
        (0..1500).for_each(|line| tallies.add(&[finding(line, "duplicate_row")]));
        let findings = [findings.as_slice(), &[finding(5, "answer_truncated")]].concat();
        let events = about_rows(&dataset, 64, &[finding(7, "no_supervised_token")], (&findings, &tallies));
        let messages: Vec<&str> = events.iter().map(|event| event.message.as_str()).collect();
        assert_eq!(
            messages,
            [
                "1 row left out: no token to learn from within 64 tokens",
                "3 rows cut off at 64 tokens (`max_seq_len`)",
                "Worth a look, 1,500 times (duplicate_row), first in line 3: the row was seen before",
                "Worth a look, 1 time (role_order), first in line 4: the row was seen before",
            ]
        );
        let rows = |event: &NewEvent| event.data.as_ref().map(|data| data["rows"].as_array().map(Vec::len));
        assert_eq!((rows(&events[1]), rows(&events[2])), (Some(Some(1)), Some(Some(2))));
    }
}
