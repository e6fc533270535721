//! The folder of an attempt: `job.json` and the paths beside it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use finetuned_protocol::engine::{
    ADAPTER_FOLDER, BASE_LINK, CHECKPOINTS_FOLDER, EngineJob, FOLDER_VERSION, INITIAL_ADAPTER_FOLDER, JOB_FILE,
    TRAIN_DATA, VALID_DATA,
};
use serde::Deserialize;

use crate::{disk::at, error::EngineError};

/// A job and where its files lie.
#[derive(Debug, Clone)]
pub struct JobFolder {
    pub root: PathBuf,
    pub job: EngineJob,
}

/// Read first: of a folder of another version nothing else can be relied upon.
#[derive(Deserialize)]
struct Version {
    folder_version: u32,
}

impl JobFolder {
    /// Reads `job.json`.
    ///
    /// # Errors
    /// No such file, no such job, or a folder of another version.
    pub fn open(root: &Path) -> Result<Self, EngineError> {
        let path = root.join(JOB_FILE);
        let text = fs::read(&path).map_err(at("reading", &path))?;
        let json = |source| EngineError::Json { path: path.clone(), source };
        let Version { folder_version } = serde_json::from_slice(&text).map_err(json)?;
        if folder_version != FOLDER_VERSION {
            return Err(EngineError::FolderVersion { found: folder_version, known: FOLDER_VERSION });
        }
        Ok(Self { root: root.to_owned(), job: serde_json::from_slice(&text).map_err(json)? })
    }

    pub fn base(&self) -> PathBuf {
        self.root.join(BASE_LINK)
    }

    pub fn train_data(&self) -> PathBuf {
        self.root.join(TRAIN_DATA)
    }

    /// The validation file, where the job has one.
    pub fn valid_data(&self) -> Option<PathBuf> {
        self.job.validation_file_sha256.as_ref().map(|_| self.root.join(VALID_DATA))
    }

    pub fn checkpoints(&self) -> PathBuf {
        self.root.join(CHECKPOINTS_FOLDER)
    }

    /// The adapter that training goes on from, where the job says so.
    pub fn initial_adapter(&self) -> PathBuf {
        self.root.join(INITIAL_ADAPTER_FOLDER)
    }

    /// What is exported: an adapter, or a model.
    pub fn exported(&self) -> PathBuf {
        self.root.join(ADAPTER_FOLDER)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use crate::testing;

    #[test]
    fn a_folder_is_read_and_another_version_refused() {
        let folder = tempfile::tempdir().unwrap();
        let mut job = testing::job();
        let write = |job: &EngineJob| fs::write(folder.path().join(JOB_FILE), serde_json::to_vec(job).unwrap());
        write(&job).unwrap();
        let opened = JobFolder::open(folder.path()).unwrap();
        assert_eq!((&opened.job, opened.valid_data()), (&job, None));
        job.folder_version = 99;
        write(&job).unwrap();
        let refused = JobFolder::open(folder.path()).unwrap_err();
        assert!(matches!(refused, EngineError::FolderVersion { found: 99, known: FOLDER_VERSION }), "{refused}");
    }

    #[test]
    fn a_version_is_refused_even_where_the_rest_is_unknown() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(JOB_FILE), "{\"folder_version\": 2}").unwrap();
        assert!(matches!(JobFolder::open(folder.path()), Err(EngineError::FolderVersion { found: 2, .. })));
    }
}
