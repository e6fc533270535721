//! Further evaluations of succeeded jobs, and the answers that come in before a report has them.

mod answers;
mod create;
mod finish;
#[cfg(test)]
mod tests;

pub(crate) use answers::{drop_answers, record_answers};
pub(crate) use create::insert_of_job;
use finetuned_protocol::{
    error::JobError,
    evaluation::EvaluationReport,
    evaluation_run::EvaluationRunSpec,
    ids::{EvaluationRunId, JobId, TaskId, TenantId},
    status::{EvaluationRunStatus, TaskState},
};
use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    JobProgress, Store, StoreError,
    convert::{from_json, maybe_json, named},
    jobs::require_job,
};

/// A further evaluation of a job.
#[derive(Debug, Clone, PartialEq)]
pub struct EvaluationRun {
    pub id: EvaluationRunId,
    pub job: JobId,
    pub status: EvaluationRunStatus,
    pub created_at: OffsetDateTime,
    pub started_at: Option<OffsetDateTime>,
    pub finished_at: Option<OffsetDateTime>,
    pub settings: EvaluationRunSpec,
    /// Whether the job asked for it itself: its report becomes the job's own, too.
    pub is_of_job: bool,
    /// How far it is, while it runs.
    pub progress: Option<JobProgress>,
    /// Once it has succeeded.
    pub report: Option<EvaluationReport>,
    /// Why it failed.
    pub error: Option<JobError>,
}

impl Store {
    /// A job's further evaluations, newest first.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for the job.
    pub async fn evaluation_runs(&self, tenant: TenantId, job: JobId) -> Result<Vec<EvaluationRun>, StoreError> {
        self.call("listing evaluations", async {
            let mut connection = self.pool().acquire().await?;
            require_job(&mut connection, tenant, job).await?;
            let rows = sqlx::query_as!(
                RunRow,
                "select r.task_id, r.job_id, t.state, t.created_at, t.started_at, t.finished_at, r.settings, r.is_of_job,
                        r.progress, r.report, r.error
                 from evaluation_runs r join tasks t on t.id = r.task_id
                 where r.job_id = $1 order by r.task_id desc",
                job.0,
            );
            rows.fetch_all(&mut *connection).await?.into_iter().map(RunRow::read).collect()
        })
        .await
    }

    /// One of a job's further evaluations.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for the job or the run.
    pub async fn evaluation_run(
        &self,
        tenant: TenantId,
        job: JobId,
        run: EvaluationRunId,
    ) -> Result<EvaluationRun, StoreError> {
        let runs = self.evaluation_runs(tenant, job).await?;
        runs.into_iter().find(|found| found.id == run).ok_or(StoreError::NotFound { what: "evaluation run" })
    }

    /// The evaluation that a leased task is to do.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] where the task is of another kind.
    pub async fn evaluation_of(&self, task: TaskId) -> Result<EvaluationRun, StoreError> {
        self.call("reading an evaluation", async {
            let row = sqlx::query_as!(
                RunRow,
                "select r.task_id, r.job_id, t.state, t.created_at, t.started_at, t.finished_at, r.settings, r.is_of_job,
                        r.progress, r.report, r.error
                 from evaluation_runs r join tasks t on t.id = r.task_id
                 where r.task_id = $1",
                task.0,
            );
            let row = row.fetch_optional(self.pool()).await?.ok_or(StoreError::NotFound { what: "evaluation run" })?;
            row.read()
        })
        .await
    }
}

struct RunRow {
    task_id: Uuid,
    job_id: Uuid,
    state: String,
    created_at: OffsetDateTime,
    started_at: Option<OffsetDateTime>,
    finished_at: Option<OffsetDateTime>,
    settings: Value,
    is_of_job: bool,
    progress: Option<Value>,
    report: Option<Value>,
    error: Option<Value>,
}

impl RunRow {
    fn read(self) -> Result<EvaluationRun, StoreError> {
        let status = status_of(named("a task's state", &self.state)?);
        Ok(EvaluationRun {
            id: EvaluationRunId(self.task_id),
            job: JobId(self.job_id),
            status,
            created_at: self.created_at,
            started_at: self.started_at,
            finished_at: self.finished_at,
            settings: from_json("an evaluation's settings", self.settings)?,
            is_of_job: self.is_of_job,
            progress: maybe_json("an evaluation's progress", self.progress)?
                .filter(|_| status == EvaluationRunStatus::Running),
            report: maybe_json("an evaluation's report", self.report)?,
            error: maybe_json("an evaluation's error", self.error)?,
        })
    }
}

fn status_of(task: TaskState) -> EvaluationRunStatus {
    match task {
        TaskState::Queued | TaskState::Held => EvaluationRunStatus::Queued,
        TaskState::Running => EvaluationRunStatus::Running,
        TaskState::Done => EvaluationRunStatus::Succeeded,
        TaskState::Failed => EvaluationRunStatus::Failed,
        TaskState::Cancelled => EvaluationRunStatus::Cancelled,
    }
}
