//! How many rows break each rule, and the first of them.

use finetuned_protocol::lint::{Finding, FindingPlace, RuleCount};

use crate::rules::RULES;

/// Places kept of each rule.
const MOST_EXAMPLES: usize = 20;

/// Findings, counted by rule.
#[derive(Debug)]
pub struct RuleTally {
    /// As [`RULES`] lists them: rows, and the first of them.
    by_rule: Vec<(u64, Vec<FindingPlace>)>,
}

impl Default for RuleTally {
    fn default() -> Self {
        Self { by_rule: vec![(0, Vec::new()); RULES.len()] }
    }
}

impl RuleTally {
    /// Adds what was found in one row: each rule counts once.
    pub fn add(&mut self, findings: &[Finding]) {
        for (at, finding) in findings.iter().enumerate() {
            if findings[..at].iter().any(|earlier| earlier.rule == finding.rule) {
                continue;
            }
            let Some(place) = RULES.iter().position(|rule| rule.id == finding.rule) else { continue };
            let (rows, examples) = &mut self.by_rule[place];
            *rows += 1;
            if examples.len() < MOST_EXAMPLES {
                examples.push(FindingPlace { line: finding.line, pointer: finding.pointer.clone() });
            }
        }
    }

    /// The rules that were broken; shares are of so many rows.
    pub fn finish(self, rows: u64) -> Vec<RuleCount> {
        let counted = RULES.iter().zip(self.by_rule).filter(|(_, (broken, _))| *broken > 0);
        let count = counted.map(|(rule, (broken, examples))| RuleCount {
            rule: rule.id.to_owned(),
            severity: rule.severity,
            rows: broken,
            share: broken as f64 / rows.max(1) as f64,
            examples,
        });
        count.collect()
    }
}
