//! Room on the disks of this host.

use std::{fs, io, os::unix::fs::MetadataExt, path::Path};

use finetuned_store::DiskRoom;

use crate::folder::{attempts, remove_leftovers};

/// Room for attempts below `work_dir` and for bytes in the store's folder. What attempts of this host hold counts as
/// room, because the whole of it is reserved for them; what ended workers left is removed first.
///
/// # Errors
/// A folder that cannot be looked at.
pub fn room(work_dir: &Path, store: &Path) -> io::Result<DiskRoom> {
    remove_leftovers(work_dir)?;
    Ok(DiskRoom {
        work_bytes: free_bytes(work_dir)?.saturating_add(held_by_attempts(work_dir)?),
        stored_bytes: free_bytes(store)?,
        is_shared: fs::metadata(work_dir)?.dev() == fs::metadata(store)?.dev(),
    })
}

/// What this process may still write.
fn free_bytes(folder: &Path) -> io::Result<u64> {
    let disk = rustix::fs::statvfs(folder)?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// Bytes on disk in the folders of attempts; whatever else lies beside them is not theirs.
fn held_by_attempts(work_dir: &Path) -> io::Result<u64> {
    Ok(attempts(work_dir)?.iter().map(|folder| held_bytes(folder)).sum())
}

/// Bytes on disk below a folder; links are not followed. What goes away meanwhile holds nothing any more.
fn held_bytes(folder: &Path) -> u64 {
    const BLOCK: u64 = 512;
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let held = |entry: fs::DirEntry| match entry.metadata() {
        Ok(data) if data.is_dir() => held_bytes(&entry.path()),
        Ok(data) if data.is_file() => data.blocks().saturating_mul(BLOCK),
        _ => 0,
    };
    entries.map(held).sum()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::folder::AttemptFolder;

    #[test]
    fn what_attempts_hold_is_room_for_them_and_leftovers_are_not_in_the_way() {
        let (work, store) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let attempt = AttemptFolder::create(work.path(), "task-1").unwrap();
        fs::create_dir(attempt.join("checkpoints")).unwrap();
        fs::write(attempt.join("checkpoints/weights"), vec![1; 3 << 20]).unwrap();
        std::os::unix::fs::symlink(attempt.join("checkpoints"), attempt.join("base")).unwrap();
        fs::create_dir(work.path().join("task-2")).unwrap();
        fs::write(work.path().join("task-2/weights"), vec![1; 1 << 20]).unwrap();
        fs::write(work.path().join("task-2.lock"), "").unwrap();
        fs::write(work.path().join("not-ours"), vec![1; 2 << 20]).unwrap();
        let found = room(work.path(), store.path()).unwrap();
        assert!(!work.path().join("task-2").exists());
        let held = held_by_attempts(work.path()).unwrap();
        assert!((3 << 20..(3 << 20) + 65536).contains(&held), "{held} bytes are held");
        assert!(found.work_bytes > held && found.stored_bytes > 0 && found.is_shared);
        assert!(room(&work.path().join("none"), store.path()).is_err());
    }
}
