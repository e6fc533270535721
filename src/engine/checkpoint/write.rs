//! Writing a checkpoint so that a power cut at any moment leaves the older one or the newer one.

use std::{fs, io, path::Path};

use finetuned_protocol::engine::{MANIFEST_FILE, Manifest};

use super::folder_name;
use crate::disk::{DiskError, at, fresh_folder, remove_folder, sync_folder, write_synced};

/// Writes the checkpoint of `step` into `folder`; returns its bytes. On an error nothing of it stays.
///
/// # Errors
/// The disk's.
pub fn write(folder: &Path, step: u32, files: &[(&str, &[u8])]) -> Result<u64, DiskError> {
    let unfinished = folder.join(format!("{}.tmp", folder_name(step)));
    let written = write_and_rename(folder, &unfinished, step, files);
    if written.is_err()
        && let Err(error) = remove_folder(&unfinished)
    {
        tracing::error!(%error, "an unfinished checkpoint stays");
    }
    written
}

fn write_and_rename(folder: &Path, unfinished: &Path, step: u32, files: &[(&str, &[u8])]) -> Result<u64, DiskError> {
    fresh_folder(unfinished)?;
    let entries =
        files.iter().map(|(name, bytes)| write_synced(unfinished, name, bytes)).collect::<Result<Vec<_>, _>>()?;
    let bytes = entries.iter().map(|entry| entry.bytes).sum();
    let manifest = Manifest { step, files: entries };
    let manifest = serde_json::to_vec_pretty(&manifest).map_err(io::Error::from).map_err(at("writing", unfinished))?;
    write_synced(unfinished, MANIFEST_FILE, &manifest)?;
    sync_folder(unfinished)?;
    let whole = folder.join(folder_name(step));
    // A damaged one of the same step may be there: the run fell back behind it and came by again.
    remove_folder(&whole)?;
    fs::rename(unfinished, &whole).map_err(at("renaming to", &whole))?;
    sync_folder(folder)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn the_manifest_tells_sizes_and_hashes() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(write(folder.path(), 4, &[("a", b"12"), ("b", b"345")]).unwrap(), 5);
        let manifest = fs::read(folder.path().join("step-4").join(MANIFEST_FILE)).unwrap();
        let manifest: Manifest = serde_json::from_slice(&manifest).unwrap();
        assert_eq!((manifest.step, manifest.files.len(), manifest.files[1].bytes), (4, 2, 3));
        assert!(!folder.path().join("step-4.tmp").exists());
    }

    #[test]
    fn a_failed_write_leaves_what_was_there() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), 4, &[("a", b"12")]).unwrap();
        write(folder.path(), 4, &[("a", b"new"), ("missing/folder", b"")]).unwrap_err();
        assert_eq!(fs::read(folder.path().join("step-4/a")).unwrap(), b"12");
        assert!(!folder.path().join("step-4.tmp").exists());
    }

    #[test]
    fn a_damaged_one_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), 4, &[("a", b"12")]).unwrap();
        write(folder.path(), 4, &[("a", b"34")]).unwrap();
        assert_eq!(fs::read(folder.path().join("step-4/a")).unwrap(), b"34");
    }
}
