//! Who starts, who stops, who uses: advisory locks on files of the data directory, which end with their holder.

use std::{
    fs::{File, OpenOptions},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::fs::{FlockOperation, flock};

use super::error::{EmbeddedError, io};

/// Longest wait for another process that starts (and perhaps recovers) or stops the cluster.
const WAIT: Duration = Duration::from_secs(120);

/// A lock that is let go when it is dropped.
#[derive(Debug)]
pub(super) struct Held(#[expect(dead_code, reason = "closing the file lets go of the lock")] File);

/// Taken while the cluster is started or stopped.
#[derive(Debug)]
pub(crate) struct StartLock(#[expect(dead_code, reason = "closing the file lets go of the lock")] Held);

fn open(path: &Path) -> Result<File, EmbeddedError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options.open(path).map_err(io("opening", path))
}

fn try_lock(path: &Path, how: FlockOperation) -> Result<Option<Held>, EmbeddedError> {
    let file = open(path)?;
    match flock(&file, how) {
        Ok(()) => Ok(Some(Held(file))),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(io("locking", path)(error.into())),
    }
}

fn users_file(data_dir: &Path) -> PathBuf {
    data_dir.join("postgres.users.lock")
}

impl StartLock {
    pub(crate) async fn take(data_dir: &Path) -> Result<Self, EmbeddedError> {
        std::fs::create_dir_all(data_dir).map_err(io("making", data_dir))?;
        let path = data_dir.join("postgres.start.lock");
        let deadline = Instant::now() + WAIT;
        loop {
            if let Some(held) = try_lock(&path, FlockOperation::NonBlockingLockExclusive)? {
                return Ok(Self(held));
            }
            if Instant::now() > deadline {
                return Err(EmbeddedError::Locked { path, seconds: WAIT.as_secs() });
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Says that this process uses the cluster. Whoever wants to be alone holds the start lock, as our caller does.
pub(super) fn share_use(data_dir: &Path) -> Result<Held, EmbeddedError> {
    let path = users_file(data_dir);
    try_lock(&path, FlockOperation::NonBlockingLockShared)?.ok_or(EmbeddedError::Locked { path, seconds: 0 })
}

/// Whether no process uses the cluster any more.
pub(super) fn try_alone(data_dir: &Path) -> Result<Option<Held>, EmbeddedError> {
    try_lock(&users_file(data_dir), FlockOperation::NonBlockingLockExclusive)
}
