//! Uploaded and produced files.

use std::time::Duration;

use finetuned_protocol::{
    ids::{FileId, TenantId},
    lint::{LintSummary, ReadingSpec},
    status::FileStatus,
};
use serde_json::Value;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    BlobId, Created, Idempotency, Page, Store, StoreError, StoredBlob,
    blobs::{make_live, same_bytes},
    convert::{count, int, maybe_json, named, small, storable_text, to_json},
    quotas::require_room,
};

/// A file of a tenant.
#[derive(Debug, Clone, PartialEq)]
pub struct File {
    pub id: FileId,
    pub tenant: TenantId,
    pub filename: String,
    /// Such as `fine-tune` or `fine-tune-results`.
    pub purpose: String,
    pub created_at: OffsetDateTime,
    pub expires_at: Option<OffsetDateTime>,
    pub status: FileStatus,
    /// One sentence, where the status needs one.
    pub status_details: Option<String>,
    /// The bytes as they came, with their count and sha256.
    pub content: StoredBlob,
    pub lint: Option<LintSummary>,
    /// How its upload asked for it to be read.
    pub reading: ReadingSpec,
    /// All findings of the lint, one JSON object a line.
    pub findings: Option<BlobId>,
    /// The file that this one was made of by editing its rows.
    pub parent: Option<FileId>,
    /// 1, or one more than the parent's.
    pub version: u32,
}

/// A file whose bytes have come in whole.
#[derive(Debug, Clone, PartialEq)]
pub struct NewFile {
    pub filename: String,
    pub purpose: String,
    /// Lifetime from now on.
    pub expires_after: Option<Duration>,
    pub status: FileStatus,
    pub status_details: Option<String>,
    pub content: StoredBlob,
    pub lint: Option<LintSummary>,
    pub reading: ReadingSpec,
    pub findings: Option<StoredBlob>,
}

/// Order of a list of files by creation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FileOrder {
    OldestFirst,
    #[default]
    NewestFirst,
}

/// Which files to list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilePage {
    pub purpose: Option<String>,
    /// The last file of the page before.
    pub after: Option<FileId>,
    pub limit: u32,
    pub order: FileOrder,
}

impl Store {
    /// Records a file once its bytes are stored. Bytes that the tenant has already are not kept twice. With
    /// `idempotency`, the same upload again gives the first one's file.
    ///
    /// # Errors
    /// [`StoreError::IdempotencyMismatch`] where the key came before with another request;
    /// [`StoreError::Conflict`] where the bytes were stored so long ago that they were collected.
    pub async fn create_file(
        &self,
        tenant: TenantId,
        file: NewFile,
        idempotency: Option<&Idempotency>,
    ) -> Result<Created<File>, StoreError> {
        let spare = file.content.clone();
        let recorded = self.call("recording a file", async {
            let mut tx = self.begin().await?;
            if let Some(idempotency) = idempotency
                && let Some(found) = idempotency.find(&mut tx, tenant).await?
            {
                return Ok(Created::Existing(fetch(&mut tx, tenant, FileId(found)).await?));
            }
            let id = insert_shared(&mut tx, tenant, &file).await?;
            if let Some(idempotency) = idempotency {
                idempotency.record(&mut tx, tenant, id.0).await?;
            }
            let created = fetch(&mut tx, tenant, id).await?;
            tx.commit().await?;
            Ok(Created::New(created))
        });
        let recorded = recorded.await?;
        self.drop_unused(&spare).await;
        Ok(recorded)
    }

    /// Records the next version of a file, whose bytes are stored. With `idempotency` as for [`Self::create_file`].
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for the parent; otherwise as [`Self::create_file`].
    pub async fn create_file_version(
        &self,
        tenant: TenantId,
        parent: FileId,
        file: NewFile,
        idempotency: &Idempotency,
    ) -> Result<Created<File>, StoreError> {
        let spare = file.content.clone();
        let recorded = self.call("recording a version of a file", async {
            let mut tx = self.begin().await?;
            if let Some(found) = idempotency.find(&mut tx, tenant).await? {
                return Ok(Created::Existing(fetch(&mut tx, tenant, FileId(found)).await?));
            }
            let version = fetch(&mut tx, tenant, parent).await?.version.saturating_add(1);
            let id = insert_shared(&mut tx, tenant, &file).await?;
            sqlx::query!(
                "update files set parent_file_id = $2, version = $3 where id = $1",
                id.0,
                parent.0,
                int(version),
            )
            .execute(&mut *tx)
            .await?;
            idempotency.record(&mut tx, tenant, id.0).await?;
            let created = fetch(&mut tx, tenant, id).await?;
            tx.commit().await?;
            Ok(Created::New(created))
        });
        let recorded = recorded.await?;
        self.drop_unused(&spare).await;
        Ok(recorded)
    }

