//! Why a job failed or waits, as clients read it.

use finetuned_protocol::{
    error::{ErrorCode, JobError},
    error_codes::Blame,
};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

/// Why a job failed, or waits for somebody.
#[derive(Debug, Serialize, ToSchema)]
pub struct Failure {
    pub code: ErrorCode,
    /// What happened, in one or two sentences.
    pub message: String,
    /// The request field to blame, where one is.
    pub param: Option<String>,
    /// What to do next.
    pub hint: String,
    /// Who can mend it.
    pub blame: Blame,
    /// The last whole optimiser step before it, where training had begun.
    pub step: Option<u32>,
    /// The attempt that it ended, counted from 1.
    pub attempt: Option<u32>,
    /// Rows, the engine's last lines or other particulars, at most 100.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<Object>)]
    pub details: Vec<Value>,
}

impl From<JobError> for Failure {
    fn from(error: JobError) -> Self {
        let JobError { code, message, param, hint, step, attempt, details } = error;
        let hint = hint.unwrap_or_else(|| code.hint().to_owned());
        Self { code, message, param, hint, blame: code.blame(), step, attempt, details }
    }
}
