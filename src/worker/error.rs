//! Why an attempt of a task ends without its result, and what becomes of the task then.

use std::{error::Error, io};

use finetuned_protocol::error::{ErrorCode, JobError};
use finetuned_store::StoreError;

/// Why a worker could not run or had to end.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The folder for attempts cannot be used.
    #[error("preparing the folder for attempts {folder}: {source}")]
    WorkDir { folder: String, source: io::Error },
    /// The engine's program is not there.
    #[error("the engine {program} cannot be run: {source}; name it with --engine or build it")]
    EngineProgram { program: String, source: io::Error },
    /// Requests to models cannot be answered at this address.
    #[error("listening for requests to models on {address}: {source}; choose another with --serving-listen")]
    Serving { address: std::net::SocketAddr, source: io::Error },
    /// The database refused what a worker needs.
    #[error("while {doing}: {source}")]
    Store { doing: &'static str, source: StoreError },
    /// A part of the worker ended by a fault of this program.
    #[error("a part of the worker broke off: {0}")]
    Broken(#[from] tokio::task::JoinError),
}

/// Why an attempt ends before its result.
#[derive(Debug, thiserror::Error)]
pub enum AttemptError {
    /// The task is another's or was cancelled: nothing may be written any more.
    #[error("the lease was lost")]
    LeaseLost,
    /// This worker was told to end.
    #[error("the worker was told to end")]
    Shutdown,
    /// The client's pause is fulfilled.
    #[error("paused")]
    Paused,
    /// The job cannot be done as it is.
    #[error(transparent)]
    Failed(JobError),
    /// The job can go on once something is mended.
    #[error("waiting: {0}")]
    Suspended(JobError),
    /// The attempt broke; another may do better.
    #[error("broke off: {0}")]
    Crashed(JobError),
    /// A file of the attempt could not be read or written.
    #[error("{doing}: {source}")]
    Io { doing: &'static str, source: io::Error },
    /// The store refused something.
    #[error("{doing}: {source}")]
    Store { doing: &'static str, source: StoreError },
}

impl AttemptError {
    /// For `map_err` on file operations.
    pub fn io(doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { doing, source }
    }

    /// For `map_err` on calls of the store.
    pub fn store(doing: &'static str) -> impl FnOnce(StoreError) -> Self {
        move |source| match source {
            StoreError::LeaseLost => Self::LeaseLost,
            source => Self::Store { doing, source },
        }
    }

    /// The same without bare errors of files and the store: a disk that is full or fails suspends, anything else is a
    /// crash.
    pub fn classified(self) -> Self {
        let trouble = match &self {
            Self::Io { source, .. } => disk_trouble(source),
            Self::Store { source, .. } => disk_trouble(source),
            _ => return self,
        };
        if let Some(trouble) = trouble {
            tracing::warn!(error = %self, ?trouble, "a disk stops the job");
            return Self::Suspended(trouble.told());
        }
        // The cause stays in the log: it may name paths of this host.
        tracing::error!(error = %self, "an attempt broke off");
        Self::Crashed(JobError::new(ErrorCode::InternalError, "The worker broke off; its log has the cause"))
    }
}

/// What a person can mend of a disk, so that the job may wait for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskTrouble {
    /// No space, or no more of a quota.
    Full,
    /// The device gives an input/output error.
    Failing,
}

impl DiskTrouble {
    /// Why the job waits.
    pub fn told(self) -> JobError {
        match self {
            Self::Full => JobError::new(ErrorCode::OutOfDiskSpace, "No space was left for the job's files")
                .hint("Make room on the worker's disk or in the blob store, then resume the job."),
            Self::Failing => JobError::new(
                ErrorCode::OutOfDiskSpace,
                "A disk could not be written or read: it reports an input/output error",
            )
            .hint("Mend or replace the worker's disk or that of the blob store, then resume the job."),
        }
    }
}

/// The disk's trouble that lies at the bottom of `error`, where it does.
pub fn disk_trouble(error: &(dyn Error + 'static)) -> Option<DiskTrouble> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            if matches!(io.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
                return Some(DiskTrouble::Full);
            }
            if io.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) {
                return Some(DiskTrouble::Failing);
            }
            // An `io::Error` may wrap another that says it.
            if let Some(found) = io.get_ref().and_then(|inner| disk_trouble(inner)) {
                return Some(found);
            }
        }
        next = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("wrapped")]
    struct Wrapped(#[source] io::Error);

    #[test]
    fn a_disk_that_is_full_or_fails_is_found_however_deep() {
        let full = || io::Error::from(io::ErrorKind::StorageFull);
        let failing = || io::Error::from_raw_os_error(rustix::io::Errno::IO.raw_os_error());
        for (error, trouble) in [(&full as &dyn Fn() -> io::Error, DiskTrouble::Full), (&failing, DiskTrouble::Failing)]
        {
            assert_eq!(disk_trouble(&error()), Some(trouble));
            assert_eq!(disk_trouble(&Wrapped(error())), Some(trouble));
            assert_eq!(disk_trouble(&io::Error::other(Wrapped(error()))), Some(trouble));
            let blob = StoreError::Blob { doing: "writing a blob", source: Box::new(Wrapped(error())) };
            assert_eq!(disk_trouble(&blob), Some(trouble));
        }
        assert_eq!(disk_trouble(&Wrapped(io::Error::from(io::ErrorKind::NotFound))), None);
    }

    #[test]
    fn what_is_no_full_disk_is_a_crash_without_particulars() {
        let source = io::Error::new(io::ErrorKind::PermissionDenied, "/secret/path");
        let error = AttemptError::Io { doing: "reading", source }.classified();
        let AttemptError::Crashed(error) = error else { unreachable!("{error:?}") };
        assert_eq!(error.code, ErrorCode::InternalError);
        assert!(!error.message.contains("secret"));
        let full = AttemptError::Io { doing: "writing", source: io::ErrorKind::StorageFull.into() }.classified();
        assert!(matches!(full, AttemptError::Suspended(error) if error.code == ErrorCode::OutOfDiskSpace));
        let failing = io::Error::from_raw_os_error(rustix::io::Errno::IO.raw_os_error());
        let error = AttemptError::Io { doing: "writing", source: failing }.classified();
        assert!(matches!(error, AttemptError::Suspended(error) if error.message.contains("input/output")));
    }
}
