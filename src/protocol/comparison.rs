//! Two jobs side by side, on the held-out rows that both answered.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    evaluation::{Scores, Verdict},
    text_metric::TextMetric,
};

/// A figure of two jobs' tuned models over the rows that both have it of, and its paired difference.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct JobDifference {
    pub rows: u64,
    /// Mean of the job itself.
    pub job: f64,
    /// Mean of the job that it is compared with.
    pub with: f64,
    /// `with - job`.
    pub difference: f64,
    /// Lower end of the interval of `difference`.
    pub low: f64,
    /// Upper end of the interval of `difference`.
    pub high: f64,
    /// Coverage of the interval, such as 0.95.
    pub confidence: f64,
    pub resamples: u32,
    pub seed: u64,
    /// Whether `with` is better than the job. Of kinds of error, fewer are better.
    pub verdict: Verdict,
}

/// What one job's tuned model said to a row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct JobAnswer {
    /// Line of the row in the job's own file, counted from 1.
    pub line: u64,
    pub answer: String,
    /// Whether the answer ended at an end-of-sequence token rather than at the length limit.
    pub ended: bool,
    #[schema(value_type = BTreeMap<String, f64>)]
    pub scores: Scores,
    /// Kinds of error found in the answer, by name.
    pub categories: Vec<String>,
}

/// A held-out row that both jobs answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SharedRow {
    /// SHA-256 of prompt and reference in hexadecimal digits, with `:2` and so on where a file has the row again.
    pub row_id: String,
    pub prompt: String,
    pub reference: String,
    pub job: JobAnswer,
    pub with: JobAnswer,
}

/// Two jobs over the rows that both answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct JobsComparison {
    /// Rows that the job answered, and the other one.
    pub job_rows: u64,
    pub with_rows: u64,
    /// Each metric that both jobs have.
    #[schema(value_type = BTreeMap<String, JobDifference>)]
    pub metrics: BTreeMap<TextMetric, JobDifference>,
    /// Each kind of error that both jobs look for: the share of answers that have it (0 to 1).
    pub categories: BTreeMap<String, JobDifference>,
    /// In the order of the job's lines.
    pub rows: Vec<SharedRow>,
}