    /// A file that has not expired.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn get_file(&self, tenant: TenantId, file: FileId) -> Result<File, StoreError> {
        self.call("reading a file's row", async {
            let mut connection = self.pool().acquire().await?;
            fetch(&mut connection, tenant, file).await
        })
        .await
    }

    /// A page of files.
    ///
    /// # Errors
    /// `NotFound { what: "after" }` for an unknown `after`.
    pub async fn list_files(&self, tenant: TenantId, page: &FilePage) -> Result<Page<File>, StoreError> {
        self.call("listing files", async {
            if let Some(after) = page.after {
                let known = sqlx::query_scalar!(
                    r#"select exists(select from files where id = $1 and tenant_id = $2) as "known!""#,
                    after.0,
                    tenant.0,
                );
                if !known.fetch_one(self.pool()).await? {
                    return Err(StoreError::NotFound { what: "after" });
                }
            }
            let rows = match page.order {
                FileOrder::NewestFirst => self.files_down(tenant, page).await?,
                FileOrder::OldestFirst => self.files_up(tenant, page).await?,
            };
            let rows = rows.into_iter().map(FileRow::read).collect::<Result<_, _>>()?;
            Ok(Page::cut(rows, page.limit))
        })
        .await
    }

    async fn files_down(&self, tenant: TenantId, page: &FilePage) -> Result<Vec<FileRow>, StoreError> {
        let before = page.after.map_or(Uuid::max(), |file| file.0);
        let rows = sqlx::query_as!(
            FileRow,
            r#"select f.id, f.tenant_id, f.filename, f.purpose, f.created_at, f.expires_at, f.status, f.status_details,
                      f.blob_id, b.bytes as "bytes!", b.sha256 as "sha256!", f.lint, f.reading, f.findings_blob_id,
                      f.parent_file_id, f.version
               from files f join blobs b on b.id = f.blob_id
               where f.tenant_id = $1 and f.id < $2 and ($3::text is null or f.purpose = $3)
                 and (f.expires_at is null or f.expires_at > now())
               order by f.id desc
               limit $4"#,
            tenant.0,
            before,
            page.purpose,
            i64::from(page.limit) + 1,
        );
        Ok(rows.fetch_all(self.pool()).await?)
    }

    async fn files_up(&self, tenant: TenantId, page: &FilePage) -> Result<Vec<FileRow>, StoreError> {
        let after = page.after.map_or(Uuid::nil(), |file| file.0);
        let rows = sqlx::query_as!(
            FileRow,
            r#"select f.id, f.tenant_id, f.filename, f.purpose, f.created_at, f.expires_at, f.status, f.status_details,
                      f.blob_id, b.bytes as "bytes!", b.sha256 as "sha256!", f.lint, f.reading, f.findings_blob_id,
                      f.parent_file_id, f.version
               from files f join blobs b on b.id = f.blob_id
               where f.tenant_id = $1 and f.id > $2 and ($3::text is null or f.purpose = $3)
                 and (f.expires_at is null or f.expires_at > now())
               order by f.id
               limit $4"#,
            tenant.0,
            after,
            page.purpose,
            i64::from(page.limit) + 1,
        );
        Ok(rows.fetch_all(self.pool()).await?)
    }

    /// Deletes a file. Jobs made from it keep their bytes until nothing refers to them.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn delete_file(&self, tenant: TenantId, file: FileId) -> Result<(), StoreError> {
        self.call("deleting a file", async {
            let mut tx = self.begin().await?;
            let gone = sqlx::query!("delete from files where id = $1 and tenant_id = $2", file.0, tenant.0);
            if gone.execute(&mut *tx).await?.rows_affected() == 0 {
                return Err(StoreError::NotFound { what: "file" });
            }
            // The same upload again is a new file then, not the deleted one.
            sqlx::query!("delete from idempotency where object_id = $1 and tenant_id = $2", file.0, tenant.0)
                .execute(&mut *tx)
                .await?;
            tx.commit().await?;
            Ok(())
        })
        .await
    }
}

