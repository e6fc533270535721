//! What was found in a dataset, row by row.

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
    }
);

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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RuleCount {
    pub rule: String,
    pub severity: Severity,
    /// Rows, not findings.
    pub rows: u64,
}

/// The summary of a file's lint; `GET /v1/files/{id}/lint` lists the findings themselves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LintSummary {
    /// What the rows were taken for; `None` where no row could be read.
    pub format: Option<RowFormat>,
    pub layout: Option<FileLayout>,
    pub rows: u64,
    pub error_rows: u64,
    pub warning_rows: u64,
    pub by_rule: Vec<RuleCount>,
}

impl LintSummary {
    /// Whether a job may train on the file.
    pub fn is_usable(&self) -> bool {
        self.rows > 0 && self.error_rows == 0
    }
}
