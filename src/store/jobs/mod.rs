//! Fine-tuning jobs as clients see them.

mod control;
#[cfg(test)]
mod controls_tests;
mod create;
mod data;
mod line;
mod read;
mod retry;
#[cfg(test)]
mod retry_tests;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

pub use data::JobData;
use finetuned_protocol::{
    engine::Phase,
    error::JobError,
    evaluation::{EvaluationReport, ParityCertificate},
    ids::{FileId, JobId, TenantId},
    request::CreateJobRequest,
    spec::{DatasetFacts, Estimate, TrainingSpec},
    status::JobStatus,
};
pub use line::Place;
pub(crate) use read::{fetch_jobs, require_job};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

/// A job.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    pub id: JobId,
    pub tenant: TenantId,
    pub tenant_name: String,
    pub status: JobStatus,
    /// Held until resumed; its status is `queued` (or `validating_files`).
    pub paused: bool,
    /// A pause was asked for that the worker has not fulfilled yet.
    pub pause_requested: bool,
    pub created_at: OffsetDateTime,
    /// First start of the training.
    pub started_at: Option<OffsetDateTime>,
    pub finished_at: Option<OffsetDateTime>,
    /// As the client sent it.
    pub request: CreateJobRequest,
    pub seed: u32,
    /// Within the tenant, a higher one starts first.
    pub priority: i32,
    /// The job whose last checkpoint this one went on from.
    pub retry_of: Option<JobId>,
    pub base_model: String,
    pub base_model_sha256: String,
    pub training_file: FileId,
    pub validation_file: Option<FileId>,
    /// Settings without an `auto`, once validated.
    pub effective: Option<TrainingSpec>,
    pub dataset: Option<DatasetFacts>,
    pub estimate: Option<Estimate>,
    pub progress: Option<JobProgress>,
    /// Where it stands in the line of those that wait for a worker; known where one job or a list is read.
    pub line: Option<Place>,
    /// Why the job failed, or why it is suspended.
    pub error: Option<JobError>,
    /// Why a job that could run does not: no worker, model absent, paused for a cause.
    pub waiting_reason: Option<String>,
    pub trained_tokens: Option<u64>,
    pub fine_tuned_model: Option<String>,
    pub result_files: Vec<FileId>,
    pub evaluation: Option<EvaluationReport>,
    pub parity: Option<ParityCertificate>,
}

impl Job {
    /// `ft:{base}:{tenant}:{suffix}:{id}`: the name that the tuned model has, or will have.
    pub fn tuned_model_name(&self) -> String {
        let digits = self.id.0.simple().to_string();
        // The first digits of an id are its time; the last ones tell jobs apart.
        let tail = digits.get(24..).unwrap_or_default();
        let suffix = self.request.suffix.as_deref().unwrap_or_default();
        format!("ft:{}:{}:{suffix}:{tail}", self.base_model, self.tenant_name)
    }
}

/// Where a running job is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobProgress {
    pub phase: Phase,
    /// Of the phase.
    pub done: u64,
    /// Of the phase.
    pub total: u64,
    /// Optimiser steps taken.
    pub step: u32,
    pub total_steps: u32,
    /// Seconds until the end, where there is a measured speed.
    pub remaining_seconds: Option<u64>,
}

/// A job to be made. The request must have passed its own check.
#[derive(Debug, Clone, PartialEq)]
pub struct NewJob {
    pub request: CreateJobRequest,
    /// The client's seed, or one drawn.
    pub seed: u32,
    pub training_file: FileId,
    pub validation_file: Option<FileId>,
}

/// Which jobs to list, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct JobPage {
    /// The last job of the page before.
    pub after: Option<JobId>,
    pub limit: u32,
    pub metadata: MetadataFilter,
}

/// A filter by metadata.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum MetadataFilter {
    #[default]
    Any,
    /// Jobs without metadata.
    Absent,
    /// Jobs that have all these pairs.
    Contains(BTreeMap<String, String>),
}

/// Part of a list.
#[derive(Debug, Clone, PartialEq)]
pub struct Page<T> {
    pub data: Vec<T>,
    pub has_more: bool,
}

impl<T> Page<T> {
    /// From rows of which one more was asked for than the page holds.
    pub(crate) fn cut(mut data: Vec<T>, limit: u32) -> Self {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let has_more = data.len() > limit;
        data.truncate(limit);
        Self { data, has_more }
    }
}

/// What a control (cancel, pause, resume, a new priority) met.
#[derive(Debug, Clone, PartialEq)]
pub enum Control {
    /// The state is as asked, or will be once the worker has heard (`pause_requested`).
    Done(Job),
    /// It was so already.
    Already(Job),
    /// The job has ended in a state that the control cannot change.
    Ended(Job),
}

impl Control {
    pub fn job(&self) -> &Job {
        match self {
            Self::Done(job) | Self::Already(job) | Self::Ended(job) => job,
        }
    }
}
