//! Why a dataset could not be prepared.

use std::io;

use finetuned_protocol::lint::Finding;
use finetuned_weights::WeightsError;

use crate::ReadError;

/// What is to blame for a refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Blame {
    /// A field of a step, or the step itself.
    Step { index: usize, field: Option<&'static str> },
    /// A source.
    Source(usize),
    /// All of them together.
    Sources,
}

/// Why steps could not be applied.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The sources and the steps do not go together.
    #[error("{message}")]
    Refused { blame: Blame, message: String },
    /// Rows of a source cannot be read, and no step drops them.
    #[error(
        "{total} findings in a source must be mended, or dropped by their rules; the first: {}",
        first_of(findings)
    )]
    Rows {
        source_index: usize,
        /// The first 100.
        findings: Vec<Finding>,
        total: u64,
    },
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The disk that rows lie on between two steps.
    #[error("while keeping rows between two steps: {0}")]
    Disk(#[from] io::Error),
    #[error("while counting tokens: {0}")]
    Tokenizer(#[from] WeightsError),
    /// The progress callback asked to stop.
    #[error("the preparation was cancelled")]
    Cancelled,
}

impl StepError {
    pub(super) fn refused(blame: Blame, message: impl Into<String>) -> Self {
        Self::Refused { blame, message: message.into() }
    }
}

fn first_of(findings: &[Finding]) -> String {
    findings.first().map(|finding| format!("line {}: {}", finding.line, finding.reason)).unwrap_or_default()
}
