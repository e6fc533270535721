//! Cancel, pause, resume, and a new priority.

use finetuned_protocol::{
    ids::{JobId, TenantId},
    status::{EventLevel, JobStatus, TaskState},
};
use sqlx::{PgTransaction, Postgres, Transaction};
use uuid::Uuid;

use super::{Control, fetch_jobs, line::find_places, require_job};
use crate::{NewEvent, Store, StoreError, Wake, convert::named, events, listen::wake, tasks::hold};

impl Store {
    /// Cancels at once: the job is `cancelled` and its tasks' epochs are raised, so that a worker's next write is
    /// refused. `Already` on a cancelled job, `Ended` on a succeeded or failed one.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn cancel_job(&self, tenant: TenantId, job: JobId) -> Result<Control, StoreError> {
        self.call("cancelling a job", async {
            let mut locked = self.lock_job(tenant, job).await?;
            if locked.status.is_terminal() {
                let cancelled = locked.status == JobStatus::Cancelled;
                return self.answer(locked, if cancelled { Control::Already } else { Control::Ended }).await;
            }
            let tasks: Vec<Uuid> = locked.tasks.iter().map(|task| task.id).collect();
            sqlx::query!(
                "update task_lease set epoch = epoch + 1, worker_id = null, heartbeat_at = null where task_id = any($1)",
                &tasks,
            )
            .execute(&mut *locked.tx)
            .await?;
            sqlx::query!(
                "update tasks set state = 'cancelled', request = null, finished_at = now()
                 where id = any($1) and state in ('queued', 'held', 'running')",
                &tasks,
            )
            .execute(&mut *locked.tx)
            .await?;
            sqlx::query!(
                "update jobs set status = 'cancelled', paused = false, waiting_reason = null, error = null,
                                 finished_at = now()
                 where id = $1",
                job.0,
            )
            .execute(&mut *locked.tx)
            .await?;
            locked.say("The job was cancelled; its checkpoints stay").await?;
            self.answer(locked, Control::Done).await
        })
        .await
    }

    /// Holds a waiting job; asks the worker of a running one (see [`crate::Heartbeat`]).
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn pause_job(&self, tenant: TenantId, job: JobId) -> Result<Control, StoreError> {
        self.call("pausing a job", async {
            let mut locked = self.lock_job(tenant, job).await?;
            if locked.status.is_terminal() {
                return self.answer(locked, Control::Ended).await;
            }
            match locked.active() {
                Some((id, TaskState::Running, false)) => {
                    sqlx::query!("update tasks set request = 'pause' where id = $1", id)
                        .execute(&mut *locked.tx)
                        .await?;
                    locked.say("A pause was asked for").await?;
                }
                Some((id, TaskState::Queued, _)) => {
                    hold(&mut locked.tx, id).await?;
                    locked.say("The job is paused").await?;
                }
                _ => return self.answer(locked, Control::Already).await,
            }
            self.answer(locked, Control::Done).await
        })
        .await
    }

    /// Lets a paused or suspended job go on; takes an unfulfilled pause request back.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn resume_job(&self, tenant: TenantId, job: JobId) -> Result<Control, StoreError> {
        self.call("resuming a job", async {
            let mut locked = self.lock_job(tenant, job).await?;
            if locked.status.is_terminal() {
                return self.answer(locked, Control::Ended).await;
            }
            match locked.active() {
                Some((id, TaskState::Running, true)) => {
                    sqlx::query!("update tasks set request = null where id = $1", id).execute(&mut *locked.tx).await?;
                    locked.say("The pause was taken back").await?;
                }
                Some((id, TaskState::Held, _)) => {
                    sqlx::query!("update tasks set state = 'queued' where id = $1", id)
                        .execute(&mut *locked.tx)
                        .await?;
                    sqlx::query!(
                        "update jobs set paused = false, waiting_reason = null, error = null where id = $1",
                        job.0,
                    )
                    .execute(&mut *locked.tx)
                    .await?;
                    locked.say("The job was resumed").await?;
                }
                _ => return self.answer(locked, Control::Already).await,
            }
            self.answer(locked, Control::Done).await
        })
        .await
    }

    /// Gives a job another priority among those of its tenant; a running one keeps it for when it is queued again.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn set_priority(&self, tenant: TenantId, job: JobId, priority: i32) -> Result<Control, StoreError> {
        self.call("changing a job's priority", async {
            let mut locked = self.lock_job(tenant, job).await?;
            if locked.status.is_terminal() {
                return self.answer(locked, Control::Ended).await;
            }
            let before = sqlx::query_scalar!(
                "with before as (select priority from jobs where id = $1)
                 update jobs set priority = $2 from before where id = $1 returning before.priority",
                job.0,
                priority,
            );
            if before.fetch_one(&mut *locked.tx).await? == priority {
                return self.answer(locked, Control::Already).await;
            }
            sqlx::query!("update tasks set priority = $2 where job_id = $1 and finished_at is null", job.0, priority)
                .execute(&mut *locked.tx)
                .await?;
            locked.say(&format!("The job's priority is now {priority}")).await?;
            self.answer(locked, Control::Done).await
        })
        .await
    }

    /// Locks a job with all its leases, in the order that workers lock: leases, tasks, job. When a task came into
    /// being meanwhile, all is let go and begun again, so that nobody waits for each other.
    async fn lock_job(&self, tenant: TenantId, job: JobId) -> Result<LockedJob, StoreError> {
        loop {
            let mut tx = self.begin().await?;
            require_job(&mut tx, tenant, job).await?;
            let leases = sqlx::query_scalar!(
                "select l.task_id from task_lease l join tasks t on t.id = l.task_id
                 where t.job_id = $1 order by l.task_id for update of l",
                job.0,
            )
            .fetch_all(&mut *tx)
            .await?;
            let rows =
                sqlx::query!("select id, state, request from tasks where job_id = $1 order by id for update", job.0)
                    .fetch_all(&mut *tx)
                    .await?;
            if leases.len() != rows.len() {
                continue;
            }
            let status = sqlx::query_scalar!("select status from jobs where id = $1 for update", job.0);
            let status = named("a job's status", &status.fetch_one(&mut *tx).await?)?;
            let mut tasks = Vec::new();
            for row in rows {
                let state = named("a task's state", &row.state)?;
                tasks.push(LockedTask { id: row.id, state, pause_requested: row.request.is_some() });
            }
            return Ok(LockedJob { tx, tenant, job, status, tasks });
        }
    }

    /// Commits and reads the job once more.
    async fn answer(&self, locked: LockedJob, how: impl FnOnce(crate::Job) -> Control) -> Result<Control, StoreError> {
        let LockedJob { mut tx, tenant, job, .. } = locked;
        let mut found = fetch_jobs(&mut tx, tenant, &[job.0], self.timings().expiry).await?;
        find_places(&mut tx, tenant, &mut found, self.timings().expiry).await?;
        wake(&mut tx, Wake::Everything).await?;
        tx.commit().await?;
        found.into_iter().next().map(how).ok_or(StoreError::NotFound { what: "job" })
    }
}

struct LockedTask {
    id: Uuid,
    state: TaskState,
    pause_requested: bool,
}

/// A job whose state nobody else can change until the transaction ends.
struct LockedJob {
    tx: Transaction<'static, Postgres>,
    tenant: TenantId,
    job: JobId,
    status: JobStatus,
    tasks: Vec<LockedTask>,
}

impl LockedJob {
    /// The task that has not ended: its id, its state, and whether a pause was asked for.
    fn active(&self) -> Option<(Uuid, TaskState, bool)> {
        let open = |task: &&LockedTask| matches!(task.state, TaskState::Queued | TaskState::Held | TaskState::Running);
        self.tasks.iter().find(open).map(|task| (task.id, task.state, task.pause_requested))
    }

    async fn say(&mut self, message: &str) -> Result<(), StoreError> {
        let event = NewEvent::message(EventLevel::Info, message);
        let tx: &mut PgTransaction<'static> = &mut self.tx;
        events::append(tx, (self.tenant.0, self.job.0), &[event]).await
    }
}
