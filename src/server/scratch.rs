//! A folder of a request's own for what must lie on a disk while it is looked at.

use std::path::PathBuf;

use finetuned_store::File;
use tempfile::TempDir;

use crate::{http::error::ApiError, state::App};

/// Gone with its request.
pub struct Scratch {
    folder: TempDir,
}

impl Scratch {
    /// # Errors
    /// The disk has no place for it.
    pub fn new() -> Result<Self, ApiError> {
        tempfile::Builder::new()
            .prefix("finetuned-")
            .tempdir()
            .map(|folder| Self { folder })
            .map_err(ApiError::unavailable)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Brings the bytes of a file here.
    ///
    /// # Errors
    /// Bytes that cannot be read or written.
    pub async fn fetch(&self, app: &App, file: &File, name: &str) -> Result<PathBuf, ApiError> {
        let path = self.path(name);
        app.store.fetch_blob(&file.content, &path).await?;
        Ok(path)
    }
}
