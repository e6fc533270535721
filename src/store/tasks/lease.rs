//! Keeping and letting go of a lease.

use finetuned_protocol::{
    error::JobError,
    status::{EventLevel, TaskKind, TaskState},
};

use super::{
    Heartbeat, LeaseKey, Release, Released, Suspension,
    fence::{Fenced, end_lease},
    queue::requeue,
};
use crate::{
    NewEvent, Store, StoreError, Wake,
    convert::{int, storable_text, to_json},
    events,
    listen::wake,
};

/// Engines in a row that one task may crash without getting further; the job fails with the last one's cause. Each
/// crash beyond the furthest step before counts as the first again, so that a long job is not ended by rare faults, and
/// one that always breaks at the same place is.
const CRASH_CAP: i32 = 3;

impl Store {
    /// Renews a lease, also an expired one that nobody took back.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`]: kill the engine, write nothing more.
    pub async fn heartbeat(&self, lease: &LeaseKey) -> Result<Heartbeat, StoreError> {
        self.call("renewing a lease", async {
            let request = sqlx::query_scalar!(
                r#"with beat as (
                       update task_lease set heartbeat_at = now() where task_id = $1 and epoch = $2 returning task_id
                   )
                   select coalesce(t.request = 'pause', false) as "pause!" from beat join tasks t on t.id = beat.task_id"#,
                lease.task.0,
                lease.epoch,
            );
            let pause = request.fetch_optional(self.pool()).await?.ok_or(StoreError::LeaseLost)?;
            Ok(Heartbeat { pause_requested: pause })
        })
        .await
    }

    /// Holds the task: the job is `queued` and `paused` until resumed. A pause that was taken back meanwhile gives the
    /// task back to the queue instead.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`].
    pub async fn suspend(&self, lease: &LeaseKey, why: Suspension) -> Result<(), StoreError> {
        self.call("suspending a task", async {
            let Some(mut fenced) = self.fence_or_ended(lease).await? else { return Ok(()) };
            // A job that has ended cannot wait for anything: its evaluation is asked for again once that is mended.
            if let (TaskKind::Evaluate, Suspension::Because(error)) = (fenced.kind, &why) {
                return fenced.fail_evaluation(error).await;
            }
            fenced.note_final_epoch().await?;
            end_lease(&mut fenced.tx, lease.task.0).await?;
            let event = match why {
                Suspension::Paused => {
                    let held = requeue(&mut fenced.tx, lease.task.0).await?;
                    let message = if held { "The job is paused" } else { "The pause was taken back; the job goes on" };
                    NewEvent::message(EventLevel::Info, message)
                }
                Suspension::Because(error) => fenced.hold(&error).await?,
            };
            fenced.finish_with(event).await
        })
        .await
    }

    /// Gives the task back to the queue, in its old place.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`].
    pub async fn release(&self, lease: &LeaseKey, why: Release) -> Result<Released, StoreError> {
        self.call("giving a task back", async {
            let Some(mut fenced) = self.fence_or_ended(lease).await? else { return self.released(lease).await };
            match why {
                Release::Shutdown => {
                    fenced.note_final_epoch().await?;
                    end_lease(&mut fenced.tx, lease.task.0).await?;
                    sqlx::query!("update tasks set attempt = greatest(attempt - 1, 0) where id = $1", lease.task.0)
                        .execute(&mut *fenced.tx)
                        .await?;
                    requeue(&mut fenced.tx, lease.task.0).await?;
                    let message = match fenced.kind {
                        TaskKind::Evaluate => {
                            "The worker is shutting down; the evaluation goes on with what is left to ask"
                        }
                        _ => "The worker is shutting down; the job goes on from its last completed step",
                    };
                    fenced.finish_with(NewEvent::message(EventLevel::Info, message)).await?;
                    Ok(Released::Queued)
                }
                Release::Crashed(error) => fenced.crashed(error).await,
            }
        })
        .await
    }

    async fn released(&self, lease: &LeaseKey) -> Result<Released, StoreError> {
        let state = sqlx::query_scalar!("select state from tasks where id = $1", lease.task.0);
        let failed = state.fetch_one(self.pool()).await? == TaskState::Failed.as_str();
        Ok(if failed { Released::Failed } else { Released::Queued })
    }

    /// Ends task and job as failed.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`].
    pub async fn fail(&self, lease: &LeaseKey, error: JobError) -> Result<(), StoreError> {
        self.call("failing a job", async {
            match self.fence_or_ended(lease).await? {
                Some(fenced) => fenced.fail(&error).await,
                None => Ok(()),
            }
        })
        .await
    }
}

impl Fenced {
    async fn note_final_epoch(&mut self) -> Result<(), StoreError> {
        sqlx::query!("update tasks set final_epoch = $2 where id = $1", self.key.task.0, self.key.epoch)
            .execute(&mut *self.tx)
            .await?;
        Ok(())
    }

    async fn finish_with(mut self, event: NewEvent) -> Result<(), StoreError> {
        let scope = self.scope();
        events::append(&mut self.tx, scope, &[event]).await?;
        wake(&mut self.tx, Wake::Everything).await?;
        self.tx.commit().await?;
        Ok(())
    }

    /// Holds the task until a person has mended the cause.
    async fn hold(&mut self, error: &JobError) -> Result<NewEvent, StoreError> {
        sqlx::query!("update tasks set state = 'held', request = null where id = $1", self.key.task.0)
            .execute(&mut *self.tx)
            .await?;
        sqlx::query!(
            "update jobs set status = case when status = 'running' then 'queued' else status end,
                             paused = true, waiting_reason = $2, error = $3
             where id = $1",
            self.job,
            storable_text(&error.message),
            to_json("a job's error", error)?,
        )
        .execute(&mut *self.tx)
        .await?;
        let message = format!("The job is suspended: {}; resume it once that is mended", error.message);
        Ok(NewEvent::message(EventLevel::Warn, message))
    }

    async fn crashed(mut self, error: JobError) -> Result<Released, StoreError> {
        let task = self.key.task.0;
        let crashes = sqlx::query_scalar!(
            "update tasks set crashes = case when $2 > crash_step then 1 else crashes + 1 end,
                              crash_step = greatest(crash_step, $2)
             where id = $1 returning crashes",
            task,
            error.step.map(int),
        );
        let crashes = crashes.fetch_one(&mut *self.tx).await?;
        if crashes >= CRASH_CAP {
            self.fail(&error).await?;
            return Ok(Released::Failed);
        }
        self.note_final_epoch().await?;
        end_lease(&mut self.tx, task).await?;
        requeue(&mut self.tx, task).await?;
        let message = format!("The engine failed ({crashes} of {CRASH_CAP} times): {}; trying again", error.message);
        self.finish_with(NewEvent::message(EventLevel::Warn, message)).await?;
        Ok(Released::Queued)
    }

    async fn fail(mut self, error: &JobError) -> Result<(), StoreError> {
        if self.kind == TaskKind::Evaluate {
            return self.fail_evaluation(error).await;
        }
        self.end_task(TaskState::Failed).await?;
        sqlx::query!(
            "update jobs set status = 'failed', paused = false, waiting_reason = null, error = $2, finished_at = now()
             where id = $1 and finished_at is null",
            self.job,
            to_json("a job's error", error)?,
        )
        .execute(&mut *self.tx)
        .await?;
        self.finish_with(NewEvent::message(EventLevel::Error, format!("The job failed: {}", error.message))).await
    }
}
