//! Removes bytes that nothing refers to.

use std::time::Duration;

use sqlx::PgConnection;
use uuid::Uuid;

use crate::{BlobId, Store, StoreError, convert::count};

/// Blobs of one transaction; small, so that nobody waits long for their locks.
const BATCH: i64 = 100;
/// Advisory lock that each backup holds in common and a collection's transaction alone. Any number that nobody else uses.
pub(crate) const BACKUP_LOCK: i64 = 0x6674_6261_636b_7570;
/// Looks for the lock, and the time between them, before a collection takes its holder for a backup.
const OTHERS_PASS: u32 = 20;
const OTHERS_TAKE: Duration = Duration::from_millis(100);

/// What to collect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GcOptions {
    /// Blobs younger than this are left alone: their row of use may be about to be written.
    pub min_age: Duration,
    /// Only count.
    pub dry_run: bool,
}

impl Default for GcOptions {
    fn default() -> Self {
        Self { min_age: Duration::from_secs(24 * 3600), dry_run: false }
    }
}

/// What was collected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GcReport {
    pub blobs: u64,
    pub bytes: u64,
    /// Files whose `expires_at` had passed.
    pub expired_files: u64,
}

impl Store {
    /// Removes expired files, blobs that nothing refers to, what an interrupted collection left, and old records of
    /// requests, webhooks, uploads and the audit log.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Blob`]; [`StoreError::Conflict`] while a backup is made, which counts on
    /// the bytes of its moment. What was done until then stays done.
    pub async fn collect_garbage(&self, options: GcOptions) -> Result<GcReport, StoreError> {
        if options.dry_run {
            return self.count_garbage(options.min_age).await;
        }
        let expired_files = self.remove_expired().await?;
        self.forget_webhook_events().await?;
        self.forget_uploads().await?;
        self.forget_audit_log().await?;
        let mut report = GcReport { expired_files, ..GcReport::default() };
        let mut after = Uuid::nil();
        loop {
            let batch = self.mark_garbage(options.min_age, after).await?;
            self.remove_marked(&batch.marked).await?;
            report.blobs += batch.marked.len() as u64;
            report.bytes += batch.marked.iter().map(|blob| blob.bytes).sum::<u64>();
            match batch.last_seen {
                Some(last) => after = last,
                None => return Ok(report),
            }
        }
    }

    /// Removes blobs that nothing may refer to any more, at once. What fails, and what somebody looks at or backs up at
    /// this moment, is left to the next collection.
    pub(crate) async fn collect_released(&self, blobs: &[Uuid]) {
        if blobs.is_empty() {
            return;
        }
        let marked = self.call("marking what was let go of", async {
            let mut tx = self.begin().await?;
            if !try_collecting(&mut tx).await? {
                return Ok(Vec::new());
            }
            let seen = sqlx::query_scalar!(
                "select id from blobs where id = any($1) order by id for update skip locked",
                blobs
            )
            .fetch_all(&mut *tx)
            .await?;
            let marked = mark(&mut tx, &seen).await?;
            tx.commit().await?;
            Ok(marked)
        });
        let removed = async { self.remove_marked(&marked.await?).await };
        if let Err(error) = removed.await {
            tracing::debug!(%error, "bytes that were let go of are left to the next collection");
        }
    }

    async fn remove_marked(&self, marked: &[Marked]) -> Result<(), StoreError> {
        for blob in marked {
            self.inner.blobs.remove(blob.id).await?;
            self.forget_blob(blob.id).await?;
        }
        Ok(())
    }

    async fn count_garbage(&self, min_age: Duration) -> Result<GcReport, StoreError> {
        self.call("counting what nothing refers to", async {
            let row = sqlx::query!(
                r#"select count(*) as "blobs!", coalesce(sum(b.bytes), 0)::bigint as "bytes!",
                          (select count(*) from files where expires_at < now()) as "expired!"
                   from blobs b
                   where b.created_at < now() - make_interval(secs => $1)
                     and not exists (select from files f where f.blob_id = b.id and coalesce(f.expires_at, 'infinity') > now())
                     and not exists
                         (select from files f where f.findings_blob_id = b.id and coalesce(f.expires_at, 'infinity') > now())
                     and not exists (select from jobs j where j.training_blob_id = b.id)
                     and not exists (select from jobs j where j.validation_blob_id = b.id)
                     and not exists (select from checkpoint_files c where c.blob_id = b.id)
                     and not exists (select from artifacts a where a.blob_id = b.id)
                     and not exists (select from upload_parts p where p.blob_id = b.id)"#,
                min_age.as_secs_f64(),
            )
            .fetch_one(self.pool())
            .await?;
            Ok(GcReport { blobs: count(row.blobs), bytes: count(row.bytes), expired_files: count(row.expired) })
        })
        .await
    }

