//! Files that come in parts: each part is stored as it comes, and a completion makes one file of them.

use std::time::Duration;

use finetuned_protocol::{
    ids::{FileId, PartId, TenantId, UploadId},
    lint::ReadingSpec,
    status::UploadStatus,
};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    BlobId, Created, File, Idempotency, NewFile, Store, StoreError, StoredBlob,
    blobs::make_live,
    convert::{big, count, maybe_json, named, storable_text, to_json},
    files,
};

/// From its creation on, an upload takes parts for so long.
const LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// An upload that came to nothing, or long ago to its file, is remembered for so many days.
const KEPT_DAYS: i32 = 30;
/// Most parts of one upload.
const MOST_PARTS: i64 = 10_000;

/// A file that comes in parts.
#[derive(Debug, Clone, PartialEq)]
pub struct Upload {
    pub id: UploadId,
    pub filename: String,
    pub purpose: String,
    pub mime_type: String,
    /// Of the whole file, as announced.
    pub bytes: u64,
    /// How the file is to be read.
    pub reading: ReadingSpec,
    /// Lifetime of the file from its completion on.
    pub file_expires_after: Option<Duration>,
    pub created_at: OffsetDateTime,
    pub expires_at: OffsetDateTime,
    pub status: UploadStatus,
    /// What it was completed to, unless that was deleted since.
    pub file: Option<File>,
    /// In their order, once it is completed.
    parts: Vec<Uuid>,
}

impl Upload {
    /// Whether these parts, in this order, made the file.
    pub fn was_made_of(&self, parts: &[PartId]) -> bool {
        self.parts.iter().eq(parts.iter().map(|part| &part.0))
    }
}

/// An upload to be begun.
#[derive(Debug, Clone, PartialEq)]
pub struct NewUpload {
    pub filename: String,
    pub purpose: String,
    pub mime_type: String,
    pub bytes: u64,
    pub reading: ReadingSpec,
    pub file_expires_after: Option<Duration>,
}

/// A part whose bytes are stored.
#[derive(Debug, Clone, PartialEq)]
pub struct UploadPart {
    pub id: PartId,
    pub upload: UploadId,
    pub content: StoredBlob,
    pub created_at: OffsetDateTime,
}

impl Store {
    /// Begins an upload, or gives the one that an equal request began before.
    ///
    /// # Errors
    /// [`StoreError::IdempotencyMismatch`].
    pub async fn create_upload(
        &self,
        tenant: TenantId,
        upload: &NewUpload,
        idempotency: &Idempotency,
    ) -> Result<Created<Upload>, StoreError> {
        let NewUpload { filename, purpose, mime_type, bytes, reading, file_expires_after } = upload;
        let reading = (!reading.is_default()).then(|| to_json("an upload's reading", reading)).transpose()?;
        self.call("beginning an upload", async {
            let mut tx = self.begin().await?;
            if let Some(found) = idempotency.find(&mut tx, tenant).await? {
                return Ok(Created::Existing(fetch(&mut tx, tenant, UploadId(found)).await?));
            }
            let id = UploadId::generate();
            sqlx::query!(
                "insert into uploads
                     (id, tenant_id, filename, purpose, mime_type, bytes, reading, file_lifetime_seconds, expires_at)
                 values ($1, $2, $3, $4, $5, $6, $7, $8, now() + make_interval(secs => $9))",
                id.0,
                tenant.0,
                storable_text(filename),
                purpose,
                storable_text(mime_type),
                big(*bytes),
                reading,
                file_expires_after.map(|lifetime| lifetime.as_secs_f64()),
                LIFETIME.as_secs_f64(),
            )
            .execute(&mut *tx)
            .await?;
            idempotency.record(&mut tx, tenant, id.0).await?;
            let begun = fetch(&mut tx, tenant, id).await?;
            tx.commit().await?;
            Ok(Created::New(begun))
        })
        .await
    }

    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn get_upload(&self, tenant: TenantId, upload: UploadId) -> Result<Upload, StoreError> {
        self.call("reading an upload", async {
            let mut connection = self.pool().acquire().await?;
            fetch(&mut connection, tenant, upload).await
        })
        .await
    }

