//! Files that must survive a power cut: written, synced, hashed; and the errors that mean that the disk is full.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use finetuned_protocol::engine::FileEntry;
use sha2::{Digest, Sha256};

const HASH_CHUNK_BYTES: usize = 1 << 20;

/// A file operation that failed.
#[derive(Debug, thiserror::Error)]
#[error("while {doing} {}: {source}", path.display())]
pub struct DiskError {
    pub doing: &'static str,
    pub path: PathBuf,
    pub source: io::Error,
}

/// Whether a person can mend it by making room or by replacing the disk, so that the job may wait for it.
pub fn is_mendable(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT | libc::EIO))
}

/// Turns an I/O error into one that says what was tried and where.
pub fn at<'a>(doing: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> DiskError + 'a {
    move |source| DiskError { doing, path: path.to_owned(), source }
}

/// Writes a whole file and waits until the disk has it.
///
/// # Errors
/// The disk's; the file may then be there in part.
pub fn write_synced(folder: &Path, name: &str, bytes: &[u8]) -> Result<FileEntry, DiskError> {
    let path = folder.join(name);
    let mut file = File::create(&path).map_err(at("creating", &path))?;
    #[cfg(test)]
    faults::spend(bytes.len()).map_err(at("writing", &path))?;
    file.write_all(bytes).map_err(at("writing", &path))?;
    file.sync_all().map_err(at("syncing", &path))?;
    Ok(FileEntry { name: name.to_owned(), bytes: bytes.len() as u64, sha256: hex::encode(Sha256::digest(bytes)) })
}

/// Waits until the disk has the names in a folder.
///
/// # Errors
/// The disk's.
pub fn sync_folder(folder: &Path) -> Result<(), DiskError> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(at("syncing", folder))
}

/// Name, size and sha256 of a file that exists.
///
/// # Errors
/// The file cannot be read.
pub fn entry_of(folder: &Path, name: &str) -> Result<FileEntry, DiskError> {
    let path = folder.join(name);
    let mut file = File::open(&path).map_err(at("opening", &path))?;
    let mut hash = Sha256::new();
    let mut chunk = vec![0u8; HASH_CHUNK_BYTES];
    let mut bytes = 0u64;
    loop {
        let read = file.read(&mut chunk).map_err(at("reading", &path))?;
        if read == 0 {
            return Ok(FileEntry { name: name.to_owned(), bytes, sha256: hex::encode(hash.finalize()) });
        }
        hash.update(&chunk[..read]);
        bytes += read as u64;
    }
}

/// Makes an empty folder, whatever was there before.
///
/// # Errors
/// The disk's.
pub fn fresh_folder(folder: &Path) -> Result<(), DiskError> {
    remove_folder(folder)?;
    fs::create_dir_all(folder).map_err(at("creating", folder))
}

/// Removes a folder and what is in it; one that is not there is no error.
///
/// # Errors
/// The disk's.
pub fn remove_folder(folder: &Path) -> Result<(), DiskError> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at("removing", folder)(error)),
        _ => Ok(()),
    }
}

/// A disk that fills up, for tests: the room left on this thread.
#[cfg(test)]
pub mod faults {
    use std::{cell::Cell, io};

    thread_local! {
        static ROOM: Cell<Option<usize>> = const { Cell::new(None) };
    }

    pub fn leave_room(bytes: usize) {
        ROOM.set(Some(bytes));
    }

    pub fn unlimited() {
        ROOM.set(None);
    }

    pub fn spend(bytes: usize) -> io::Result<()> {
        let Some(room) = ROOM.get() else { return Ok(()) };
        let left = room.checked_sub(bytes).ok_or_else(|| io::Error::from_raw_os_error(libc::ENOSPC))?;
        ROOM.set(Some(left));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn a_written_file_is_the_one_that_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let written = write_synced(folder.path(), "a", b"abc").unwrap();
        assert_eq!(written.sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(entry_of(folder.path(), "a").unwrap(), written);
        sync_folder(folder.path()).unwrap();
    }

    #[test]
    fn a_fresh_folder_is_empty() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("inner");
        fresh_folder(&inner).unwrap();
        fs::write(inner.join("left"), "over").unwrap();
        fresh_folder(&inner).unwrap();
        assert_eq!(fs::read_dir(&inner).unwrap().count(), 0);
    }

    #[test]
    fn a_full_disk_is_told_from_other_faults() {
        let error = io::Error::from_raw_os_error;
        assert!(is_mendable(&error(libc::ENOSPC)) && is_mendable(&error(libc::EIO)));
        assert!(!is_mendable(&error(libc::EACCES)));
        let full = at("writing", Path::new("x"))(error(libc::ENOSPC));
        assert!(full.to_string().starts_with("while writing x: No space left"));
    }
}