/// Inserts a file that came from outside: where the tenant has these bytes already, over those, and its own are free.
pub(crate) async fn insert_shared(
    tx: &mut PgConnection,
    tenant: TenantId,
    file: &NewFile,
) -> Result<FileId, StoreError> {
    let id = FileId::generate();
    insert_shared_as(tx, tenant, id, file).await?;
    Ok(id)
}

/// The same under an id that was made before.
pub(crate) async fn insert_shared_as(
    tx: &mut PgConnection,
    tenant: TenantId,
    id: FileId,
    file: &NewFile,
) -> Result<(), StoreError> {
    match same_bytes(tx, tenant, &file.content).await? {
        None => {
            require_room(tx, tenant, file.content.bytes).await?;
            insert_as(tx, tenant, id, file).await
        }
        Some(blob) => {
            let content = StoredBlob { id: blob, ..file.content.clone() };
            insert_as(tx, tenant, id, &NewFile { content, ..file.clone() }).await
        }
    }
}

/// Inserts a file and makes its bytes visible.
pub(crate) async fn insert(tx: &mut PgConnection, tenant: TenantId, file: &NewFile) -> Result<FileId, StoreError> {
    let id = FileId::generate();
    insert_as(tx, tenant, id, file).await?;
    Ok(id)
}

async fn insert_as(tx: &mut PgConnection, tenant: TenantId, id: FileId, file: &NewFile) -> Result<(), StoreError> {
    let NewFile { filename, purpose, expires_after, status, status_details, content, lint, reading, findings } = file;
    let lint = lint.as_ref().map(|lint| to_json("lint summary", lint)).transpose()?;
    let reading = (!reading.is_default()).then(|| to_json("a file's reading", reading)).transpose()?;
    make_live(tx, tenant, std::iter::once(content).chain(findings)).await?;
    sqlx::query!(
        "insert into files
             (id, tenant_id, filename, purpose, expires_at, status, status_details, blob_id, lint, findings_blob_id,
              reading)
         values ($1, $2, $3, $4, now() + make_interval(secs => $5), $6, $7, $8, $9, $10, $11)",
        id.0,
        tenant.0,
        storable_text(filename),
        purpose,
        expires_after.map(|lifetime| lifetime.as_secs_f64()),
        status.as_str(),
        status_details.as_deref().map(storable_text),
        content.id.0,
        lint,
        findings.as_ref().map(|blob| blob.id.0),
        reading,
    )
    .execute(tx)
    .await?;
    Ok(())
}

pub(crate) async fn fetch(connection: &mut PgConnection, tenant: TenantId, file: FileId) -> Result<File, StoreError> {
    let row = sqlx::query_as!(
        FileRow,
        r#"select f.id, f.tenant_id, f.filename, f.purpose, f.created_at, f.expires_at, f.status, f.status_details,
                  f.blob_id, b.bytes as "bytes!", b.sha256 as "sha256!", f.lint, f.reading, f.findings_blob_id,
                      f.parent_file_id, f.version
           from files f join blobs b on b.id = f.blob_id
           where f.id = $1 and f.tenant_id = $2 and (f.expires_at is null or f.expires_at > now())"#,
        file.0,
        tenant.0,
    );
    row.fetch_optional(connection).await?.ok_or(StoreError::NotFound { what: "file" })?.read()
}

struct FileRow {
    id: Uuid,
    tenant_id: Uuid,
    filename: String,
    purpose: String,
    created_at: OffsetDateTime,
    expires_at: Option<OffsetDateTime>,
    status: String,
    status_details: Option<String>,
    blob_id: Uuid,
    bytes: i64,
    sha256: Vec<u8>,
    lint: Option<Value>,
    reading: Option<Value>,
    findings_blob_id: Option<Uuid>,
    parent_file_id: Option<Uuid>,
    version: i32,
}