    /// Records a part whose bytes are stored. With `idempotency`, the same part again gives the first one.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Conflict`] where the upload takes no parts any more, or has too many.
    pub async fn add_part(
        &self,
        tenant: TenantId,
        upload: UploadId,
        content: &StoredBlob,
        idempotency: &Idempotency,
    ) -> Result<Created<UploadPart>, StoreError> {
        let recorded = self.call("recording a part of an upload", async {
            let mut tx = self.begin().await?;
            let announced = require_pending(&mut tx, tenant, upload).await?;
            if let Some(found) = idempotency.find(&mut tx, tenant).await? {
                let parts = fetch_parts(&mut tx, upload).await?;
                let found = parts.into_iter().find(|part| part.id.0 == found);
                return found.map(Created::Existing).ok_or(StoreError::NotFound { what: "part" });
            }
            require_place(&mut tx, upload, announced, content.bytes).await?;
            make_live(&mut tx, tenant, [content]).await?;
            let id = PartId::generate();
            let created_at = sqlx::query_scalar!(
                "insert into upload_parts (id, upload_id, tenant_id, blob_id) values ($1, $2, $3, $4)
                 returning created_at",
                id.0,
                upload.0,
                tenant.0,
                content.id.0,
            )
            .fetch_one(&mut *tx)
            .await?;
            idempotency.record(&mut tx, tenant, id.0).await?;
            tx.commit().await?;
            Ok(Created::New(UploadPart { id, upload, content: content.clone(), created_at }))
        });
        let recorded = recorded.await?;
        if !recorded.is_new() {
            self.drop_unused(content).await;
        }
        Ok(recorded)
    }

    /// The parts that an upload has, in the order in which they came; none of one that has ended.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn upload_parts(&self, tenant: TenantId, upload: UploadId) -> Result<Vec<UploadPart>, StoreError> {
        self.call("listing parts of an upload", async {
            let mut connection = self.pool().acquire().await?;
            fetch(&mut connection, tenant, upload).await?;
            fetch_parts(&mut connection, upload).await
        })
        .await
    }

    /// Makes the file of an upload, whose bytes are its parts one after the other. One that was completed of the same
    /// parts before stays as it is.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Conflict`] where the upload has ended otherwise.
    pub async fn complete_upload(
        &self,
        tenant: TenantId,
        upload: UploadId,
        parts: &[PartId],
        file: NewFile,
    ) -> Result<Created<Upload>, StoreError> {
        let spare = file.content.clone();
        let done = self.call("completing an upload", async {
            let mut tx = self.begin().await?;
            if let Err(refusal) = require_pending(&mut tx, tenant, upload).await {
                let found = fetch(&mut tx, tenant, upload).await?;
                return if found.was_made_of(parts) { Ok(Created::Existing(found)) } else { Err(refusal) };
            }
            let id = files::insert_shared(&mut tx, tenant, &file).await?;
            let parts: Vec<Uuid> = parts.iter().map(|part| part.0).collect();
            sqlx::query!(
                "update uploads set state = 'completed', file_id = $2, part_ids = $3 where id = $1",
                upload.0,
                id.0,
                &parts,
            )
            .execute(&mut *tx)
            .await?;
            sqlx::query!("delete from upload_parts where upload_id = $1", upload.0).execute(&mut *tx).await?;
            let completed = fetch(&mut tx, tenant, upload).await?;
            tx.commit().await?;
            Ok(Created::New(completed))
        });
        let done = done.await?;
        self.drop_unused(&spare).await;
        Ok(done)
    }

    /// Gives an upload up; again is no error.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Conflict`] where it was completed or has expired.
    pub async fn cancel_upload(&self, tenant: TenantId, upload: UploadId) -> Result<Upload, StoreError> {
        self.call("cancelling an upload", async {
            let mut tx = self.begin().await?;
            if let Err(refusal) = require_pending(&mut tx, tenant, upload).await {
                let found = fetch(&mut tx, tenant, upload).await?;
                return if found.status == UploadStatus::Cancelled { Ok(found) } else { Err(refusal) };
            }
            sqlx::query!("update uploads set state = 'cancelled' where id = $1", upload.0).execute(&mut *tx).await?;
            sqlx::query!("delete from upload_parts where upload_id = $1", upload.0).execute(&mut *tx).await?;
            let cancelled = fetch(&mut tx, tenant, upload).await?;
            tx.commit().await?;
            Ok(cancelled)
        })
        .await
    }

    /// Lets go of the parts of expired uploads, and forgets uploads of long ago.
    pub(crate) async fn forget_uploads(&self) -> Result<(), StoreError> {
        self.call("forgetting old uploads", async {
            sqlx::query!(
                "delete from upload_parts p using uploads u
                 where u.id = p.upload_id and u.state = 'pending' and u.expires_at < now()"
            )
            .execute(self.pool())
            .await?;
            sqlx::query!("delete from uploads where expires_at < now() - make_interval(days => $1)", KEPT_DAYS)
                .execute(self.pool())
                .await?;
            Ok(())
        })
        .await
    }
}

