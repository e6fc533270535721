//! Database and blobs together, at one moment, while the service runs; and back into an empty one.
//!
//! Rows come from one snapshot. Bytes are copied after it; until that is done, no garbage is collected, since what a row
//! of the snapshot refers to may be garbage by then.

use std::path::Path;

use futures::StreamExt;
use serde::{Deserialize, Serialize};
use sqlx::{Connection, PgConnection};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{BlobId, Store, StoreError, StoredBlob, convert::count, gc::BACKUP_LOCK, migrate::SCHEMA_VERSION};

const MANIFEST: &str = "backup.json";
const BLOBS: &str = "blobs";
/// Bytes of a table sent at once.
const PIECE: usize = 1 << 20;

macro_rules! tables {
    ($($table:literal),+ $(,)?) => {
        /// Every table of a backup with the statements that read and write it, referred to before referring.
        const TABLES: &[(&str, &str, &str)] = &[$((
            $table,
            concat!("copy ", $table, " to stdout with (format csv, header)"),
            concat!("copy ", $table, " from stdin with (format csv, header match)"),
        )),+];
    };
}

// Workers say of themselves what they are when they start again.
tables!(
    "tenants",
    "tenant_shares",
    "api_keys",
    "blobs",
    "files",
    "base_models",
    "jobs",
    "job_live",
    "tuned_models",
    "tasks",
    "task_lease",
    "evaluation_runs",
    "evaluation_answers",
    "judge_replies",
    "events",
    "metrics",
    "checkpoints",
    "checkpoint_files",
    "artifacts",
    "attempt_logs",
    "idempotency",
    "webhook_endpoints",
    "webhook_events",
    "webhook_deliveries",
    "webhook_attempts",
    "uploads",
    "upload_parts",
    "checkpoint_permissions",
    "tenant_quotas",
    "audit_log",
    "rating_tasks",
    "rating_items",
    "ratings",
    "job_training_rows",
);

/// `backup.json`, written last: a folder without it is no whole backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Manifest {
    schema_version: i32,
    blobs: Vec<StoredBlob>,
}

/// What a backup or a restoration moved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Copied {
    pub blobs: u64,
    pub bytes: u64,
}

impl Store {
    /// Writes a backup into a folder that is made for it.
    ///
    /// # Errors
    /// [`StoreError::Blob`] where the folder exists or cannot be written, or stored bytes are gone or damaged.
    pub async fn back_up(&self, folder: &Path) -> Result<Copied, StoreError> {
        let failed = |error| StoreError::blob("making the backup's folder", error);
        std::fs::create_dir(folder).map_err(failed)?;
        std::fs::create_dir(folder.join(BLOBS)).map_err(failed)?;
        // A connection of its own: the pool's have limits that a large table may exceed. The lock goes with it.
        let mut connection = PgConnection::connect_with(&self.inner.connect).await?;
        sqlx::query!("select pg_advisory_lock_shared($1)", BACKUP_LOCK).execute(&mut connection).await?;
        let blobs = dump_tables(&mut connection, folder).await?;
        for blob in &blobs {
            self.fetch_blob(blob, &folder.join(BLOBS).join(blob.id.0.to_string())).await?;
        }
        // The backup is only whole where nothing was collected meanwhile: where the lock was held to the end.
        sqlx::query("select 1").execute(&mut connection).await?;
        let _ = connection.close().await;
        let copied = Copied { blobs: blobs.len() as u64, bytes: blobs.iter().map(|blob| blob.bytes).sum() };
        let manifest = serde_json::to_vec(&Manifest { schema_version: SCHEMA_VERSION, blobs })
            .map_err(|error| StoreError::blob("writing the backup's manifest", error))?;
        write_synced(&folder.join(MANIFEST), &manifest).map_err(failed)?;
        Ok(copied)
    }

