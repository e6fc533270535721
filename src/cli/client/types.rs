//! The objects of the wire as a client reads them: fields it does not know are skipped, ours are optional.

use finetuned_protocol::{
    engine::Phase,
    error::JobError,
    evaluation::EvaluationReport,
    ids::JobId,
    lint::{Finding, LintSummary},
    spec::{Estimate, TrainingSpec},
    status::{EventLevel, FileStatus, JobStatus},
};
use reqwest::StatusCode;
use serde::Deserialize;
use serde_json::Value;

/// One page of a list.
#[derive(Debug, Deserialize)]
pub struct Page<T> {
    pub data: Vec<T>,
    #[serde(default)]
    pub has_more: bool,
}

#[derive(Debug, Deserialize)]
pub struct Model {
    pub id: String,
}

#[derive(Debug, Deserialize)]
pub struct FileObject {
    pub id: String,
    pub bytes: u64,
    pub filename: String,
    pub purpose: String,
    pub status: FileStatus,
    pub status_details: Option<String>,
    pub lint: Option<LintSummary>,
}

/// The bad rows of a file.
#[derive(Debug, Deserialize)]
pub struct Lint {
    #[serde(alias = "findings")]
    pub data: Vec<Finding>,
}

#[derive(Debug, Deserialize)]
pub struct Job {
    pub id: JobId,
    pub status: JobStatus,
    pub model: String,
    pub fine_tuned_model: Option<String>,
    pub trained_tokens: Option<u64>,
    pub error: Option<JobError>,
    #[serde(default)]
    pub paused: bool,
    pub waiting_reason: Option<String>,
    /// The fault that a paused job waits to be mended.
    pub suspension: Option<JobError>,
    pub progress: Option<Phased>,
    pub effective: Option<TrainingSpec>,
    pub estimate: Option<Estimate>,
    pub evaluation: Option<EvaluationReport>,
}

/// Where a running job is.
#[derive(Debug, Deserialize)]
pub struct Phased {
    pub phase: Phase,
    /// Of the phase.
    pub done: u64,
    /// Of the phase.
    pub total: u64,
}

#[derive(Debug, Deserialize)]
pub struct Event {
    pub id: String,
    pub level: EventLevel,
    pub message: String,
    pub data: Option<Value>,
}

/// A file of a finished job.
#[derive(Debug, Deserialize)]
pub struct Artifact {
    pub name: String,
    pub bytes: u64,
    pub sha256: String,
}

#[derive(Debug, Deserialize)]
pub struct ErrorBody {
    pub error: WireError,
}

/// What the service says about a refusal.
#[derive(Debug, Deserialize)]
pub struct WireError {
    pub message: String,
    pub param: Option<String>,
    #[serde(default)]
    pub details: Vec<Value>,
}

/// A request that the service refused or could not serve.
#[derive(Debug, thiserror::Error)]
pub struct ApiError {
    pub status: StatusCode,
    pub error: Option<WireError>,
    pub request_id: Option<String>,
    pub retry_after_seconds: Option<u64>,
}

impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.error {
            Some(error) => {
                f.write_str(&error.message)?;
                if let Some(param) = &error.param {
                    write!(f, " (field `{param}`)")?;
                }
                for detail in error.details.iter().take(5) {
                    write!(f, "\n  {detail}")?;
                }
            }
            None => write!(f, "the service answered {}", self.status)?,
        }
        if self.status == StatusCode::UNAUTHORIZED {
            f.write_str("; give a key with --api-key or FINETUNED_API_KEY (`finetuned keys create` makes one)")?;
        }
        match &self.request_id {
            Some(id) if self.status.is_server_error() => write!(f, " [request {id}]"),
            _ => Ok(()),
        }
    }
}
