//! Putting tasks into the queue, at first and again.

use finetuned_protocol::{ids::TaskId, spec::DiskEstimate, status::TaskKind};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{StoreError, convert::big};

/// A task to be queued.
pub(crate) struct NewTask<'a> {
    pub id: TaskId,
    pub tenant: Uuid,
    pub job: Uuid,
    pub kind: TaskKind,
    /// Hash of the base model that its worker must have.
    pub needs_model: &'a str,
    pub needs_memory_bytes: Option<i64>,
    /// Beside its datasets.
    pub disk: DiskEstimate,
}

/// Queues a task with its job's priority; its lease row is made with it.
pub(crate) async fn insert_task(tx: &mut PgConnection, task: &NewTask<'_>) -> Result<(), StoreError> {
    sqlx::query!(
        "insert into tasks (id, tenant_id, kind, job_id, needs_model, needs_memory_bytes, priority, needs_work_bytes,
                            needs_stored_bytes)
         select $1, $2, $3, $4, $5, $6, j.priority, $7 + coalesce(t.bytes, 0) + coalesce(v.bytes, 0), $8
         from jobs j
         left join blobs t on t.id = j.training_blob_id
         left join blobs v on v.id = j.validation_blob_id
         where j.id = $4",
        task.id.0,
        task.tenant,
        task.kind.as_str(),
        task.job,
        task.needs_model,
        task.needs_memory_bytes,
        big(task.disk.work_bytes),
        big(task.disk.stored_bytes),
    )
    .execute(&mut *tx)
    .await?;
    sqlx::query!("insert into task_lease (task_id, tenant_id) values ($1, $2)", task.id.0, task.tenant)
        .execute(tx)
        .await?;
    Ok(())
}

/// Holds a waiting task until its job is resumed.
pub(crate) async fn hold(tx: &mut PgConnection, task: Uuid) -> Result<(), StoreError> {
    sqlx::query!(
        "with held as (update tasks set state = 'held' where id = $1 and state = 'queued' returning job_id)
         update jobs set paused = true, waiting_reason = 'paused' from held where id = held.job_id",
        task,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Gives a running task back to the queue, in its old place; or holds it where a pause was asked for, which is fulfilled
/// by that. The lease's row must be locked. Gives whether it is held.
pub(super) async fn requeue(tx: &mut PgConnection, task: Uuid) -> Result<bool, StoreError> {
    let row = sqlx::query!(
        r#"update tasks set state = case when request = 'pause' then 'held' else 'queued' end, request = null
           where id = $1
           returning job_id, state = 'held' as "held!""#,
        task,
    )
    .fetch_one(&mut *tx)
    .await?;
    sqlx::query!(
        "update jobs set
             status = case when status = 'running' then 'queued' else status end,
             paused = $2, waiting_reason = case when $2 then 'paused' end
         where id = $1 and finished_at is null",
        row.job_id,
        row.held,
    )
    .execute(tx)
    .await?;
    Ok(row.held)
}
