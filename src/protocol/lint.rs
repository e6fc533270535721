//! What was found in a dataset, row by row.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::status::named_enum;

named_enum!(
    /// Layout of a dataset's rows.
    RowFormat, "row format" {
        /// `{"messages": [{"role", "content"}, ...]}`
        Chat = "chat",
        /// `{"prompt", "completion"}`
        PromptCompletion = "prompt_completion",
        /// `{"instruction", "input", "output"}`
        Alpaca = "alpaca",
        /// `{"input_ids", "labels"}`: rows that were tokenised elsewhere.
        Tokens = "tokens",
        /// `{"text"}`: documents to go on with pretraining on.
        Text = "text",
        /// A question with an answer that is liked and one that is not, in any of several spellings.
        Preference = "preference",
    }
);

named_enum!(
    /// How rows lie in the file.
    FileLayout, "file layout" {
        /// One JSON object a line.
        JsonLines = "jsonl",
        /// One JSON array of objects.
        JsonArray = "json_array",
        /// Comma, semicolon or tab separated values below a line of names.
        Csv = "csv",
        /// Apache Parquet.
        Parquet = "parquet",
        /// Texts, each ended by a blank line.
        Text = "text",
    }
);

named_enum!(
    /// How a file is packed.
    Compression, "compression" {
        Gzip = "gzip",
        Zstd = "zstd",
    }
);

/// How a file is to be read, where its content alone would tell too little or the wrong thing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReadingSpec {
    /// How rows lie in the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layout: Option<FileLayout>,
    /// What the rows are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<RowFormat>,
    /// The file's name of a field, by the name that the format has for it: `{"prompt": "question"}`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub columns: BTreeMap<String, String>,
    /// Ids of lint rules that are not applied.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub disabled_rules: Vec<String>,
}

impl ReadingSpec {
    /// Whether nothing is asked for.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

named_enum!(
    /// An `error` row cannot be trained on; a `warning` row can.
    Severity, "severity" {
        Error = "error",
        Warning = "warning",
    }
);

/// One fault of one row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Finding {
    /// Line of the file where the row starts, counted from 1.
    pub line: u64,
    /// JSON pointer (RFC 6901) into the row; empty for the row itself.
    pub pointer: String,
    /// Stable id of the rule, such as `answer_empty`.
    pub rule: String,
    pub severity: Severity,
    /// What is wrong and what to do, in one sentence.
    pub reason: String,
}

/// How often one rule was broken.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RuleCount {
    pub rule: String,
    pub severity: Severity,
    /// Rows, not findings.
    pub rows: u64,
    /// Of all rows (0 to 1).
    #[serde(default)]
    pub share: f64,
    /// The first of them, at most 20; given by `GET /v1/files/{id}/lint` only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub examples: Vec<FindingPlace>,
}

/// Where a rule was broken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FindingPlace {
    pub line: u64,
    /// JSON pointer into the row.
    pub pointer: String,
}

/// Share of a file's rows that one language has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LanguageShare {
    /// ISO 639-3 code, such as `eng`; `und` where it could not be told.
    pub language: String,
    pub rows: u64,
}

/// The summary of a file's lint; `GET /v1/files/{id}/lint` lists the findings themselves.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LintSummary {
    /// What the rows were taken for; `None` where no row could be read.
    pub format: Option<RowFormat>,
    pub layout: Option<FileLayout>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compression: Option<Compression>,
    /// What the file was taken for, and by what sign.
    #[serde(default)]
    pub evidence: Vec<String>,
    pub rows: u64,
    pub error_rows: u64,
    pub warning_rows: u64,
    pub by_rule: Vec<RuleCount>,
    /// Languages of the answers, most frequent first, at most ten.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub languages: Vec<LanguageShare>,
}

impl LintSummary {
    /// Whether a job may train on the file.
    pub fn is_usable(&self) -> bool {
        self.rows > 0 && self.error_rows == 0
    }
}
