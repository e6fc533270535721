//! Folders of attempts: each is held by a lock for as long as its worker lives, so that another can clear up after it.

use std::{
    fs::{self, File},
    io::{self, ErrorKind},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::fs::{FlockOperation, flock};

/// Ending of the lock that stands beside a folder of the same name.
const LOCK_ENDING: &str = "lock";
const TRIES: u32 = 10;
const BETWEEN_TRIES: Duration = Duration::from_millis(5);

/// A folder that this process works in. Dropping it removes it and all that is in it.
#[derive(Debug)]
pub struct AttemptFolder {
    path: PathBuf,
    lock_path: PathBuf,
    _lock: File,
}

impl AttemptFolder {
    /// Makes an empty folder `name` in `work_dir`, whose lock is taken before the folder is there to be found.
    ///
    /// # Errors
    /// A folder that cannot be made, or a name that another process holds.
    pub fn create(work_dir: &Path, name: &str) -> io::Result<Self> {
        fs::create_dir_all(work_dir)?;
        let path = work_dir.join(name);
        let lock_path = lock_of(&path);
        let lock = lock(&lock_path)?;
        remove(&path)?;
        fs::create_dir(&path)?;
        Ok(Self { path, lock_path, _lock: lock })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }
}

impl Drop for AttemptFolder {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.path).and_then(|()| fs::remove_file(&self.lock_path)) {
            tracing::warn!(folder = %self.path.display(), %error, "could not remove an attempt's folder");
        }
    }
}

/// Removes the folders in `work_dir` that no living process holds; says how many.
///
/// # Errors
/// A `work_dir` that cannot be read. A folder that cannot be removed is logged and left.
pub fn remove_leftovers(work_dir: &Path) -> io::Result<usize> {
    let entries = match fs::read_dir(work_dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error),
    };
    let mut removed = 0;
    for entry in entries {
        let path = entry?.path();
        let is_lock = path.extension().is_some_and(|ending| ending == LOCK_ENDING);
        let folder = if is_lock { path.with_extension("") } else { path };
        match remove_leftover(&folder) {
            Ok(true) => removed += 1,
            Ok(false) => {}
            Err(error) => tracing::warn!(folder = %folder.display(), %error, "could not remove a leftover folder"),
        }
    }
    Ok(removed)
}

/// Folders in `work_dir` that attempts of any process have made.
///
/// # Errors
/// A `work_dir` that cannot be read.
pub fn attempts(work_dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut folders = Vec::new();
    for entry in fs::read_dir(work_dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == LOCK_ENDING) {
            folders.push(path.with_extension(""));
        }
    }
    Ok(folders)
}

/// `false` where its lock is held, or nothing is left of it.
fn remove_leftover(folder: &Path) -> io::Result<bool> {
    let lock_path = lock_of(folder);
    let Ok(lock) = File::open(&lock_path) else { return Ok(false) };
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) if is_at(&lock, &lock_path) => {}
        // Another one cleared up.
        Ok(()) => return Ok(false),
        Err(rustix::io::Errno::WOULDBLOCK) => return Ok(false),
        Err(error) => return Err(error.into()),
    }
    remove(folder)?;
    fs::remove_file(&lock_path)?;
    Ok(true)
}

/// Takes the lock of a new folder. Somebody who clears up may hold it for a moment, and remove it: then it is made again.
fn lock(path: &Path) -> io::Result<File> {
    let mut refused = None;
    for _ in 0..TRIES {
        let lock = File::create(path)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) if is_at(&lock, path) => return Ok(lock),
            Ok(()) => {}
            Err(error) => refused = Some(error),
        }
        std::thread::sleep(BETWEEN_TRIES);
    }
    Err(refused.map_or_else(|| io::Error::from(ErrorKind::NotFound), io::Error::from))
}

/// Whether the file is still the one of that name.
fn is_at(file: &File, path: &Path) -> bool {
    let identity = |data: fs::Metadata| (data.dev(), data.ino());
    file.metadata().ok().map(identity) == fs::metadata(path).ok().map(identity)
}

fn lock_of(folder: &Path) -> PathBuf {
    folder.with_extension(LOCK_ENDING)
}

fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_folder_ends_with_its_holder() {
        let work = tempfile::tempdir().unwrap();
        let folder = AttemptFolder::create(work.path(), "task-1").unwrap();
        fs::write(folder.join("data"), "x").unwrap();
        assert_eq!(names(work.path()), ["task-1", "task-1.lock"]);
        assert!(AttemptFolder::create(work.path(), "task-1").is_err(), "held by another");
        drop(folder);
        assert!(names(work.path()).is_empty());
    }

    #[test]
    fn only_what_nobody_holds_is_cleared_up() {
        let work = tempfile::tempdir().unwrap();
        let held = AttemptFolder::create(work.path(), "task-1").unwrap();
        // What a killed worker leaves: its folder, and a lock that nobody holds; once it died between the two.
        fs::create_dir_all(work.path().join("task-2/checkpoints")).unwrap();
        fs::write(work.path().join("task-2.lock"), "").unwrap();
        fs::write(work.path().join("task-3.lock"), "").unwrap();
        // Not ours to judge: no lock was ever made for it.
        fs::create_dir(work.path().join("something-else")).unwrap();
        assert_eq!(remove_leftovers(work.path()).unwrap(), 2);
        assert_eq!(names(work.path()), ["something-else", "task-1", "task-1.lock"]);
        drop(held);
    }

    #[test]
    fn no_folder_has_no_leftovers() {
        let work = tempfile::tempdir().unwrap();
        assert_eq!(remove_leftovers(&work.path().join("none")).unwrap(), 0);
    }
}