    /// Brings a backup into this store, which must be empty. All rows come at once, after all bytes.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] where the store is not empty, or the backup is of another schema;
    /// [`StoreError::Blob`], [`StoreError::Corrupt`] where it is not whole.
    pub async fn restore(&self, folder: &Path) -> Result<Copied, StoreError> {
        let failed = |error| StoreError::blob("reading the backup's manifest", error);
        let manifest = std::fs::read(folder.join(MANIFEST)).map_err(failed)?;
        let manifest: Manifest = serde_json::from_slice(&manifest)
            .map_err(|error| StoreError::blob("reading the backup's manifest", error))?;
        if manifest.schema_version != SCHEMA_VERSION {
            let found = manifest.schema_version;
            return Err(StoreError::conflict(format!(
                "the backup has schema version {found}, and this program writes {SCHEMA_VERSION}; restore it with the \
                 program that made it, then start this one"
            )));
        }
        self.require_empty().await?;
        for blob in &manifest.blobs {
            self.inner.blobs.bring(blob, &folder.join(BLOBS).join(blob.id.0.to_string())).await?;
        }
        self.fill_tables(folder).await?;
        let bytes = manifest.blobs.iter().map(|blob| blob.bytes).sum();
        Ok(Copied { blobs: manifest.blobs.len() as u64, bytes })
    }

    async fn require_empty(&self) -> Result<(), StoreError> {
        let used = sqlx::query_scalar!(
            r#"select (exists (select from jobs) or exists (select from files) or exists (select from blobs)
                       or exists (select from api_keys)) as "used!""#
        );
        match used.fetch_one(self.pool()).await? {
            false => Ok(()),
            true => {
                Err(StoreError::conflict("a backup is only restored into an empty service; name another --data-dir"))
            }
        }
    }

    async fn fill_tables(&self, folder: &Path) -> Result<(), StoreError> {
        let mut connection = PgConnection::connect_with(&self.inner.connect).await?;
        let mut tx = connection.begin().await?;
        // What the migrations and the start put there is in the backup, too.
        sqlx::query!("truncate tenants, base_models cascade").execute(&mut *tx).await?;
        let failed = |error| StoreError::blob("reading a table of the backup", error);
        for (table, _, write) in TABLES {
            let mut file = tokio::fs::File::open(folder.join(format!("{table}.csv"))).await.map_err(failed)?;
            let mut rows = tx.copy_in_raw(write).await?;
            let mut piece = vec![0; PIECE];
            loop {
                let length = file.read(&mut piece).await.map_err(failed)?;
                if length == 0 {
                    break;
                }
                rows.send(&piece[..length]).await?;
            }
            rows.finish().await?;
        }
        // What was being written when the backup was made has no bytes in it.
        sqlx::query!("delete from blobs where state <> 'live'").execute(&mut *tx).await?;
        tx.commit().await?;
        Ok(())
    }
}

/// All tables as they are at one moment; gives the blobs that they refer to.
async fn dump_tables(connection: &mut PgConnection, folder: &Path) -> Result<Vec<StoredBlob>, StoreError> {
    let mut tx = connection.begin_with("begin isolation level repeatable read read only").await?;
    let failed = |error| StoreError::blob("writing a table of the backup", error);
    for (table, read, _) in TABLES {
        let path = folder.join(format!("{table}.csv"));
        let mut file = tokio::fs::File::create(path).await.map_err(failed)?;
        let mut rows = tx.copy_out_raw(read).await?;
        while let Some(piece) = rows.next().await {
            file.write_all(&piece?).await.map_err(failed)?;
        }
        file.sync_all().await.map_err(failed)?;
    }
    let rows = sqlx::query!(
        r#"select id, bytes as "bytes!", sha256 as "sha256!" from blobs where state = 'live' order by id"#
    );
    let rows = rows.fetch_all(&mut *tx).await?.into_iter();
    tx.commit().await?;
    let blob =
        |id, bytes, sha256: Vec<u8>| StoredBlob { id: BlobId(id), bytes: count(bytes), sha256: hex::encode(sha256) };
    Ok(rows.map(|row| blob(row.id, row.bytes, row.sha256)).collect())
}

