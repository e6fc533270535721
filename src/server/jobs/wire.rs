//! Fine-tuning jobs as clients read them: OpenAI's fields first, ours after them.

use std::collections::BTreeMap;

use finetuned_protocol::{
    engine::Phase,
    evaluation::{EvaluationReport, ParityCertificate},
    ids::{FileId, JobId, TenantId},
    objective::{DpoSpec, ObjectiveSpec},
    request::{Auto, AutoInteger, AutoNumber, CreateJobRequest},
    resolve::default_learning_rate,
    spec::{DatasetFacts, Estimate, TrainingSpec},
    status::JobStatus,
};
use finetuned_store::{Job, JobProgress};
use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;

use super::failure::Failure;
use crate::http::paging::Listed;

/// A fine-tuning job.
#[derive(Debug, Serialize, ToSchema)]
pub struct FineTuningJob {
    #[schema(value_type = String)]
    pub id: JobId,
    /// Always `fine_tuning.job`.
    pub object: &'static str,
    /// Unix seconds.
    pub created_at: i64,
    pub finished_at: Option<i64>,
    /// A paused job is `queued` with `paused: true`.
    pub status: JobStatus,
    /// The base model.
    pub model: String,
    pub fine_tuned_model: Option<String>,
    #[schema(value_type = String)]
    pub organization_id: TenantId,
    #[schema(value_type = String)]
    pub training_file: FileId,
    #[schema(value_type = Option<String>)]
    pub validation_file: Option<FileId>,
    pub hyperparameters: Hyperparameters,
    pub method: Method,
    pub seed: u32,
    pub trained_tokens: Option<u64>,
    #[schema(value_type = Vec<String>)]
    pub result_files: Vec<FileId>,
    /// Why the job failed.
    pub error: Option<Failure>,
    /// Unix seconds at which the job is likely to end, while it waits or runs.
    pub estimated_finish: Option<i64>,
    #[schema(value_type = Option<Vec<Object>>)]
    pub integrations: Option<Vec<()>>,
    pub metadata: Option<BTreeMap<String, String>>,
    #[serde(flatten)]
    pub ours: Extensions,
}

/// What OpenAI's jobs do not have.
#[derive(Debug, Serialize, ToSchema)]
pub struct Extensions {
    pub started_at: Option<i64>,
    /// Of the tenant's waiting jobs, one of higher priority starts first.
    pub priority: i32,
    /// The job whose last checkpoint this one went on from.
    #[schema(value_type = Option<String>)]
    pub retry_of: Option<JobId>,
    /// Place among all jobs that wait for a worker, counted from 1, as turns would be taken now.
    pub queue_position: Option<u64>,
    /// Unix seconds at which a waiting job is likely to start, from what jobs lately took.
    pub estimated_start: Option<i64>,
    pub paused: bool,
    /// A pause was asked for that the worker has not fulfilled yet.
    pub pause_requested: bool,
    /// Why a job that could run does not.
    pub waiting_reason: Option<String>,
    /// The fault that must be mended before a paused job is resumed.
    pub suspension: Option<Failure>,
    pub base_model_sha256: String,
    /// Settings without an `auto`, once the files are validated.
    pub effective: Option<TrainingSpec>,
    pub dataset: Option<DatasetFacts>,
    pub estimate: Option<Estimate>,
    pub progress: Option<Progress>,
    /// Base against tuned, once the job is done.
    pub evaluation: Option<EvaluationReport>,
    /// Proof that the published adapter is the one that was trained.
    pub parity: Option<ParityCertificate>,
}

/// Hyperparameters as OpenAI spells them: numbers once they are settled, until then what was asked for.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Hyperparameters {
    #[schema(value_type = AutoInteger)]
    pub batch_size: Auto<u32>,
    #[schema(value_type = AutoNumber)]
    pub learning_rate_multiplier: Auto<f64>,
    #[schema(value_type = AutoInteger)]
    pub n_epochs: Auto<u32>,
}

/// Settings of the objective, under its name.
#[derive(Debug, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Method {
    Supervised { supervised: Supervised },
    Dpo { dpo: Dpo },
}

#[derive(Debug, Serialize, ToSchema)]
pub struct Dpo {
    pub hyperparameters: DpoHyperparameters,
}

/// Hyperparameters of a preference job.
#[derive(Debug, Serialize, ToSchema)]
pub struct DpoHyperparameters {
    #[schema(value_type = AutoNumber)]
    pub beta: Auto<f64>,
    pub label_smoothing: f64,
    #[serde(flatten)]
    pub common: Hyperparameters,
}

