//! What `finetuned-engine embed` reads and writes: one request a line, one answer a line.

use serde::{Deserialize, Serialize};

/// One request: a `text` to embed, or a `reference` with its `prediction` to compare.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EmbedRequest {
    /// Given back with the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prediction: Option<String>,
}

/// How alike a prediction is to its reference, by a text encoder.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct TextSimilarity {
    /// Of both texts' embeddings, -1 to 1.
    pub cosine: f64,
    /// Mean over the prediction's tokens of their likeness to the nearest token of the reference.
    pub token_precision: f64,
    /// The same with the two texts exchanged.
    pub token_recall: f64,
    /// Harmonic mean of the two, 0 where both are not above 0.
    pub token_f1: f64,
}

/// The answer to the request of the same line.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct EmbedAnswer {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Of length one; for a `text`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub embedding: Option<Vec<f32>>,
    /// For a pair.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub similarity: Option<TextSimilarity>,
    /// Tokens computed, of a pair in both texts.
    pub tokens: u64,
    /// Whether a text was longer than the encoder takes, and its end was left out.
    #[serde(default)]
    pub truncated: bool,
}