    async fn remove_expired(&self) -> Result<u64, StoreError> {
        self.call("removing what has expired", async {
            // Twice the window in which a retry without a key is recognised; a day for those with one.
            sqlx::query!(
                "delete from idempotency
                 where created_at < now() - case when client_key is null then interval '30 min' else interval '24 h' end"
            )
            .execute(self.pool())
            .await?;
            sqlx::query!("delete from judge_replies where created_at < now() - interval '90 days'")
                .execute(self.pool())
                .await?;
            let files = sqlx::query!("delete from files where expires_at < now()").execute(self.pool()).await?;
            Ok(files.rows_affected())
        })
        .await
    }

    /// Marks blobs that nothing refers to. First they are locked, then looked at with a new snapshot: a reference
    /// that was being written meanwhile either holds the lock (and the blob is skipped) or is seen.
    async fn mark_garbage(&self, min_age: Duration, after: Uuid) -> Result<Batch, StoreError> {
        self.call("marking what nothing refers to", async {
            let mut tx = self.begin().await?;
            start_collecting(&mut tx).await?;
            let seen = sqlx::query_scalar!(
                "select id from blobs
                 where created_at < now() - make_interval(secs => $1) and id > $2
                 order by id
                 limit $3
                 for update skip locked",
                min_age.as_secs_f64(),
                after,
                BATCH,
            )
            .fetch_all(&mut *tx)
            .await?;
            let marked = mark(&mut tx, &seen).await?;
            tx.commit().await?;
            Ok(Batch { marked, last_seen: seen.last().copied() })
        })
        .await
    }

    pub(crate) async fn forget_blob(&self, id: BlobId) -> Result<(), StoreError> {
        self.call("forgetting a blob", async {
            sqlx::query!("delete from blobs where id = $1 and state = 'deleting'", id.0).execute(self.pool()).await?;
            Ok(())
        })
        .await
    }
}

/// Marks those of the locked blobs that nothing refers to.
async fn mark(tx: &mut PgConnection, locked: &[Uuid]) -> Result<Vec<Marked>, StoreError> {
    let marked = sqlx::query!(
        "update blobs b set state = 'deleting'
         where b.id = any($1)
           and not exists (select from files f where f.blob_id = b.id or f.findings_blob_id = b.id)
           and not exists (select from jobs j where j.training_blob_id = b.id or j.validation_blob_id = b.id)
           and not exists (select from checkpoint_files c where c.blob_id = b.id)
           and not exists (select from artifacts a where a.blob_id = b.id)
           and not exists (select from upload_parts p where p.blob_id = b.id)
         returning b.id, b.bytes",
        locked,
    );
    let marked = marked.fetch_all(tx).await?.into_iter();
    Ok(marked.map(|row| Marked { id: BlobId(row.id), bytes: count(row.bytes.unwrap_or(0)) }).collect())
}

/// Waits a moment for other collections to pass on; a backup takes longer than that.
async fn start_collecting(tx: &mut PgConnection) -> Result<(), StoreError> {
    for _ in 0..OTHERS_PASS {
        if try_collecting(tx).await? {
            return Ok(());
        }
        tokio::time::sleep(OTHERS_TAKE).await;
    }
    Err(StoreError::conflict(
        "a backup is being made, which counts on the bytes that are there; collect once it is done",
    ))
}

/// Keeps backups from beginning until the transaction ends; `false` where one is being made.
async fn try_collecting(tx: &mut PgConnection) -> Result<bool, StoreError> {
    let free = sqlx::query_scalar!(r#"select pg_try_advisory_xact_lock($1) as "free!""#, BACKUP_LOCK);
    Ok(free.fetch_one(tx).await?)
}

struct Marked {
    id: BlobId,
    bytes: u64,
}

struct Batch {
    marked: Vec<Marked>,
    last_seen: Option<Uuid>,
}
