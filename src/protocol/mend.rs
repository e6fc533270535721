//! From a job's errors back to the rows that it was trained on.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::status::named_enum;

named_enum!(
    /// How alike two rows are is told by what.
    NearnessMethod, "method" {
        /// Cosine of the embeddings of prompt and answer by the worker's text encoder, -1 to 1.
        Embedding = "embedding",
        /// Share of the words of both rows that both have (Jaccard), 0 to 1; where the worker has no text encoder.
        WordOverlap = "word_overlap",
    }
);

/// Most training rows that are looked at; of more, those with the least SHA-256 of their content.
pub const MAX_TRAINING_ROWS: usize = 2048;
/// Training rows that are kept for each held-out row, the nearest first.
pub const NEIGHBOURS: usize = 10;

/// A training row beside a held-out one.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Neighbour {
    /// Line of the training row in its file, counted from 1.
    pub line: u64,
    pub similarity: f64,
}

/// What a worker finds of a job's training rows once both models have answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainingRows {
    pub method: NearnessMethod,
    /// Rows with a text that the job was trained on, and how many of them were looked at.
    pub rows: u64,
    pub rows_looked_at: u64,
    /// JSON pointers to the answers of the rows named below.
    pub pointers: BTreeMap<u64, String>,
    /// The nearest training rows of each held-out row, by its line.
    pub neighbours: BTreeMap<u64, Vec<Neighbour>>,
    /// Kinds of error in the answers of training rows, by line; rows without any are missing.
    pub categories: BTreeMap<u64, Vec<String>>,
    /// What could not be judged, and why.
    #[serde(default)]
    pub not_judged: Vec<String>,
}

/// A held-out row whose answer has an error, and that a training row is near to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NearError {
    /// Line of the held-out row in its file.
    pub held_out_line: u64,
    pub category: String,
    pub similarity: f64,
}

/// A training row to mend.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RowToMend {
    /// Line of the row in the training file, counted from 1.
    pub line: u64,
    /// JSON pointer to its answer within the row.
    pub pointer: String,
    pub score: f64,
    /// For a person: what it shows itself, and whose errors it is near to.
    pub reason: String,
    /// Kinds of error that its own answer shows, among those that the tuned model makes.
    pub categories: Vec<String>,
    /// Held-out rows with errors that it is among the nearest to.
    pub near: Vec<NearError>,
}

/// A held-out row that the tuned model answered with an error, and the training rows nearest to it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ErrorRow {
    /// Line of the held-out row in its file.
    pub line: u64,
    pub prompt: String,
    pub reference: String,
    /// What the tuned model said.
    pub answer: String,
    pub nearest: Vec<Neighbour>,
}

/// A kind of error with where it may come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CategoryOrigin {
    pub category: String,
    /// Share of the tuned model's answers that have it (0 to 1).
    pub error_share: f64,
    /// The worst of them by ROUGE-L, at most ten.
    pub worst: Vec<ErrorRow>,
    /// How many training rows show it in their own answer, and the lines of the first hundred.
    pub training_rows: u64,
    pub training_lines: Vec<u64>,
}
