//! Stored bytes: a key is a fresh UUID, written once, never reused; the row comes first as `pending`.
//!
//! SQL cannot fence bytes. So nothing overwrites any, and they are visible only through a row that refers to them, which
//! is written when they lie there whole.

mod read;
#[cfg(test)]
mod tests;
mod write;

use std::{
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
};

use bytes::Bytes;
use finetuned_protocol::ids::TenantId;
use futures::Stream;
use object_store::{ObjectStore, local::LocalFileSystem, path::Path as Key};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use sqlx::PgConnection;
use uuid::Uuid;

pub(crate) use self::read::READING;
pub use self::write::BlobWriter;
use crate::{Store, StoreError, convert::big};

/// Key of stored bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BlobId(pub Uuid);

impl BlobId {
    /// Where the bytes lie. Two digits of the id make folders that stay small.
    fn key(self) -> Key {
        let name = self.0.simple().to_string();
        Key::from(format!("{}/{name}", name.get(30..).unwrap_or_default()))
    }
}

/// Bytes that lie in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredBlob {
    pub id: BlobId,
    pub bytes: u64,
    /// 64 hexadecimal digits.
    pub sha256: String,
}

/// Bytes of a blob, in pieces.
pub type BlobStream = Pin<Box<dyn Stream<Item = Result<Bytes, StoreError>> + Send>>;

/// Where the bytes lie.
#[derive(Debug)]
pub(crate) struct Blobs {
    objects: Arc<dyn ObjectStore>,
    /// The folder of a local store.
    pub(crate) folder: PathBuf,
}

impl Blobs {
    pub(crate) async fn open(folder: &Path) -> Result<Self, StoreError> {
        let folder = folder.to_owned();
        let opening = tokio::task::spawn_blocking(move || {
            let mut builder = std::fs::DirBuilder::new();
            // Only this service's user reads what clients sent.
            builder.recursive(true).mode(0o700).create(&folder)?;
            let objects = LocalFileSystem::new_with_prefix(&folder)?.with_fsync(true);
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(Self { objects: Arc::new(objects), folder })
        });
        let doing = "opening the folder of stored bytes";
        opening.await.map_err(|error| StoreError::blob(doing, error))?.map_err(|error| StoreError::blob(doing, error))
    }

    /// Removes a blob's bytes, also those of a write that was cut off. Bytes that are not there are no error.
    pub(crate) async fn remove(&self, id: BlobId) -> Result<(), StoreError> {
        use object_store::ObjectStoreExt as _;
        match self.objects.delete(&id.key()).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => return Err(StoreError::blob("removing stored bytes", error)),
        }
        // A local store writes beside the key, `KEY#1` and so on, and renames at the end.
        for part in 1..=9 {
            let staged = self.folder.join(format!("{}#{part}", id.key()));
            match tokio::fs::remove_file(&staged).await {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => break,
                Err(error) => return Err(StoreError::blob("removing bytes of a cut-off write", error)),
            }
        }
        Ok(())
    }

    /// Takes a blob's bytes from a file of a backup, once they are seen to be the right ones.
    pub(crate) async fn bring(&self, blob: &StoredBlob, from: &Path) -> Result<(), StoreError> {
        use object_store::ObjectStoreExt as _;
        let doing = "reading bytes of a backup";
        let bytes = tokio::fs::read(from).await.map_err(|error| StoreError::blob(doing, error))?;
        let found = hex::encode(Sha256::digest(&bytes));
        if found != blob.sha256 {
            return Err(StoreError::Corrupt { blob: blob.id.0.to_string(), expected: blob.sha256.clone(), found });
        }
        let put = self.objects.put(&blob.id.key(), bytes.into()).await;
        put.map(drop).map_err(|error| StoreError::blob("writing restored bytes", error))
    }
}

/// A blob of the same tenant that holds the same bytes and is in use. It is locked until the transaction ends, so that
/// it cannot be collected; so are equal bytes that another transaction is about to make visible.
pub(crate) async fn same_bytes(
    tx: &mut PgConnection,
    tenant: TenantId,
    blob: &StoredBlob,
) -> Result<Option<BlobId>, StoreError> {
    let digest = hex::decode(&blob.sha256).map_err(|error| StoreError::blob("reading a hash", error))?;
    let lock = crate::fingerprint(&[b"blob", tenant.0.as_bytes(), &digest]);
    let lock = i64::from_le_bytes(std::array::from_fn(|index| lock[index]));
    sqlx::query!("select pg_advisory_xact_lock($1)", lock).execute(&mut *tx).await?;
    let found = sqlx::query_scalar!(
        "select id from blobs
         where tenant_id = $1 and sha256 = $2 and bytes = $3 and state = 'live' and id <> $4
         order by created_at, id
         limit 1
         for update",
        tenant.0,
        digest,
        big(blob.bytes),
        blob.id.0,
    );
    Ok(found.fetch_optional(tx).await?.map(BlobId))
}

/// Makes blobs visible, in the transaction of the rows that refer to them.
pub(crate) async fn make_live(
    tx: &mut PgConnection,
    tenant: TenantId,
    blobs: impl IntoIterator<Item = &StoredBlob>,
) -> Result<(), StoreError> {
    let mut ids: Vec<Uuid> = blobs.into_iter().map(|blob| blob.id.0).collect();
    ids.sort_unstable();
    ids.dedup();
    let live = sqlx::query!(
        "update blobs set state = 'live'
         where id = any($1) and tenant_id = $2 and state <> 'deleting' and bytes is not null",
        &ids,
        tenant.0,
    )
    .execute(tx)
    .await?;
    if live.rows_affected() == ids.len() as u64 {
        return Ok(());
    }
    Err(StoreError::conflict("stored bytes are gone or not whole; they waited too long to be used"))
}

impl Store {
    /// Lets go of bytes that came and are not needed after all, because they were there already. What fails is left to
    /// the garbage collector.
    pub(crate) async fn drop_unused(&self, blob: &StoredBlob) {
        let dropped = async {
            let marked = self.call("letting go of bytes", async {
                let marked =
                    sqlx::query!("update blobs set state = 'deleting' where id = $1 and state = 'pending'", blob.id.0);
                Ok(marked.execute(self.pool()).await?.rows_affected())
            });
            if marked.await? == 1 {
                self.inner.blobs.remove(blob.id).await?;
                self.forget_blob(blob.id).await?;
            }
            Ok::<_, StoreError>(())
        };
        if let Err(error) = dropped.await {
            tracing::warn!(%error, "bytes that are not needed are left to the next collection");
        }
    }
}
