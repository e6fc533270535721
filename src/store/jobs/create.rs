//! Making a job: one transaction for the job, its `validate` task and its first event.

use finetuned_protocol::{
    ids::{FileId, JobId, TaskId, TenantId},
    spec::DiskEstimate,
    status::{EventLevel, TaskKind},
};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Job, NewJob, fetch_jobs};
use crate::{
    Created, Idempotency, NewEvent, Store, StoreError, Wake,
    convert::{int, to_json},
    events,
    listen::wake,
    quotas,
    tasks::{NewTask, insert_task},
};

impl Store {
    /// Makes a job in `validating_files`, or gives the one that an equal request made before.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] with `what` one of `model`, `training_file`, `validation_file`;
    /// [`StoreError::Conflict`] where a file is in `error`; [`StoreError::IdempotencyMismatch`];
    /// [`StoreError::QuotaExceeded`].
    pub async fn create_job(
        &self,
        tenant: TenantId,
        job: NewJob,
        idempotency: Option<&Idempotency>,
    ) -> Result<Created<Job>, StoreError> {
        self.call("making a job", async {
            let mut tx = self.begin().await?;
            let expiry = self.timings().expiry;
            if let Some(idempotency) = idempotency
                && let Some(found) = idempotency.find(&mut tx, tenant).await?
            {
                let found = fetch_jobs(&mut tx, tenant, &[found], expiry).await?.into_iter().next();
                return found.map(Created::Existing).ok_or(StoreError::NotFound { what: "job" });
            }
            quotas::require_job_place(&mut tx, tenant).await?;
            let id = insert(&mut tx, tenant, &job).await?;
            if let Some(idempotency) = idempotency {
                idempotency.record(&mut tx, tenant, id.0).await?;
            }
            let made = fetch_jobs(&mut tx, tenant, &[id.0], expiry).await?.into_iter().next();
            wake(&mut tx, Wake::Everything).await?;
            tx.commit().await?;
            made.map(Created::New).ok_or(StoreError::NotFound { what: "job" })
        })
        .await
    }
}

async fn insert(tx: &mut PgConnection, tenant: TenantId, job: &NewJob) -> Result<JobId, StoreError> {
    let NewJob { request, seed, training_file, validation_file } = job;
    let model = sqlx::query!("select id, sha256 from base_models where name = $1 for key share", request.model);
    let model = model.fetch_optional(&mut *tx).await?.ok_or(StoreError::NotFound { what: "model" })?;
    // Whoever tolerates bad rows, or reads a file otherwise than its upload did, may use one that is in error.
    let tolerates = request.invalid_row_tolerance.is_some_and(|share| share > 0.0);
    let training = UsableFile { file: *training_file, what: "training_file" };
    let training_blob = usable_blob(tx, tenant, training, tolerates || request.training_reading.is_some()).await?;
    let validation_blob = match validation_file {
        Some(file) => {
            let validation = UsableFile { file: *file, what: "validation_file" };
            Some(usable_blob(tx, tenant, validation, tolerates || request.validation_reading.is_some()).await?)
        }
        None => None,
    };
    let id = JobId::generate();
    let metadata = request.metadata.as_ref().map(|pairs| to_json("metadata", pairs)).transpose()?;
    sqlx::query!(
        "insert into jobs (id, tenant_id, status, request, metadata, seed, base_model_id, base_model,
                           base_model_sha256, training_file, training_blob_id, validation_file, validation_blob_id,
                           priority)
         values ($1, $2, 'validating_files', $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
        id.0,
        tenant.0,
        to_json("a job's request", request)?,
        metadata,
        int(*seed),
        model.id,
        request.model,
        model.sha256,
        training_file.0,
        training_blob,
        validation_file.map(|file| file.0),
        validation_blob,
        request.priority.unwrap_or(0),
    )
    .execute(&mut *tx)
    .await?;
    sqlx::query!("insert into job_live (job_id, tenant_id) values ($1, $2)", id.0, tenant.0).execute(&mut *tx).await?;
    let task = NewTask {
        id: TaskId::generate(),
        tenant: tenant.0,
        job: id.0,
        kind: TaskKind::Validate,
        needs_model: &model.sha256,
        needs_memory_bytes: None,
        disk: DiskEstimate::default(),
    };
    insert_task(tx, &task).await?;
    let first = NewEvent::message(EventLevel::Info, "Created fine-tuning job; validating its files");
    events::append(tx, (tenant.0, id.0), &[first]).await?;
    Ok(id)
}

/// One of a job's files.
struct UsableFile {
    file: FileId,
    what: &'static str,
}

/// The bytes of a file that a job may use; the file cannot be deleted before the job refers to them.
async fn usable_blob(
    tx: &mut PgConnection,
    tenant: TenantId,
    UsableFile { file, what }: UsableFile,
    in_error_too: bool,
) -> Result<Uuid, StoreError> {
    let row = sqlx::query!(
        "select blob_id, status, status_details from files
         where id = $1 and tenant_id = $2 and (expires_at is null or expires_at > now())
         for share",
        file.0,
        tenant.0,
    );
    let row = row.fetch_optional(tx).await?.ok_or(StoreError::NotFound { what })?;
    if row.status == "error" && !in_error_too {
        let details = row.status_details.unwrap_or_default();
        return Err(StoreError::conflict(format!("{what} cannot be used: {details}")));
    }
    Ok(row.blob_id)
}