impl FileRow {
    fn read(self) -> Result<File, StoreError> {
        Ok(File {
            id: FileId(self.id),
            tenant: TenantId(self.tenant_id),
            filename: self.filename,
            purpose: self.purpose,
            created_at: self.created_at,
            expires_at: self.expires_at,
            status: named("a file's status", &self.status)?,
            status_details: self.status_details,
            content: StoredBlob {
                id: BlobId(self.blob_id),
                bytes: count(self.bytes),
                sha256: hex::encode(self.sha256),
            },
            lint: maybe_json("a file's lint", self.lint)?,
            reading: maybe_json("a file's reading", self.reading)?.unwrap_or_default(),
            findings: self.findings_blob_id.map(BlobId),
            parent: self.parent_file_id.map(FileId),
            version: small(self.version),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use std::time::Instant;

    use super::*;
    use crate::{
        GcOptions, fingerprint,
        testing::{TestDatabase, fixtures},
    };

    async fn fresh() -> (Store, TenantId) {
        let store = TestDatabase::create().await.unwrap().store;
        let tenant = fixtures::tenant(&store, "acme").await.unwrap();
        (store, tenant)
    }

    #[tokio::test]
    async fn files_are_listed_both_ways_and_by_purpose() {
        let (store, tenant) = fresh().await;
        let mut ids = Vec::new();
        for index in 0..4 {
            let purpose = if index == 2 { "user_data" } else { "fine-tune" };
            let file = NewFile { purpose: purpose.to_owned(), ..fixtures::new_file(&store, tenant).await.unwrap() };
            ids.push(store.create_file(tenant, file, None).await.unwrap().into_inner().id);
        }
        let list = async |purpose: Option<&str>, after, limit, order| {
            let page = FilePage { purpose: purpose.map(str::to_owned), after, limit, order };
            let page = store.list_files(tenant, &page).await.unwrap();
            (page.data.iter().map(|file| file.id).collect::<Vec<_>>(), page.has_more)
        };
        let (up, down) = (FileOrder::OldestFirst, FileOrder::NewestFirst);
        assert_eq!(list(None, None, 4, up).await, (ids.clone(), false));
        assert_eq!(list(None, None, 2, down).await, (vec![ids[3], ids[2]], true));
        assert_eq!(list(None, Some(ids[2]), 9, down).await, (vec![ids[1], ids[0]], false));
        assert_eq!(list(Some("fine-tune"), Some(ids[1]), 9, up).await, (vec![ids[3]], false));
        let page = FilePage { purpose: None, after: Some(FileId::generate()), limit: 1, order: up };
        assert!(matches!(store.list_files(tenant, &page).await, Err(StoreError::NotFound { what: "after" })));
    }

    #[tokio::test]
    async fn an_expired_file_is_gone() {
        let (store, tenant) = fresh().await;
        let file = fixtures::new_file(&store, tenant).await.unwrap();
        let file = NewFile { expires_after: Some(Duration::from_millis(150)), ..file };
        let made = store.create_file(tenant, file, None).await.unwrap().into_inner();
        assert_eq!(store.get_file(tenant, made.id).await.unwrap(), made);
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(matches!(store.get_file(tenant, made.id).await, Err(StoreError::NotFound { what: "file" })));
        let all = FilePage { purpose: None, after: None, limit: 9, order: FileOrder::NewestFirst };
        assert!(store.list_files(tenant, &all).await.unwrap().data.is_empty());
        let report = store.collect_garbage(GcOptions { min_age: Duration::ZERO, dry_run: false }).await.unwrap();
        assert_eq!((report.expired_files, report.blobs), (1, 1));
    }

    #[tokio::test]
    async fn an_upload_sent_twice_is_one_file_until_it_is_deleted() {
        let (store, tenant) = fresh().await;
        let idempotency = Idempotency {
            caller: None,
            route: "POST /v1/files",
            client_key: None,
            retry_count: 1,
            fingerprint: fingerprint(&[b"fine-tune", b"train.jsonl", b"sha256"]),
            received: Instant::now(),
        };
        let upload = async || {
            let file = fixtures::new_file(&store, tenant).await.unwrap();
            store.create_file(tenant, file, Some(&idempotency)).await.unwrap()
        };
        let (first, second) = tokio::join!(upload(), upload());
        assert_ne!(first.is_new(), second.is_new());
        let (first, second) = (first.into_inner(), second.into_inner());
        assert_eq!(first, second);
        store.delete_file(tenant, first.id).await.unwrap();
        assert!(matches!(store.delete_file(tenant, first.id).await, Err(StoreError::NotFound { what: "file" })));
        assert!(upload().await.is_new());
        assert_ne!(fingerprint(&[b"ab", b"c"]), fingerprint(&[b"a", b"bc"]));
    }
}
