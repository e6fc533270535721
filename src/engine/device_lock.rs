//! One engine a card. The CPU is shared: there the kernel divides, and memory is the planner's affair.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};

use crate::disk::{DiskError, at};

/// Held for as long as the process lives; the kernel lets go of it however the process ends.
#[derive(Debug)]
pub struct DeviceLock {
    _file: File,
}

/// Tries to take the lock of CUDA device `index`; `None` where another engine has it.
///
/// # Errors
/// The lock's folder or file cannot be made.
pub fn try_lock(folder: &Path, index: usize) -> Result<Option<DeviceLock>, DiskError> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(at("creating", folder))?;
    let path = folder.join(format!("cuda-{}.lock", card(index)));
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(at("opening", &path))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(DeviceLock { _file: file })),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(at("locking", &path)(io::Error::from(error))),
    }
}

/// Where the locks lie: the user's runtime folder, or one of their own in the folder for temporary files.
pub fn lock_folder() -> PathBuf {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|folder| fs::metadata(folder).is_ok());
    match runtime {
        Some(folder) => folder.join("finetuned"),
        None => std::env::temp_dir().join(format!("finetuned-{}", rustix::process::getuid().as_raw())),
    }
}

/// The card behind an index, as `CUDA_VISIBLE_DEVICES` names it: two engines may call different cards `cuda:0`.
fn card(index: usize) -> String {
    let visible = std::env::var("CUDA_VISIBLE_DEVICES").unwrap_or_default();
    card_of(&visible, index)
}

fn card_of(visible: &str, index: usize) -> String {
    let name = visible.split(',').nth(index).map(str::trim).filter(|name| !name.is_empty());
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
    name.map_or_else(|| index.to_string(), |name| name.chars().map(plain).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn a_second_engine_does_not_get_the_card() {
        let folder = tempfile::tempdir().unwrap();
        let first = try_lock(folder.path(), 0).unwrap();
        assert!(first.is_some());
        assert!(try_lock(folder.path(), 0).unwrap().is_none());
        assert!(try_lock(folder.path(), 1).unwrap().is_some());
        drop(first);
        assert!(try_lock(folder.path(), 0).unwrap().is_some());
    }

    #[test]
    fn a_card_is_named_as_the_environment_names_it() {
        assert_eq!(card_of("", 1), "1");
        assert_eq!(card_of("3,5", 1), "5");
        assert_eq!(card_of("GPU-ab/c", 0), "GPU-ab_c");
    }
}
