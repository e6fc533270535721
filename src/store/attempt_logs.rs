//! The last lines that each attempt's engine wrote.

use finetuned_protocol::ids::{JobId, TaskId, TenantId};
use time::OffsetDateTime;

use crate::{
    Store, StoreError,
    convert::{small, storable_text},
    jobs::require_job,
    tasks::LeaseKey,
};

/// Attempts whose lines are kept of a job, the newest.
const KEPT: i64 = 20;

/// What one attempt's engine said last.
#[derive(Debug, Clone, PartialEq)]
pub struct AttemptLog {
    pub task: TaskId,
    /// Counted from 1.
    pub attempt: u32,
    pub recorded_at: OffsetDateTime,
    /// Oldest first.
    pub lines: Vec<String>,
}

impl Store {
    /// Keeps the last lines of an attempt; a later call of the same attempt replaces them.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`].
    pub async fn record_log(&self, lease: &LeaseKey, lines: &[String]) -> Result<(), StoreError> {
        let lines: Vec<String> = lines.iter().map(|line| storable_text(line)).collect();
        self.call("keeping an engine's log", async {
            let mut fenced = self.fence(lease).await?;
            sqlx::query!(
                "insert into attempt_logs (job_id, task_id, epoch, tenant_id, attempt, lines)
                 select $1, id, $3, tenant_id, attempt, $4 from tasks where id = $2
                 on conflict (job_id, task_id, epoch) do update set lines = excluded.lines, recorded_at = now()",
                fenced.job,
                lease.task.0,
                lease.epoch,
                &lines,
            )
            .execute(&mut *fenced.tx)
            .await?;
            sqlx::query!(
                "delete from attempt_logs where job_id = $1 and (task_id, epoch) in (
                     select task_id, epoch from attempt_logs where job_id = $1 order by recorded_at desc offset $2
                 )",
                fenced.job,
                KEPT,
            )
            .execute(&mut *fenced.tx)
            .await?;
            fenced.tx.commit().await?;
            Ok(())
        })
        .await
    }

    /// The logs of a job's attempts, the newest attempt first.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn attempt_logs(&self, tenant: TenantId, job: JobId) -> Result<Vec<AttemptLog>, StoreError> {
        self.call("reading engines' logs", async {
            let mut connection = self.pool().acquire().await?;
            require_job(&mut connection, tenant, job).await?;
            let rows = sqlx::query!(
                "select task_id, attempt, recorded_at, lines from attempt_logs where job_id = $1
                 order by recorded_at desc, epoch desc",
                job.0,
            );
            let rows = rows.fetch_all(&mut *connection).await?.into_iter();
            let log = rows.map(|row| AttemptLog {
                task: TaskId(row.task_id),
                attempt: small(row.attempt),
                recorded_at: row.recorded_at,
                lines: row.lines,
            });
            Ok(log.collect())
        })
        .await
    }
}
