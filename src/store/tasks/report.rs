//! What a running task reports.

use finetuned_protocol::{ids::CheckpointId, status::TaskKind};
use serde_json::Value;
use uuid::Uuid;

use super::{Fenced, LeaseKey, NewCheckpoint, Report};
use crate::{
    NewEvent, Store, StoreError, Wake, checkpoints,
    convert::{big, to_json},
    evaluations::record_answers,
    events,
    listen::wake,
    metrics,
};

impl Store {
    /// Writes events, metrics and progress in one transaction; the same report again changes nothing.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`].
    pub async fn report(&self, lease: &LeaseKey, report: &Report) -> Result<(), StoreError> {
        let Report { last_line, events, metrics, answers, progress, started } = report;
        let progress = progress.as_ref().map(|progress| to_json("a job's progress", progress)).transpose()?;
        self.call("reporting", async {
            let mut fenced = self.fence(lease).await?;
            let scope = fenced.scope();
            let is_repeated = *last_line > 0 && big(*last_line) <= fenced.last_line;
            if is_repeated {
                return Ok(());
            }
            sqlx::query!(
                "update task_lease set last_line = greatest(last_line, $2), heartbeat_at = now() where task_id = $1",
                lease.task.0,
                big(*last_line),
            )
            .execute(&mut *fenced.tx)
            .await?;
            if *started {
                sqlx::query!(
                    "update jobs set status = 'running', started_at = coalesce(started_at, now())
                     where id = $1 and status = 'queued'",
                    fenced.job,
                )
                .execute(&mut *fenced.tx)
                .await?;
            }
            let known = fenced.last_line;
            let is_new = |event: &&NewEvent| event.line.is_none_or(|line| big(line) > known);
            let fresh: Vec<NewEvent> = events.iter().filter(is_new).cloned().collect();
            events::append(&mut fenced.tx, scope, &fresh).await?;
            metrics::upsert(&mut fenced.tx, scope, lease.epoch, metrics).await?;
            record_answers(&mut fenced.tx, (fenced.tenant, lease.task.0), answers).await?;
            if let Some(progress) = progress {
                fenced.record_progress(progress).await?;
            }
            wake(&mut fenced.tx, Wake::Jobs).await?;
            fenced.tx.commit().await?;
            Ok(())
        })
        .await
    }

    /// Publishes a checkpoint; one of the same step is replaced, and those that the job does not keep go, with their
    /// bytes.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`]; [`StoreError::Conflict`] where its bytes are not stored whole.
    pub async fn publish_checkpoint(
        &self,
        lease: &LeaseKey,
        checkpoint: &NewCheckpoint,
    ) -> Result<CheckpointId, StoreError> {
        let published = self.call("publishing a checkpoint", async {
            let mut fenced = self.fence(lease).await?;
            let scope = fenced.scope();
            let id = checkpoints::replace(&mut fenced.tx, scope, lease.epoch, checkpoint).await?;
            let rotated = checkpoints::rotate(&mut fenced.tx, fenced.job).await?;
            let stored: u64 = checkpoint.files.iter().map(|file| file.content.bytes).sum();
            let freed: u64 = rotated.iter().map(|blob| blob.bytes).sum();
            // What lies there already need not be reserved any more.
            sqlx::query!(
                "update tasks set needs_stored_bytes = greatest(needs_stored_bytes + $2 - $3, 0) where id = $1",
                lease.task.0,
                big(freed),
                big(stored),
            )
            .execute(&mut *fenced.tx)
            .await?;
            wake(&mut fenced.tx, Wake::Jobs).await?;
            fenced.tx.commit().await?;
            let released: Vec<Uuid> = rotated.into_iter().map(|blob| blob.blob).collect();
            Ok((id, released))
        });
        let (id, released) = published.await?;
        self.collect_released(&released).await;
        Ok(id)
    }
}

impl Fenced {
    /// An evaluation's progress is its own: its job has ended.
    async fn record_progress(&mut self, progress: Value) -> Result<(), StoreError> {
        let written = match self.kind {
            TaskKind::Evaluate => {
                sqlx::query!("update evaluation_runs set progress = $2 where task_id = $1", self.key.task.0, progress)
                    .execute(&mut *self.tx)
            }
            TaskKind::Validate | TaskKind::Train => {
                sqlx::query!("update job_live set progress = $2 where job_id = $1", self.job, progress)
                    .execute(&mut *self.tx)
            }
        };
        written.await?;
        Ok(())
    }
}
