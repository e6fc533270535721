//! The findings of one row.

use finetuned_protocol::lint::{Finding, Severity};

use crate::rules::{self, Rule};

/// Findings of each severity that one row may have; a row of a million faults is told so by its first ones.
const MAX_PER_ROW: usize = 50;

/// Collects the findings of one row.
pub(crate) struct Report<'f> {
    line: u64,
    findings: &'f mut Vec<Finding>,
    disabled: &'f [String],
    errors: usize,
    warnings: usize,
}

impl<'f> Report<'f> {
    /// Rules of the ids in `disabled` are not applied.
    pub fn new(line: u64, findings: &'f mut Vec<Finding>, disabled: &'f [String]) -> Self {
        Self { line, findings, disabled, errors: 0, warnings: 0 }
    }

    pub fn add(&mut self, rule: &Rule, pointer: impl Into<String>, reason: impl Into<String>) {
        if self.disabled.iter().any(|id| id == rule.id) {
            return;
        }
        let count = if rule.severity == Severity::Error { &mut self.errors } else { &mut self.warnings };
        *count += 1;
        if *count <= MAX_PER_ROW {
            self.findings.push(rule.at(self.line, pointer, reason));
        }
    }

    pub fn has_errors(&self) -> bool {
        self.errors > 0
    }

    /// Checks the characters of a text that the row uses. Only escapes can bring control characters into JSON.
    pub fn check_characters(&mut self, text: &str, pointer: &str) {
        let is_control = |byte: &u8| *byte < 0x20 && !matches!(byte, b'\t' | b'\n' | b'\r');
        let Some(first) = text.bytes().position(|byte| is_control(&byte)) else { return };
        if text[first..].contains('\0') {
            self.add(&rules::NUL_CHARACTER, pointer, "the text has a NUL character (\\u0000); remove it");
        }
        if let Some(byte) = text.bytes().find(|byte| is_control(byte) && *byte != 0) {
            let reason =
                format!("the text has the control character U+{byte:04X}; remove it unless the model shall learn it");
            self.add(&rules::CONTROL_CHARACTER, pointer, reason);
        }
    }
}
