//! Tasks and their leases: claim, heartbeat, fence, take-back.
//!
//! A lease's epoch is raised whenever the lease passes from or to anyone, and never falls. Each write of a worker first
//! locks the lease row at its own epoch (the fence), so that it commits before a take-back or not at all.

mod claim;
mod expiry;
#[cfg(test)]
mod fairness_tests;
mod fence;
mod finish;
mod lease;
mod queue;
mod report;
#[cfg(test)]
mod room_tests;
#[cfg(test)]
mod tests;

pub(crate) use expiry::ScanMemory;
pub(crate) use fence::Fenced;
use finetuned_protocol::{
    engine::AnsweredRow,
    error::JobError,
    evaluation::{EvaluationReport, ParityCertificate},
    evaluation_run::EvaluationRunSpec,
    ids::{FileId, TaskId},
    spec::{DatasetFacts, Estimate, TrainingSpec},
    status::TaskKind,
};
pub(crate) use queue::{NewTask, hold, insert_task};
use serde_json::Value;

use crate::{BaseModel, Checkpoint, Job, JobProgress, NewEvent, NewMetric, StoredBlob, StoredFile};

/// What a worker shows with every write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LeaseKey {
    pub task: TaskId,
    pub epoch: i64,
}

/// A task that this worker runs now.
#[derive(Debug, Clone, PartialEq)]
pub struct Lease {
    pub key: LeaseKey,
    pub kind: TaskKind,
    /// Counted from 1; attempts that a shutdown ended are not counted.
    pub attempt: u32,
    /// Engine crashes so far.
    pub crashes: u32,
    pub job: Job,
    pub base_model: BaseModel,
    pub training: LeasedFile,
    pub validation: Option<LeasedFile>,
    /// Newest first, at most three: where the newest is damaged, the one before serves.
    pub checkpoints: Vec<Checkpoint>,
}

/// A dataset of a task. The bytes stay while the job refers to them, even when the file is deleted.
#[derive(Debug, Clone, PartialEq)]
pub struct LeasedFile {
    pub id: FileId,
    pub content: StoredBlob,
}

/// What a heartbeat brings back. A cancelled task's heartbeat is [`crate::StoreError::LeaseLost`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heartbeat {
    /// Save a checkpoint, then [`crate::Store::suspend`] with [`Suspension::Paused`].
    pub pause_requested: bool,
}

/// What the engine told since the last report.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Report {
    /// Highest engine line that the report contains; 0 where it contains none. Lines reported before in the same
    /// attempt are dropped, so that a report whose answer was lost can be sent again.
    pub last_line: u64,
    pub events: Vec<NewEvent>,
    pub metrics: Vec<NewMetric>,
    pub answers: Vec<AnsweredRow>,
    pub progress: Option<JobProgress>,
    /// The engine has started: the job is `running`.
    pub started: bool,
}

/// A checkpoint whose files are stored.
#[derive(Debug, Clone, PartialEq)]
pub struct NewCheckpoint {
    pub step: u32,
    /// Numbers by name, as an object.
    pub metrics: Value,
    pub files: Vec<StoredFile>,
}

/// What `validate` found.
#[derive(Debug, Clone, PartialEq)]
pub struct Validated {
    pub spec: TrainingSpec,
    pub dataset: DatasetFacts,
    pub estimate: Estimate,
    /// Such as warnings about rows.
    pub events: Vec<NewEvent>,
}

/// What `train` made.
#[derive(Debug, Clone, PartialEq)]
pub struct Trained {
    pub artifacts: Vec<StoredFile>,
    pub evaluation: EvaluationReport,
    pub parity: ParityCertificate,
    pub trained_tokens: u64,
    /// The evaluation that is still to be done, by a task of its own.
    pub judging: Option<EvaluationRunSpec>,
    /// CSV of the metrics; becomes a file of purpose `fine-tune-results`.
    pub results: StoredBlob,
}

/// Why a task is held.
#[derive(Debug, Clone, PartialEq)]
pub enum Suspension {
    /// The client's pause is fulfilled.
    Paused,
    /// A condition that a person must mend, such as a full disk.
    Because(JobError),
}

/// Why a task is given back.
#[derive(Debug, Clone, PartialEq)]
pub enum Release {
    /// The worker ends; the attempt is not counted.
    Shutdown,
    /// The engine crashed or was stuck. Beyond the cap, the job fails with this error.
    Crashed(JobError),
}

/// What became of a task that was given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Released {
    /// Another worker may claim it.
    Queued,
    /// The cap of crashes is reached; the job has failed.
    Failed,
}
