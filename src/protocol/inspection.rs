//! What a model will see of a file's rows.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    lint::{Finding, RowFormat},
    spec::{DatasetFacts, Estimate, TrainingSpec},
};

/// One token of a row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenView {
    pub id: u32,
    /// What it stands for; half a character shows as �.
    pub text: String,
    /// Whether it is learned.
    pub has_loss: bool,
}

/// A row as training sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RowView {
    /// Line where the row starts, counted from 1.
    pub line: u64,
    pub format: Option<RowFormat>,
    /// The whole row as the template writes it; empty for rows that came as tokens.
    pub rendered: String,
    /// Up to the last token with loss; what follows teaches nothing.
    pub tokens: Vec<TokenView>,
    pub supervised_tokens: u64,
    /// Index of the first token that `max_seq_len` cuts off; null where the row fits.
    pub truncated_at: Option<u64>,
    pub max_seq_len: u32,
    pub findings: Vec<Finding>,
}

/// Rows by a number of tokens.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TokenHistogram {
    pub min: u32,
    pub max: u32,
    pub mean: f64,
    pub p50: u32,
    pub p90: u32,
    pub p95: u32,
    pub p99: u32,
    /// Upper ends are powers of two.
    pub buckets: Vec<HistogramBucket>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HistogramBucket {
    /// Most tokens of a row in it.
    pub up_to_tokens: u32,
    pub rows: u64,
}

/// What a length would cut off.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LengthCut {
    pub max_seq_len: u32,
    /// Rows that lose part of their last answer.
    pub truncated_rows: u64,
    /// Rows of which nothing with loss is left.
    pub dropped_rows: u64,
    /// Of all tokens (0 to 1).
    pub cut_tokens_share: f64,
}

/// Rows put together into sequences of `max_seq_len`, best fit first.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PackingStatistics {
    pub max_seq_len: u32,
    pub sequences: u64,
    /// Share of their places that hold a token.
    pub efficiency: f64,
    /// The same where each row has a sequence of its own.
    pub unpacked_efficiency: f64,
}

/// Tokens of a file for one model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TokenStatistics {
    /// Rows that were looked at.
    pub rows: u64,
    /// Whether there are more than those.
    pub is_sample: bool,
    /// Rows without a token to learn, or that cannot be read.
    pub unusable_rows: u64,
    /// Tokens without loss.
    pub prompt_tokens: TokenHistogram,
    /// Tokens with loss.
    pub answer_tokens: TokenHistogram,
    pub total_tokens: TokenHistogram,
    /// Of all tokens (0 to 1).
    pub supervised_share: f64,
    pub packing: PackingStatistics,
    pub cuts: Vec<LengthCut>,
}

/// What a job would be and take; nothing of it is stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct JobEstimate {
    /// Settings without an `auto`.
    pub effective: TrainingSpec,
    pub dataset: DatasetFacts,
    /// Rows that are left out, by rule.
    pub dropped_by_rule: BTreeMap<String, u64>,
    pub tokens_per_epoch: u64,
    pub steps: u32,
    pub estimate: Estimate,
    /// Checkpoints and what is published, in bytes.
    pub disk_bytes: u64,
    /// What the time goes by: `measured` on this service's earlier jobs of the model, or `assumed`.
    pub speed: SpeedSource,
    pub warnings: Vec<EstimateWarning>,
}

/// Where a speed comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "source", rename_all = "snake_case")]
pub enum SpeedSource {
    /// Tokens a second that earlier jobs of this model reached, the median.
    Measured { tokens_per_second: f64, jobs: u64 },
    /// The planner's figure for two CPU cores.
    Assumed,
}

/// Something that a person should know before the job runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EstimateWarning {
    /// Stable id, such as `few_rows`.
    pub rule: String,
    pub message: String,
}