/// Locks an upload that still takes parts; gives its announced bytes.
async fn require_pending(tx: &mut PgConnection, tenant: TenantId, upload: UploadId) -> Result<u64, StoreError> {
    let row = sqlx::query!(
        r#"select state, bytes, expires_at <= now() as "expired!" from uploads
           where id = $1 and tenant_id = $2 for update"#,
        upload.0,
        tenant.0,
    );
    let row = row.fetch_optional(tx).await?.ok_or(StoreError::NotFound { what: "upload" })?;
    match row.state.as_str() {
        "pending" if !row.expired => Ok(count(row.bytes)),
        state => {
            let state = if state == "pending" { "expired" } else { state };
            Err(StoreError::conflict(format!("this upload is {state}; begin another")))
        }
    }
}

/// Refuses parts without end. A part may come twice, where its first answer was lost.
async fn require_place(
    tx: &mut PgConnection,
    upload: UploadId,
    announced: u64,
    more_bytes: u64,
) -> Result<(), StoreError> {
    let has = sqlx::query!(
        r#"select count(*) as "parts!", coalesce(sum(b.bytes), 0)::bigint as "bytes!"
           from upload_parts p join blobs b on b.id = p.blob_id where p.upload_id = $1"#,
        upload.0,
    );
    let has = has.fetch_one(tx).await?;
    if has.parts >= MOST_PARTS {
        return Err(StoreError::conflict(format!("an upload has at most {MOST_PARTS} parts; send larger ones")));
    }
    if count(has.bytes).saturating_add(more_bytes) > announced.saturating_mul(2) {
        return Err(StoreError::conflict(format!(
            "the parts have more than twice the {announced} bytes that this upload announced; cancel it and begin another"
        )));
    }
    Ok(())
}

async fn fetch(connection: &mut PgConnection, tenant: TenantId, upload: UploadId) -> Result<Upload, StoreError> {
    let row = sqlx::query!(
        r#"select filename, purpose, mime_type, bytes, reading, file_lifetime_seconds, created_at, expires_at, file_id,
                  part_ids, case when state = 'pending' and expires_at <= now() then 'expired' else state end as "state!"
           from uploads where id = $1 and tenant_id = $2"#,
        upload.0,
        tenant.0,
    );
    let row = row.fetch_optional(&mut *connection).await?.ok_or(StoreError::NotFound { what: "upload" })?;
    let file = match row.file_id {
        None => None,
        Some(file) => match files::fetch(connection, tenant, FileId(file)).await {
            Ok(file) => Some(file),
            Err(StoreError::NotFound { .. }) => None,
            Err(error) => return Err(error),
        },
    };
    Ok(Upload {
        id: upload,
        filename: row.filename,
        purpose: row.purpose,
        mime_type: row.mime_type,
        bytes: count(row.bytes),
        reading: maybe_json("an upload's reading", row.reading)?.unwrap_or_default(),
        file_expires_after: row.file_lifetime_seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()),
        created_at: row.created_at,
        expires_at: row.expires_at,
        status: named("an upload's state", &row.state)?,
        file,
        parts: row.part_ids.unwrap_or_default(),
    })
}

async fn fetch_parts(connection: &mut PgConnection, upload: UploadId) -> Result<Vec<UploadPart>, StoreError> {
    let rows = sqlx::query!(
        r#"select p.id, p.blob_id, p.created_at, b.bytes as "bytes!", b.sha256 as "sha256!"
           from upload_parts p join blobs b on b.id = p.blob_id
           where p.upload_id = $1 order by p.id"#,
        upload.0,
    );
    let parts = rows.fetch_all(connection).await?.into_iter().map(|row| UploadPart {
        id: PartId(row.id),
        upload,
        content: StoredBlob { id: BlobId(row.blob_id), bytes: count(row.bytes), sha256: hex::encode(row.sha256) },
        created_at: row.created_at,
    });
    Ok(parts.collect())
}

#[cfg(test)]
#[path = "uploads_tests.rs"]
mod tests;
