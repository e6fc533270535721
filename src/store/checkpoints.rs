//! Checkpoints and artifacts of a job: named files whose bytes are blobs.

use std::collections::HashMap;

use finetuned_protocol::ids::{CheckpointId, JobId, TenantId};
use serde_json::Value;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    BlobId, NewCheckpoint, Page, Store, StoreError, StoredBlob,
    blobs::make_live,
    convert::{count, int, small, storable},
    jobs::require_job,
};

/// A named file whose bytes are stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredFile {
    /// Name within its folder, such as `adapter_model.safetensors`.
    pub name: String,
    pub content: StoredBlob,
}

/// A file of a finished job's adapter.
pub type Artifact = StoredFile;

/// A checkpoint of a job.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    pub id: CheckpointId,
    pub job: JobId,
    pub step: u32,
    pub created_at: OffsetDateTime,
    /// Numbers by name, such as `train_loss`.
    pub metrics: Value,
    pub files: Vec<StoredFile>,
}

impl Store {
    /// A page of checkpoints, highest step first.
    ///
    /// # Errors
    /// `NotFound` with `what` one of `job`, `after`.
    pub async fn list_checkpoints(
        &self,
        tenant: TenantId,
        job: JobId,
        after: Option<CheckpointId>,
        limit: u32,
    ) -> Result<Page<Checkpoint>, StoreError> {
        self.call("listing checkpoints", async {
            let mut connection = self.pool().acquire().await?;
            require_job(&mut connection, tenant, job).await?;
            let below = match after {
                None => i32::MAX,
                Some(checkpoint) => {
                    let step = sqlx::query_scalar!(
                        "select step from checkpoints where job_id = $1 and id = $2",
                        job.0,
                        checkpoint.0
                    );
                    step.fetch_optional(&mut *connection).await?.ok_or(StoreError::NotFound { what: "after" })?
                }
            };
            let checkpoints = fetch(&mut connection, job, below, i64::from(limit) + 1).await?;
            Ok(Page::cut(checkpoints, limit))
        })
        .await
    }

    /// Files of the adapter of a succeeded job, by name; empty before.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn artifacts(&self, tenant: TenantId, job: JobId) -> Result<Vec<Artifact>, StoreError> {
        self.call("listing artifacts", async {
            let mut connection = self.pool().acquire().await?;
            require_job(&mut connection, tenant, job).await?;
            let rows = sqlx::query!(
                r#"select a.name, a.blob_id, b.bytes as "bytes!", b.sha256 as "sha256!"
                   from artifacts a join blobs b on b.id = a.blob_id where a.job_id = $1 order by a.name"#,
                job.0,
            );
            let rows = rows.fetch_all(&mut *connection).await?;
            Ok(rows.into_iter().map(|row| stored_file(row.name, row.blob_id, row.bytes, &row.sha256)).collect())
        })
        .await
    }
}

fn stored_file(name: String, blob: Uuid, bytes: i64, sha256: &[u8]) -> StoredFile {
    StoredFile { name, content: StoredBlob { id: BlobId(blob), bytes: count(bytes), sha256: hex::encode(sha256) } }
}

/// Checkpoints of a job below a step, highest step first, with their files.
pub(crate) async fn fetch(
    connection: &mut PgConnection,
    job: JobId,
    below: i32,
    limit: i64,
) -> Result<Vec<Checkpoint>, StoreError> {
    let rows = sqlx::query!(
        "select id, step, created_at, metrics from checkpoints
         where job_id = $1 and step < $2 order by step desc limit $3",
        job.0,
        below,
        limit,
    )
    .fetch_all(&mut *connection)
    .await?;
    let ids: Vec<Uuid> = rows.iter().map(|row| row.id).collect();
    let files = sqlx::query!(
        r#"select f.checkpoint_id, f.name, f.blob_id, b.bytes as "bytes!", b.sha256 as "sha256!"
           from checkpoint_files f join blobs b on b.id = f.blob_id
           where f.checkpoint_id = any($1) order by f.name"#,
        &ids,
    )
    .fetch_all(connection)
    .await?;
    let mut by_checkpoint: HashMap<Uuid, Vec<StoredFile>> = HashMap::new();
    for row in files {
        let file = stored_file(row.name, row.blob_id, row.bytes, &row.sha256);
        by_checkpoint.entry(row.checkpoint_id).or_default().push(file);
    }
    let checkpoints = rows.into_iter().map(|row| Checkpoint {
        id: CheckpointId(row.id),
        job,
        step: small(row.step),
        created_at: row.created_at,
        metrics: row.metrics,
        files: by_checkpoint.remove(&row.id).unwrap_or_default(),
    });
    Ok(checkpoints.collect())
}

