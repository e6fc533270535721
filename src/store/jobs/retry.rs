//! A new job from a failed or cancelled one, going on from its last checkpoint.

use finetuned_protocol::{
    ids::{CheckpointId, JobId, TaskId, TenantId},
    spec::DiskEstimate,
    status::{EventLevel, JobStatus, TaskKind},
};
use sqlx::PgConnection;

use super::{Job, fetch_jobs, line::find_places};
use crate::{
    Created, Idempotency, NewEvent, Store, StoreError, Wake, checkpoints,
    convert::named,
    events,
    listen::wake,
    quotas,
    tasks::{NewTask, insert_task},
};

/// Checkpoints that a retry takes over: where the newest is damaged, an older one serves.
const CHECKPOINTS: i64 = 3;

impl Store {
    /// Makes a job with the request, the files and the seed of one that failed or was cancelled. It validates again,
    /// then goes on from that job's last checkpoint; the base model must still be the same.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Conflict`] where the job has not failed and was not cancelled, or where
    /// its base model is gone or another by now; [`StoreError::IdempotencyMismatch`]; [`StoreError::QuotaExceeded`].
    pub async fn retry_job(
        &self,
        tenant: TenantId,
        job: JobId,
        idempotency: &Idempotency,
    ) -> Result<Created<Job>, StoreError> {
        self.call("retrying a job", async {
            let mut tx = self.begin().await?;
            let found = idempotency.find(&mut tx, tenant).await?;
            let (id, is_new) = match found {
                Some(found) => (JobId(found), false),
                None => (again(&mut tx, tenant, job).await?, true),
            };
            if is_new {
                idempotency.record(&mut tx, tenant, id.0).await?;
                wake(&mut tx, Wake::Everything).await?;
            }
            let mut made = fetch_jobs(&mut tx, tenant, &[id.0], self.timings().expiry).await?;
            find_places(&mut tx, tenant, &mut made, self.timings().expiry).await?;
            tx.commit().await?;
            let made = made.into_iter().next().ok_or(StoreError::NotFound { what: "job" })?;
            Ok(if is_new { Created::New(made) } else { Created::Existing(made) })
        })
        .await
    }
}

async fn again(tx: &mut PgConnection, tenant: TenantId, old: JobId) -> Result<JobId, StoreError> {
    let model = retryable(tx, tenant, old).await?;
    quotas::require_job_place(tx, tenant).await?;
    let id = JobId::generate();
    sqlx::query!(
        "insert into jobs (id, tenant_id, status, request, metadata, seed, base_model_id, base_model,
                           base_model_sha256, training_file, training_blob_id, validation_file, validation_blob_id,
                           priority, retry_of)
         select $1, tenant_id, 'validating_files', request, metadata, seed, base_model_id, base_model,
                base_model_sha256, training_file, training_blob_id, validation_file, validation_blob_id, priority, id
         from jobs where id = $2",
        id.0,
        old.0,
    )
    .execute(&mut *tx)
    .await?;
    sqlx::query!("insert into job_live (job_id, tenant_id) values ($1, $2)", id.0, tenant.0).execute(&mut *tx).await?;
    let task = NewTask {
        id: TaskId::generate(),
        tenant: tenant.0,
        job: id.0,
        kind: TaskKind::Validate,
        needs_model: &model,
        needs_memory_bytes: None,
        disk: DiskEstimate::default(),
    };
    insert_task(tx, &task).await?;
    let message = match take_over(tx, tenant, old, id).await? {
        Some(step) => format!("Retrying job {old} from its checkpoint of step {step}; validating its files"),
        None => format!("Retrying job {old}, which had no checkpoint; validating its files"),
    };
    events::append(tx, (tenant.0, id.0), &[NewEvent::message(EventLevel::Info, message)]).await?;
    Ok(id)
}

/// That the job may be tried again; gives the hash of its base model.
async fn retryable(tx: &mut PgConnection, tenant: TenantId, job: JobId) -> Result<String, StoreError> {
    let row = sqlx::query!(
        r#"select j.status, j.base_model, j.base_model_sha256, m.sha256 as "model_sha256?"
           from jobs j left join base_models m on m.id = j.base_model_id
           where j.id = $1 and j.tenant_id = $2
           for update of j"#,
        job.0,
        tenant.0,
    );
    let row = row.fetch_optional(tx).await?.ok_or(StoreError::NotFound { what: "job" })?;
    let status: JobStatus = named("a job's status", &row.status)?;
    if !matches!(status, JobStatus::Failed | JobStatus::Cancelled) {
        let message = format!("`{job}` is `{status}`; only a job that failed or was cancelled can be retried");
        return Err(StoreError::conflict(message));
    }
    let model = &row.base_model;
    match row.model_sha256 {
        None => Err(StoreError::conflict(format!("the base model `{model}` is gone; add it again, then create a job"))),
        Some(now) if now != row.base_model_sha256 => {
            let message = format!("the base model `{model}` is another than the job began with; create a new job");
            Err(StoreError::conflict(message))
        }
        Some(now) => Ok(now),
    }
}

/// Gives the new job the last checkpoints and the metrics up to them; the stored bytes are shared. Gives the newest
/// step.
async fn take_over(tx: &mut PgConnection, tenant: TenantId, old: JobId, new: JobId) -> Result<Option<u32>, StoreError> {
    let found = checkpoints::fetch(tx, old, i32::MAX, CHECKPOINTS).await?;
    for checkpoint in &found {
        let id = CheckpointId::generate();
        sqlx::query!(
            "insert into checkpoints (id, tenant_id, job_id, step, epoch, metrics)
             select $1, tenant_id, $2, step, 0, metrics from checkpoints where id = $3",
            id.0,
            new.0,
            checkpoint.id.0,
        )
        .execute(&mut *tx)
        .await?;
        sqlx::query!(
            "insert into checkpoint_files (checkpoint_id, tenant_id, name, blob_id)
             select $1, $2, name, blob_id from checkpoint_files where checkpoint_id = $3",
            id.0,
            tenant.0,
            checkpoint.id.0,
        )
        .execute(&mut *tx)
        .await?;
    }
    let Some(newest) = found.first().map(|checkpoint| checkpoint.step) else { return Ok(None) };
    sqlx::query!(
        "insert into metrics (job_id, name, step, tenant_id, epoch, value, recorded_at)
         select $1, name, step, tenant_id, 0, value, recorded_at from metrics where job_id = $2 and step <= $3",
        new.0,
        old.0,
        crate::convert::int(newest),
    )
    .execute(tx)
    .await?;
    Ok(Some(newest))
}
