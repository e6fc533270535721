//! The fence that every write of a worker passes, and the end of a lease.

use finetuned_protocol::status::{TaskKind, TaskState};
use sqlx::{PgConnection, Postgres, Transaction};
use uuid::Uuid;

use super::LeaseKey;
use crate::{Store, StoreError, convert::named};

/// A transaction in which the lease is ours: its row is locked, so a take-back waits until we have committed.
pub(crate) struct Fenced {
    pub tx: Transaction<'static, Postgres>,
    pub key: LeaseKey,
    pub tenant: Uuid,
    pub job: Uuid,
    pub kind: TaskKind,
    /// Highest engine line recorded under this epoch.
    pub last_line: i64,
}

impl Store {
    /// Locks the lease's row at its own epoch. A `where epoch = $n` in the write itself would not do: the write could
    /// commit after a take-back that did not see it.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`] where the epoch has passed.
    pub(crate) async fn fence(&self, key: &LeaseKey) -> Result<Fenced, StoreError> {
        let mut tx = self.begin().await?;
        let row = sqlx::query!(
            "select l.tenant_id, l.last_line, t.job_id, t.kind
             from task_lease l join tasks t on t.id = l.task_id
             where l.task_id = $1 and l.epoch = $2
             for no key update of l",
            key.task.0,
            key.epoch,
        );
        let row = row.fetch_optional(&mut *tx).await?.ok_or(StoreError::LeaseLost)?;
        let kind = named("a task's kind", &row.kind)?;
        Ok(Fenced { tx, key: *key, tenant: row.tenant_id, job: row.job_id, kind, last_line: row.last_line })
    }

    /// Like [`Self::fence`], for calls that end the lease: `None` where the same holder ended it already, so that a
    /// call whose answer was lost can be repeated.
    pub(crate) async fn fence_or_ended(&self, key: &LeaseKey) -> Result<Option<Fenced>, StoreError> {
        match self.fence(key).await {
            Ok(fenced) => Ok(Some(fenced)),
            Err(StoreError::LeaseLost) => {
                let ended = sqlx::query_scalar!(
                    r#"select exists(select from tasks where id = $1 and final_epoch = $2) as "ended!""#,
                    key.task.0,
                    key.epoch,
                );
                if ended.fetch_one(self.pool()).await? { Ok(None) } else { Err(StoreError::LeaseLost) }
            }
            Err(error) => Err(error),
        }
    }
}

impl Fenced {
    /// Owner of the rows that are written.
    pub(super) fn scope(&self) -> (Uuid, Uuid) {
        (self.tenant, self.job)
    }

    /// Ends the lease, and the task with it. Gives whether a pause was asked for that nobody has fulfilled.
    pub(crate) async fn end_task(&mut self, state: TaskState) -> Result<bool, StoreError> {
        end_lease(&mut self.tx, self.key.task.0).await?;
        let pause = sqlx::query_scalar!(
            r#"with before as (select id, request from tasks where id = $1 for update)
               update tasks t set state = $2, request = null, final_epoch = $3, finished_at = now()
               from before b where t.id = b.id
               returning coalesce(b.request = 'pause', false) as "pause!""#,
            self.key.task.0,
            state.as_str(),
            self.key.epoch,
        );
        Ok(pause.fetch_one(&mut *self.tx).await?)
    }
}

/// Raises the epoch: from here on, the holder's writes are refused.
pub(super) async fn end_lease(tx: &mut PgConnection, task: Uuid) -> Result<(), StoreError> {
    sqlx::query!(
        "update task_lease set epoch = epoch + 1, worker_id = null, heartbeat_at = null where task_id = $1",
        task,
    )
    .execute(tx)
    .await?;
    Ok(())
}
