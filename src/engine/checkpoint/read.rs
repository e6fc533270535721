//! Finding the newest checkpoint that is what its manifest says.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use finetuned_protocol::engine::{FileEntry, MANIFEST_FILE, Manifest};

use super::{ADAPTER, CheckpointState, OPTIMIZER, STATE, folder_name, step_of};
use crate::disk::{DiskError, at, entry_of};

/// Why a checkpoint is not used.
#[derive(Debug, thiserror::Error)]
pub enum Damage {
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error("its {file} cannot be understood: {source}")]
    Unreadable { file: &'static str, source: serde_json::Error },
    #[error("its manifest is of step {0}")]
    OtherStep(u32),
    #[error("its manifest names no {0}")]
    Incomplete(&'static str),
    #[error("its {0} is not the file that was written")]
    Altered(String),
}

/// A checkpoint that is whole.
#[derive(Debug)]
pub struct Found {
    pub step: u32,
    pub folder: PathBuf,
    pub state: CheckpointState,
}

/// What a folder of checkpoints holds.
#[derive(Debug)]
pub struct Search {
    /// The newest one that is whole.
    pub newest: Option<Found>,
    /// Newer ones that are not, by step.
    pub damaged: Vec<(u32, Damage)>,
}

/// Looks for the newest whole checkpoint of `folder`.
///
/// # Errors
/// The folder cannot be listed.
pub fn newest_good(folder: &Path) -> Result<Search, DiskError> {
    let mut damaged = Vec::new();
    for step in steps(folder)? {
        match verify(&folder.join(folder_name(step)), step) {
            Ok(found) => return Ok(Search { newest: Some(found), damaged }),
            Err(damage) => damaged.push((step, damage)),
        }
    }
    Ok(Search { newest: None, damaged })
}

/// Steps of the checkpoints in a folder, newest first.
fn steps(folder: &Path) -> Result<Vec<u32>, DiskError> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(at("listing", folder))?,
    };
    let mut steps = Vec::new();
    for entry in entries {
        let entry = entry.map_err(at("listing", folder))?;
        steps.extend(entry.file_name().to_str().and_then(step_of));
    }
    steps.sort_unstable_by(|a, b| b.cmp(a));
    Ok(steps)
}

fn verify(folder: &Path, step: u32) -> Result<Found, Damage> {
    let manifest: Manifest = read_json(folder, MANIFEST_FILE)?;
    if manifest.step != step {
        return Err(Damage::OtherStep(manifest.step));
    }
    for needed in [ADAPTER, OPTIMIZER, STATE] {
        if !manifest.files.iter().any(|file| file.name == needed) {
            return Err(Damage::Incomplete(needed));
        }
    }
    for file in &manifest.files {
        check_file(folder, file)?;
    }
    Ok(Found { step, folder: folder.to_owned(), state: read_json(folder, STATE)? })
}

fn check_file(folder: &Path, file: &FileEntry) -> Result<(), Damage> {
    let altered = || Damage::Altered(file.name.clone());
    // A size is cheap to compare; a truncated file need not be hashed.
    let path = folder.join(&file.name);
    let bytes = fs::metadata(&path).map_err(at("looking at", &path))?.len();
    if bytes != file.bytes || entry_of(folder, &file.name)? != *file {
        return Err(altered());
    }
    Ok(())
}

fn read_json<T: serde::de::DeserializeOwned>(folder: &Path, file: &'static str) -> Result<T, Damage> {
    let path = folder.join(file);
    let text = fs::read(&path).map_err(at("reading", &path))?;
    serde_json::from_slice(&text).map_err(|source| Damage::Unreadable { file, source })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use crate::{checkpoint::write, testing};

    fn save(folder: &Path, step: u32) {
        let state = serde_json::to_vec(&CheckpointState { step, ..testing::state() }).unwrap();
        write(folder, step, &[(ADAPTER, b"weights"), (OPTIMIZER, b"moments"), (STATE, &state)]).unwrap();
    }

    fn newest(folder: &Path) -> (Option<u32>, Vec<u32>) {
        let Search { newest, damaged } = newest_good(folder).unwrap();
        (newest.map(|found| found.step), damaged.into_iter().map(|(step, _)| step).collect())
    }

    #[test]
    fn the_newest_is_found_by_number() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(newest(&folder.path().join("nowhere")), (None, vec![]));
        save(folder.path(), 9);
        save(folder.path(), 10);
        fs::create_dir(folder.path().join("step-11.tmp")).unwrap();
        assert_eq!(newest(folder.path()), (Some(10), vec![]));
    }

    #[test]
    fn every_kind_of_damage_falls_back() {
        let breakers: [fn(&Path); 5] = [
            |step| fs::write(step.join(ADAPTER), b"weightz").unwrap(),
            |step| fs::write(step.join(OPTIMIZER), b"mom").unwrap(),
            |step| fs::remove_file(step.join(STATE)).unwrap(),
            |step| fs::remove_file(step.join(MANIFEST_FILE)).unwrap(),
            |step| fs::write(step.join(MANIFEST_FILE), "{\"step\":2,\"files\":[]}").unwrap(),
        ];
        for (case, break_it) in breakers.into_iter().enumerate() {
            let folder = tempfile::tempdir().unwrap();
            save(folder.path(), 1);
            save(folder.path(), 2);
            break_it(&folder.path().join("step-2"));
            assert_eq!(newest(folder.path()), (Some(1), vec![2]), "case {case}");
        }
    }
}
