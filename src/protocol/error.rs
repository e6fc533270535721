//! Why a job failed or waits, in words a program can match and words a person can act on.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::status::named_enum;

named_enum!(
    /// The cause of a failed or waiting job. Part of the API's contract: codes are added, never renamed.
    ErrorCode, "error code" {
        /// Rows of the training file cannot be used.
        InvalidTrainingFile = "invalid_training_file",
        /// Rows of the validation file cannot be used.
        InvalidValidationFile = "invalid_validation_file",
        /// The base model's files are missing, damaged, or of a kind that the engine does not implement.
        InvalidModel = "invalid_model",
        /// The settings cannot be met by this model or dataset.
        InvalidSettings = "invalid_settings",
        /// Loss or gradients were not finite.
        NonFinite = "non_finite",
        /// The engine ran out of memory.
        OutOfMemory = "out_of_memory",
        /// No space was left for a checkpoint or a result; the job waits.
        OutOfDiskSpace = "out_of_disk_space",
        /// The engine died by a signal or without a last word, more often than the cap allows.
        EngineCrashed = "engine_crashed",
        /// The engine made no progress for longer than the watchdog allows, more often than the cap allows.
        EngineStuck = "engine_stuck",
        /// The reloaded adapter gave other logits than the one in memory.
        ExportMismatch = "export_mismatch",
        /// A fault of this service.
        InternalError = "internal_error",
    }
);

/// The `error` object of a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema, thiserror::Error)]
#[error("{code}: {message}")]
pub struct JobError {
    pub code: ErrorCode,
    /// What happened, in one or two sentences.
    pub message: String,
    /// The request field to blame, where one is.
    pub param: Option<String>,
    /// What to do next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The last whole optimiser step before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<u32>,
    /// The attempt that it ended, counted from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// Rows or other particulars, at most 100.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<Object>)]
    pub details: Vec<serde_json::Value>,
}

impl JobError {
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), param: None, hint: None, step: None, attempt: None, details: Vec::new() }
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub fn param(mut self, param: impl Into<String>) -> Self {
        self.param = Some(param.into());
        self
    }

    /// The last whole step before it, where none is named yet.
    pub fn after_step(mut self, step: u32) -> Self {
        self.step = self.step.or(Some(step));
        self
    }

    pub fn in_attempt(mut self, attempt: u32) -> Self {
        self.attempt = Some(attempt);
        self
    }
}

/// A request field whose value is refused: which one, and what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct FieldError {
    /// Path of the field in the request, such as `lora.r`.
    pub param: String,
    pub message: String,
}

impl FieldError {
    pub fn new(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self { param: param.into(), message: message.into() }
    }
}