/// Writes a checkpoint, or replaces the one of its step.
pub(crate) async fn replace(
    tx: &mut PgConnection,
    (tenant, job): (Uuid, Uuid),
    epoch: i64,
    checkpoint: &NewCheckpoint,
) -> Result<CheckpointId, StoreError> {
    make_live(tx, TenantId(tenant), checkpoint.files.iter().map(|file| &file.content)).await?;
    let id = sqlx::query_scalar!(
        "insert into checkpoints (id, tenant_id, job_id, step, epoch, metrics) values ($1, $2, $3, $4, $5, $6)
         on conflict (job_id, step) do update
             set epoch = excluded.epoch, metrics = excluded.metrics, created_at = now()
         returning id",
        CheckpointId::generate().0,
        tenant,
        job,
        int(checkpoint.step),
        epoch,
        storable(checkpoint.metrics.clone()),
    )
    .fetch_one(&mut *tx)
    .await?;
    sqlx::query!("delete from checkpoint_files where checkpoint_id = $1", id).execute(&mut *tx).await?;
    let (names, blobs) = columns(&checkpoint.files);
    sqlx::query!(
        "insert into checkpoint_files (checkpoint_id, tenant_id, name, blob_id)
         select $1, $2, f.* from unnest($3::text[], $4::uuid[]) f",
        id,
        tenant,
        &names,
        &blobs,
    )
    .execute(tx)
    .await?;
    Ok(CheckpointId(id))
}

/// Removes the checkpoints that the job's request does not keep; gives their bytes, which go once this is committed. The
/// newest always stays: a checkpoint that is not finite is never made, so that it is the last good one.
pub(crate) async fn rotate(tx: &mut PgConnection, job: Uuid) -> Result<Vec<Rotated>, StoreError> {
    let rows = sqlx::query!(
        r#"with rule as (
             select greatest((request->'keep_checkpoints'->>'last')::bigint, 1) as last,
                    coalesce((request->'keep_checkpoints'->>'best')::bigint, 0) as best
             from jobs where id = $1 and request->'keep_checkpoints'->>'last' is not null
         ),
         ranked as (
             select id, metrics ? 'valid_loss' as scored, row_number() over (order by step desc) as age,
                    row_number() over (order by (metrics->>'valid_loss')::float8, step desc) as rank
             from checkpoints where job_id = $1
         ),
         gone as (
             delete from checkpoints c using ranked r, rule
             where c.id = r.id and r.age > rule.last and (r.rank > rule.best or not r.scored)
             returning c.id
         )
         select f.blob_id, b.bytes as "bytes!"
         from checkpoint_files f join blobs b on b.id = f.blob_id
         where f.checkpoint_id in (select id from gone)"#,
        job,
    )
    .fetch_all(tx)
    .await?;
    Ok(rows.into_iter().map(|row| Rotated { blob: row.blob_id, bytes: count(row.bytes) }).collect())
}

/// Bytes of a checkpoint that was rotated out.
pub(crate) struct Rotated {
    pub blob: Uuid,
    pub bytes: u64,
}

/// Publishes the files of a finished adapter.
pub(crate) async fn insert_artifacts(
    tx: &mut PgConnection,
    (tenant, job): (Uuid, Uuid),
    files: &[StoredFile],
) -> Result<(), StoreError> {
    make_live(tx, TenantId(tenant), files.iter().map(|file| &file.content)).await?;
    let (names, blobs) = columns(files);
    sqlx::query!(
        "insert into artifacts (job_id, tenant_id, name, blob_id)
         select $1, $2, f.* from unnest($3::text[], $4::uuid[]) f",
        job,
        tenant,
        &names,
        &blobs,
    )
    .execute(tx)
    .await?;
    Ok(())
}

fn columns(files: &[StoredFile]) -> (Vec<String>, Vec<Uuid>) {
    files.iter().map(|file| (file.name.clone(), file.content.id.0)).unzip()
}
