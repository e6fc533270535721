//! The bytes of an uploaded file on their way to the blob store.

use std::future::Future;

use axum::extract::multipart::{Field, MultipartError};
use finetuned_protocol::{ids::TenantId, lint::ReadingSpec};
use finetuned_store::StoredBlob;

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

/// Streams a field to the blob store, past the linter where `lint` says how the file is read. Memory does not grow with the file.
///
/// # Errors
/// A cut-off body, a file beyond the limit, a client that stopped sending, or a store that cannot take the bytes.
pub async fn take(
    (app, tenant): (&App, TenantId),
    mut field: Field<'_>,
    overhead: &Overhead,
    lint: Option<ReadingSpec>,
) -> Result<Intake, ApiError> {
    let limit = app.options.max_upload_bytes;
    let mut writer = app.store.begin_blob(tenant).await?;
    let mut linting = lint.map(|reading| Linting::start(&app.store, tenant, reading)).transpose()?;
    while let Some(piece) = in_time(app, field.chunk()).await? {
        overhead.came_out(piece.len());
        if writer.bytes() + piece.len() as u64 > limit {
            return Err(ApiError::too_large(limit).param("file"));
        }
        if let Some(linting) = &mut linting {
            linting.feed(piece.clone()).await?;
        }
        writer.write(piece).await?;
    }
    let linted = match linting {
        Some(linting) => Some(linting.finish().await?),
        None => None,
    };
    Ok(Intake { content: writer.finish().await?, linted })
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
