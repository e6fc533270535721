//! The ends of an evaluation.

use finetuned_protocol::{
    error::JobError,
    evaluation::EvaluationReport,
    status::{EventLevel, TaskKind, TaskState},
};

use super::drop_answers;
use crate::{NewEvent, Store, StoreError, convert::to_json, tasks::Fenced, tasks::LeaseKey};

impl Store {
    /// Ends `evaluate`: its report stands beside the job's, or is the job's where the job asked for it itself.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`]; [`StoreError::Conflict`] for another kind of task.
    pub async fn finish_evaluation(&self, lease: &LeaseKey, report: &EvaluationReport) -> Result<(), StoreError> {
        self.call("finishing an evaluation", async {
            let Some(mut fenced) = self.fence_or_ended(lease).await? else { return Ok(()) };
            fenced.require(TaskKind::Evaluate)?;
            fenced.end_task(TaskState::Done).await?;
            sqlx::query!(
                "update evaluation_runs set report = $2, progress = null where task_id = $1",
                lease.task.0,
                to_json("an evaluation's report", report)?,
            )
            .execute(&mut *fenced.tx)
            .await?;
            sqlx::query!(
                "update jobs j set evaluation = r.report from evaluation_runs r
                 where r.task_id = $1 and r.is_of_job and j.id = r.job_id",
                lease.task.0,
            )
            .execute(&mut *fenced.tx)
            .await?;
            drop_answers(&mut fenced.tx, lease.task.0).await?;
            fenced.publish(&[NewEvent::message(EventLevel::Info, "The evaluation is done")]).await
        })
        .await
    }
}

impl Fenced {
    /// Ends the task as failed; its job stays succeeded.
    pub(crate) async fn fail_evaluation(mut self, error: &JobError) -> Result<(), StoreError> {
        let task = self.key.task.0;
        self.end_task(TaskState::Failed).await?;
        sqlx::query!(
            "update evaluation_runs set error = $2, progress = null where task_id = $1",
            task,
            to_json("an evaluation's error", error)?,
        )
        .execute(&mut *self.tx)
        .await?;
        drop_answers(&mut self.tx, task).await?;
        let message = format!("The evaluation failed: {}", error.message);
        self.publish(&[NewEvent::message(EventLevel::Warn, message)]).await
    }
}