fn write_synced(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::io::Write;
    let mut file = std::fs::File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use finetuned_protocol::status::{EventLevel, TaskKind};

    use super::*;
    use crate::{
        GcOptions, NewEvent, Report,
        testing::{TestDatabase, fixtures},
    };

    #[tokio::test]
    async fn every_table_is_in_a_backup() {
        let database = TestDatabase::create().await.unwrap();
        let mut known: Vec<String> = TABLES.iter().map(|(table, ..)| (*table).to_owned()).collect();
        known.extend(["_sqlx_migrations", "schema_marker", "serving_endpoints", "workers"].map(str::to_owned));
        known.sort();
        let found: Vec<String> =
            sqlx::query_scalar("select tablename::text from pg_tables where schemaname = 'public' order by 1")
                .fetch_all(database.store.pool())
                .await
                .unwrap();
        assert_eq!(found, known);
    }

    #[tokio::test]
    async fn a_backup_under_load_is_one_moment_and_comes_back_whole() {
        let database = TestDatabase::create().await.unwrap();
        let store = &database.store;
        let tenant = fixtures::tenant(store, "acme").await.unwrap();
        let worker = fixtures::worker(store).await.unwrap();
        let lease = fixtures::training(store, tenant, &worker).await.unwrap();
        let trained = fixtures::trained(store, tenant).await.unwrap();
        store.finish_training(&lease.key, &trained).await.unwrap();
        fixtures::job(store, tenant).await.unwrap();
        let busy = store.claim(&worker, TaskKind::ALL).await.unwrap().unwrap();
        let writing = {
            let (store, key) = (store.clone(), busy.key);
            tokio::spawn(async move {
                for number in 0.. {
                    let note = |part| NewEvent::message(EventLevel::Info, format!("{number}, \"{part}\"\n"));
                    let report = Report { events: vec![note("a"), note("b")], ..Report::default() };
                    store.report(&key, &report).await.unwrap();
                    store.put_bytes(tenant, bytes::Bytes::from_static(b"being written")).await.unwrap();
                }
            })
        };
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("backup");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        let copied = store.back_up(&place).await.unwrap();
        writing.abort();
        assert!(copied.blobs >= 3, "{copied:?}");
        assert!(store.back_up(&place).await.is_err(), "never over another one");
        assert!(matches!(store.restore(&place).await, Err(StoreError::Conflict { .. })), "never over what is there");

        let other = TestDatabase::create().await.unwrap();
        assert_eq!(other.store.restore(&place).await.unwrap(), copied);
        let done = store.get_job(tenant, lease.job.id).await.unwrap();
        assert_eq!(other.store.get_job(tenant, lease.job.id).await.unwrap(), done);
        for artifact in other.store.artifacts(tenant, lease.job.id).await.unwrap() {
            assert_eq!(&other.store.get_blob_bytes(artifact.content.id).await.unwrap()[..], b"adapter");
        }
        let events = other.store.events_since(tenant, busy.job.id, 0, 10_000).await.unwrap();
        let notes: Vec<_> = events.iter().filter(|event| event.message.contains('"')).collect();
        assert!(!notes.is_empty() && notes.len().is_multiple_of(2), "a report is there whole or not: {}", notes.len());
        assert!(events.iter().zip(1..).all(|(event, wanted)| event.sequence == wanted));
        // The holder's lease of the moment is somebody's who is gone: its writes are taken until it is taken back.
        other.store.report(&busy.key, &Report::default()).await.unwrap();
    }

    #[tokio::test]
    async fn nothing_is_collected_while_a_backup_is_made() {
        let database = TestDatabase::create().await.unwrap();
        let store = &database.store;
        let tenant = fixtures::tenant(store, "acme").await.unwrap();
        let blob = store.put_bytes(tenant, bytes::Bytes::from_static(b"nobody's")).await.unwrap();
        let mut backup = PgConnection::connect_with(&store.inner.connect).await.unwrap();
        sqlx::query("select pg_advisory_lock_shared($1)").bind(BACKUP_LOCK).execute(&mut backup).await.unwrap();
        let all = GcOptions { min_age: std::time::Duration::ZERO, dry_run: false };
        let refused = store.collect_garbage(all).await.unwrap_err();
        assert!(matches!(&refused, StoreError::Conflict { message } if message.contains("backup")), "{refused}");
        store.collect_released(&[blob.id.0]).await;
        store.get_blob_bytes(blob.id).await.unwrap();
        backup.close().await.unwrap();
        assert_eq!(store.collect_garbage(all).await.unwrap().blobs, 1);
    }

    #[tokio::test]
    async fn damaged_bytes_are_not_restored() {
        let database = TestDatabase::create().await.unwrap();
        let tenant = fixtures::tenant(&database.store, "acme").await.unwrap();
        fixtures::file(&database.store, tenant).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("backup");
        database.store.back_up(&place).await.unwrap();
        let blob = std::fs::read_dir(place.join(BLOBS)).unwrap().next().unwrap().unwrap().path();
        std::fs::write(&blob, b"something else").unwrap();
        let other = TestDatabase::create().await.unwrap();
        let error = other.store.restore(&place).await.unwrap_err();
        assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
    }
}
