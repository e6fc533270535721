//! Reading bytes.

use std::{ops::Range, path::Path};

use bytes::{Bytes, BytesMut};
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::{GetOptions, GetResult, GetResultPayload, ObjectStore as _};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _, AsyncWriteExt as _, SeekFrom};
use tokio_util::io::ReaderStream;

use super::{BlobId, BlobStream, StoredBlob};
use crate::{Store, StoreError};

/// Bytes read from the disk at once; object_store's own pieces of 8 KiB cost a thread hop each.
const PIECE_BYTES: usize = 256 << 10;
/// What is being done where the store's own bytes cannot be read.
pub(crate) const READING: &str = "reading stored bytes";

impl Store {
    /// Reads a blob, or `range` of it (end exclusive), in pieces.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] where the bytes are gone; [`StoreError::Blob`].
    pub async fn get_blob(&self, id: BlobId, range: Option<Range<u64>>) -> Result<BlobStream, StoreError> {
        if range.as_ref().is_some_and(|range| range.is_empty()) {
            return Ok(futures::stream::empty().boxed());
        }
        let options = GetOptions { range: range.map(Into::into), ..GetOptions::default() };
        match self.inner.blobs.objects.get_opts(&id.key(), options).await {
            Ok(result) => in_pieces(result).await,
            Err(object_store::Error::NotFound { .. }) => Err(StoreError::NotFound { what: "blob" }),
            Err(error) => Err(StoreError::blob(READING, error)),
        }
    }

    /// Reads a whole blob into memory; for small ones (result tables, lint findings).
    ///
    /// # Errors
    /// As [`Self::get_blob`].
    pub async fn get_blob_bytes(&self, id: BlobId) -> Result<Bytes, StoreError> {
        let stream = self.get_blob(id, None).await?;
        let whole = stream.try_fold(BytesMut::new(), |mut whole, piece| async move {
            whole.extend_from_slice(&piece);
            Ok(whole)
        });
        Ok(whole.await?.freeze())
    }

    /// Writes a blob to `path` and checks its hash.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] where the bytes are not those that were stored; [`StoreError::Blob`].
    pub async fn fetch_blob(&self, blob: &StoredBlob, path: &Path) -> Result<(), StoreError> {
        let doing = "writing a blob to a file";
        let mut stream = self.get_blob(blob.id, None).await?;
        let mut file = tokio::fs::File::create(path).await.map_err(|error| StoreError::blob(doing, error))?;
        let mut hash = Sha256::new();
        while let Some(piece) = stream.next().await {
            let piece = piece?;
            hash.update(&piece);
            file.write_all(&piece).await.map_err(|error| StoreError::blob(doing, error))?;
        }
        file.flush().await.map_err(|error| StoreError::blob(doing, error))?;
        let found = hex::encode(hash.finalize());
        if found == blob.sha256 {
            return Ok(());
        }
        let blob = (blob.id.0.to_string(), blob.sha256.clone());
        Err(StoreError::Corrupt { blob: blob.0, expected: blob.1, found })
    }
}

async fn in_pieces(result: GetResult) -> Result<BlobStream, StoreError> {
    let range = result.range.clone();
    match result.payload {
        GetResultPayload::File(file, _) => {
            let mut file = tokio::fs::File::from_std(file);
            file.seek(SeekFrom::Start(range.start)).await.map_err(|error| StoreError::blob(READING, error))?;
            let pieces = ReaderStream::with_capacity(file.take(range.end - range.start), PIECE_BYTES);
            Ok(pieces.map_err(|error| StoreError::blob(READING, error)).boxed())
        }
        GetResultPayload::Stream(stream) => Ok(stream.map_err(|error| StoreError::blob(READING, error)).boxed()),
    }
}