impl Method {
    fn new(request: &CreateJobRequest, is_settled: bool, hyperparameters: Hyperparameters) -> Self {
        let ObjectiveSpec::Dpo(DpoSpec { beta, label_smoothing }) = request.objective() else {
            return Self::Supervised { supervised: Supervised { hyperparameters } };
        };
        let asked = request.asks_for_beta() || is_settled;
        let beta = if asked { Auto::Value(beta) } else { Auto::Auto };
        Self::Dpo {
            dpo: Dpo { hyperparameters: DpoHyperparameters { beta, label_smoothing, common: hyperparameters } },
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
pub struct Supervised {
    pub hyperparameters: Hyperparameters,
}

/// Where a running job is.
#[derive(Debug, Serialize, ToSchema)]
pub struct Progress {
    pub phase: Phase,
    /// Of the phase.
    pub done: u64,
    /// Of the phase.
    pub total: u64,
    /// Optimiser steps taken.
    pub step: u32,
    pub total_steps: u32,
    /// Share of the steps taken (0 to 1).
    pub fraction: f64,
    pub seconds_left: Option<u64>,
}

impl From<JobProgress> for Progress {
    fn from(progress: JobProgress) -> Self {
        let JobProgress { phase, done, total, step, total_steps, remaining_seconds } = progress;
        let fraction = f64::from(step) / f64::from(total_steps.max(1));
        Self { phase, done, total, step, total_steps, fraction, seconds_left: remaining_seconds }
    }
}

impl Hyperparameters {
    fn new(request: &CreateJobRequest, effective: Option<&TrainingSpec>) -> Self {
        // The request passed its check, so that no two places name different values.
        let asked = |value: Option<u32>| value.map_or(Auto::Auto, Auto::Value);
        let Some(effective) = effective else {
            return Self {
                batch_size: asked(request.chosen_batch_size().ok().flatten()),
                learning_rate_multiplier: match request.chosen_learning_rate_multiplier() {
                    Ok(Some(multiplier)) => Auto::Value(multiplier),
                    _ => Auto::Auto,
                },
                n_epochs: asked(request.chosen_n_epochs().ok().flatten()),
            };
        };
        // `max_steps` may take more epochs than the wire format has a number for.
        let n_epochs = if effective.n_epochs <= 50 { Auto::Value(effective.n_epochs) } else { Auto::Auto };
        Self {
            batch_size: Auto::Value(effective.batch_size),
            learning_rate_multiplier: Auto::Value(
                effective.optimizer.learning_rate
                    / default_learning_rate(&effective.tuning, effective.objective, &effective.optimizer.algorithm),
            ),
            n_epochs,
        }
    }
}

fn seconds(time: Option<OffsetDateTime>) -> Option<i64> {
    time.map(OffsetDateTime::unix_timestamp)
}

impl From<Job> for FineTuningJob {
    fn from(job: Job) -> Self {
        let hyperparameters = Hyperparameters::new(&job.request, job.effective.as_ref());
        let in_time = |left: u64| OffsetDateTime::now_utc().unix_timestamp().saturating_add_unsigned(left);
        let line = job.line;
        let (error, suspension) = match job.status {
            JobStatus::Failed => (job.error, None),
            _ => (None, job.error),
        };
        Self {
            id: job.id,
            object: "fine_tuning.job",
            created_at: job.created_at.unix_timestamp(),
            finished_at: seconds(job.finished_at),
            status: job.status,
            model: job.base_model,
            fine_tuned_model: job.fine_tuned_model,
            organization_id: job.tenant,
            training_file: job.training_file,
            validation_file: job.validation_file,
            method: Method::new(&job.request, job.effective.is_some(), hyperparameters.clone()),
            hyperparameters,
            seed: job.seed,
            trained_tokens: job.trained_tokens,
            result_files: job.result_files,
            error: error.map(Failure::from),
            estimated_finish: line.and_then(|place| place.finishes_in_seconds).map(in_time),
            integrations: None,
            metadata: job.request.metadata,
            ours: Extensions {
                started_at: seconds(job.started_at),
                priority: job.priority,
                retry_of: job.retry_of,
                queue_position: line.and_then(|place| place.position),
                estimated_start: line.and_then(|place| place.starts_in_seconds).map(in_time),
                paused: job.paused,
                pause_requested: job.pause_requested,
                waiting_reason: job.waiting_reason,
                suspension: suspension.map(Failure::from),
                base_model_sha256: job.base_model_sha256,
                effective: job.effective,
                dataset: job.dataset,
                estimate: job.estimate,
                progress: job.progress.map(Progress::from),
                evaluation: job.evaluation,
                parity: job.parity,
            },
        }
    }
}

/// The job as it was when it was made, so that a repeated creation is answered like the first.
pub fn as_created(job: Job) -> FineTuningJob {
    FineTuningJob::from(Job {
        status: JobStatus::ValidatingFiles,
        paused: false,
        pause_requested: false,
        started_at: None,
        finished_at: None,
        effective: None,
        dataset: None,
        estimate: None,
        progress: None,
        line: None,
        error: None,
        waiting_reason: None,
        trained_tokens: None,
        fine_tuned_model: None,
        result_files: Vec::new(),
        evaluation: None,
        parity: None,
        ..job
    })
}

impl Listed for FineTuningJob {
    fn id(&self) -> String {
        self.id.to_string()
    }
}
