//! Writing bytes: counted, hashed, fsynced.

use std::{fmt, future::Future, path::Path, time::Duration};

use bytes::Bytes;
use finetuned_protocol::ids::TenantId;
use futures::{Stream, StreamExt as _};
use object_store::{ObjectStoreExt as _, WriteMultipart};
use sha2::{Digest, Sha256};
use tokio_util::io::ReaderStream;
use uuid::Uuid;

use super::{BlobId, StoredBlob};
use crate::{Store, StoreError, convert::big};

/// Bytes handed to the disk at once.
const PART_BYTES: usize = 1 << 20;
/// Parts on their way to the disk at once; more would hold more memory.
const PARTS_IN_FLIGHT: usize = 4;
/// Longest time that the object store may take for some parts, or for the fsync of a whole file.
const STORING_DEADLINE: Duration = Duration::from_secs(120);

/// Takes bytes piece by piece, counting and hashing. Dropped without `finish`, it leaves nothing but a `pending` row,
/// which the garbage collector removes.
pub struct BlobWriter {
    store: Store,
    id: BlobId,
    upload: WriteMultipart,
    hash: Sha256,
    bytes: u64,
}

/// A call to the object store, which has a deadline like every other call out of this process.
async fn in_time<T>(call: impl Future<Output = object_store::Result<T>>) -> Result<T, StoreError> {
    match tokio::time::timeout(STORING_DEADLINE, call).await {
        Ok(done) => done.map_err(|error| StoreError::blob("storing bytes", error)),
        Err(_) => Err(StoreError::Unavailable {
            doing: "storing bytes",
            reason: format!("the object store did not answer for {} s", STORING_DEADLINE.as_secs()),
        }),
    }
}

impl fmt::Debug for BlobWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlobWriter").field("id", &self.id).field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl BlobWriter {
    /// Appends bytes; waits where the disk is slower than they come.
    ///
    /// # Errors
    /// [`StoreError::Blob`], such as a full disk.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        in_time(self.upload.wait_for_capacity(PARTS_IN_FLIGHT)).await?;
        self.hash.update(&bytes);
        self.bytes += bytes.len() as u64;
        self.upload.put(bytes);
        Ok(())
    }

    /// Bytes taken so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Makes the bytes durable (fsync of file and folder) and records count and hash.
    ///
    /// # Errors
    /// [`StoreError::Blob`], such as a full disk; [`StoreError::Unavailable`].
    pub async fn finish(self) -> Result<StoredBlob, StoreError> {
        let Self { store, id, upload, hash, bytes } = self;
        in_time(upload.finish()).await?;
        let digest = hash.finalize().to_vec();
        store
            .call("recording stored bytes", async {
                let done = sqlx::query!(
                    "update blobs set bytes = $2, sha256 = $3 where id = $1 and state = 'pending'",
                    id.0,
                    big(bytes),
                    digest,
                )
                .execute(store.pool())
                .await?;
                match done.rows_affected() {
                    1 => Ok(()),
                    _ => Err(StoreError::conflict("the bytes took too long to come and were given up")),
                }
            })
            .await?;
        Ok(StoredBlob { id, bytes, sha256: hex::encode(digest) })
    }

    /// Gives the bytes up.
    pub async fn abort(self) {
        let Self { store, id, upload, .. } = self;
        // What fails here is left to the garbage collector.
        let _ = upload.abort().await;
        if store.inner.blobs.remove(id).await.is_ok() {
            let gone = async {
                sqlx::query!("delete from blobs where id = $1 and state = 'pending'", id.0)
                    .execute(store.pool())
                    .await?;
                Ok(())
            };
            let _ = store.call("giving bytes up", gone).await;
        }
    }
}

impl Store {
    /// Starts a blob: inserts its `pending` row.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Blob`].
    pub async fn begin_blob(&self, tenant: TenantId) -> Result<BlobWriter, StoreError> {
        let id = BlobId(Uuid::new_v4());
        self.call("recording that bytes will come", async {
            sqlx::query!("insert into blobs (id, tenant_id) values ($1, $2)", id.0, tenant.0)
                .execute(self.pool())
                .await?;
            Ok(())
        })
        .await?;
        let upload = self.inner.blobs.objects.put_multipart(&id.key()).await;
        let upload = upload.map_err(|error| StoreError::blob("starting to store bytes", error))?;
        let upload = WriteMultipart::new_with_chunk_size(upload, PART_BYTES);
        Ok(BlobWriter { store: self.clone(), id, upload, hash: Sha256::new(), bytes: 0 })
    }

    /// Stores a stream.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`] where more than `limit_bytes` come; [`StoreError::Blob`] where the stream fails.
    pub async fn put_stream<S, E>(
        &self,
        tenant: TenantId,
        stream: S,
        limit_bytes: Option<u64>,
    ) -> Result<StoredBlob, StoreError>
    where
        S: Stream<Item = Result<Bytes, E>> + Send,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let mut writer = self.begin_blob(tenant).await?;
        let mut stream = std::pin::pin!(stream);
        let limit = limit_bytes.unwrap_or(u64::MAX);
        let taken = async {
            while let Some(piece) = stream.next().await {
                let piece = piece.map_err(|error| StoreError::blob("reading the bytes to store", error))?;
                if writer.bytes() + piece.len() as u64 > limit {
                    return Err(StoreError::TooLarge { limit_bytes: limit });
                }
                writer.write(piece).await?;
            }
            Ok(())
        };
        match taken.await {
            Ok(()) => writer.finish().await,
            Err(error) => {
                writer.abort().await;
                Err(error)
            }
        }
    }

    /// Stores a file of this machine.
    ///
    /// # Errors
    /// [`StoreError::Blob`] where it cannot be read or stored.
    pub async fn put_file(&self, tenant: TenantId, path: &Path) -> Result<StoredBlob, StoreError> {
        let file = tokio::fs::File::open(path).await.map_err(|error| StoreError::blob("opening a file", error))?;
        self.put_stream(tenant, ReaderStream::with_capacity(file, PART_BYTES), None).await
    }

    /// Stores bytes that are in memory.
    ///
    /// # Errors
    /// [`StoreError::Blob`].
    pub async fn put_bytes(&self, tenant: TenantId, bytes: Bytes) -> Result<StoredBlob, StoreError> {
        let once = futures::stream::once(std::future::ready(Ok::<_, std::io::Error>(bytes)));
        self.put_stream(tenant, once, None).await
    }
}
