//! Why a dataset could not be read or prepared.

use std::{fmt, io, path::PathBuf};

use finetuned_protocol::lint::Finding;
use finetuned_weights::WeightsError;

/// Which of a job's files is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceFile {
    Training,
    Validation,
}

impl fmt::Display for SourceFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Training => "training file",
            Self::Validation => "validation file",
        })
    }
}

/// Rows of each file that were read, those that are left out too.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RowCounts {
    pub train: u64,
    pub valid: u64,
}

/// A file that could not be read at all.
#[derive(Debug, thiserror::Error)]
#[error("while reading the dataset {}: {cause}", path.display())]
pub struct ReadError {
    pub path: PathBuf,
    #[source]
    pub cause: io::Error,
}

/// Why rows could not be made ready for training.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// Rows that cannot be trained on; nothing was prepared.
    #[error("{total} findings in the {file} must be mended; the first: {}", first_of(findings))]
    Rows {
        file: SourceFile,
        /// The first 100 findings of severity `error`, in the order of lines.
        findings: Vec<Finding>,
        /// All of them.
        total: u64,
        /// Rows that were read.
        rows: RowCounts,
    },
    /// Every training row was dropped, or there was none beside the held-out ones.
    #[error("no training row is left: of {} rows, {dropped} have no supervised token within `max_seq_len`", rows.train)]
    NothingToTrain { rows: RowCounts, dropped: u64, findings: Vec<Finding> },
    /// The tokenizer or the model's own template failed in a way that no row is to blame for.
    #[error("while preparing the rows of the {file}: {cause}")]
    Tokenizer {
        file: SourceFile,
        #[source]
        cause: WeightsError,
    },
    /// A file could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The progress callback asked to stop.
    #[error("the preparation of rows was cancelled")]
    Cancelled,
}

fn first_of(findings: &[Finding]) -> String {
    findings.first().map(|finding| format!("line {}: {}", finding.line, finding.reason)).unwrap_or_default()
}
