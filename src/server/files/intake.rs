//! The bytes of an uploaded file on their way to the blob store.

use std::future::Future;

use axum::extract::multipart::{Field, MultipartError};
use bytes::Bytes;
use finetuned_protocol::{ids::TenantId, lint::ReadingSpec};
use finetuned_store::{BlobWriter, StoredBlob};

use super::linting::{Linted, Linting};
use crate::{
    http::{
        error::{ApiError, Code},
        multipart::{Overhead, damaged},
    },
    state::App,
};

/// A file whose bytes are stored; nothing refers to them yet.
pub struct Intake {
    pub content: StoredBlob,
    pub linted: Option<Linted>,
}

/// Takes bytes to the blob store, past the linter where a file is linted. Memory does not grow with the file.
pub struct Sink {
    writer: BlobWriter,
    linting: Option<Linting>,
}

impl Sink {
    /// `lint` says how a file that is linted is read.
    ///
    /// # Errors
    /// The store is away, or the system refuses a thread.
    pub async fn open(app: &App, tenant: TenantId, lint: Option<ReadingSpec>) -> Result<Self, ApiError> {
        let writer = app.store.begin_blob(tenant).await?;
        let linting = lint.map(|reading| Linting::start(&app.store, tenant, reading)).transpose()?;
        Ok(Self { writer, linting })
    }

    pub async fn push(&mut self, piece: Bytes) -> Result<(), ApiError> {
        if let Some(linting) = &mut self.linting {
            linting.feed(piece.clone()).await?;
        }
        Ok(self.writer.write(piece).await?)
    }

    pub async fn finish(self) -> Result<Intake, ApiError> {
        let linted = match self.linting {
            Some(linting) => Some(linting.finish().await?),
            None => None,
        };
        Ok(Intake { content: self.writer.finish().await?, linted })
    }
}

/// Streams a field into a sink. More than `limit` bytes are refused.
///
/// # Errors
/// A cut-off body, a file beyond the limit, a client that stopped sending, or a store that cannot take the bytes.
pub async fn take(
    app: &App,
    mut field: Field<'_>,
    overhead: &Overhead,
    mut sink: Sink,
    limit: u64,
) -> Result<Intake, ApiError> {
    let name = field.name().unwrap_or_default().to_owned();
    while let Some(piece) = in_time(app, field.chunk()).await? {
        overhead.came_out(piece.len());
        if sink.writer.bytes() + piece.len() as u64 > limit {
            return Err(ApiError::too_large(limit).param(name));
        }
        sink.push(piece).await?;
    }
    sink.finish().await
}

/// Waits for the client, but not longer than it may be silent.
pub async fn in_time<T>(
    app: &App,
    next: impl Future<Output = Result<Option<T>, MultipartError>>,
) -> Result<Option<T>, ApiError> {
    let limit = app.options.upload_idle_timeout;
    match tokio::time::timeout(limit, next).await {
        Ok(next) => next.map_err(damaged),
        Err(_) => {
            let message = format!("no byte of the body came for {} seconds", limit.as_secs());
            Err(ApiError::new(Code::RequestTimeout, message))
        }
    }
}
