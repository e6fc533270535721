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

    /// The same without bare errors of files and the store: a full disk suspends, anything else is a crash.
    pub fn classified(self) -> Self {
        match &self {
            Self::Io { source, .. } if is_out_of_space(source) => self.suspended(),
            Self::Store { source, .. } if is_out_of_space(source) => self.suspended(),
            Self::Io { .. } | Self::Store { .. } => {
                // The cause stays in the log: it may name paths of this host.
                tracing::error!(error = %self, "an attempt broke off");
                Self::Crashed(JobError::new(ErrorCode::InternalError, "The worker broke off; its log has the cause"))
            }
            _ => self,
        }
    }

    fn suspended(self) -> Self {
        tracing::warn!(error = %self, "no space left");
        Self::Suspended(out_of_space())
    }
}

/// Why a job waits for room on a disk.
pub fn out_of_space() -> JobError {
    JobError::new(ErrorCode::OutOfDiskSpace, "No space was left for the job's files")
        .hint("Make room on the worker's disk or in the blob store, then resume the job.")
}

/// Whether a full disk or quota lies at the bottom of `error`.
pub fn is_out_of_space(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            let full = matches!(io.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
            // An `io::Error` may wrap another that says it.
            if full || io.get_ref().is_some_and(|inner| is_out_of_space(inner)) {
                return true;
            }
        }
        next = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("wrapped")]
    struct Wrapped(#[source] io::Error);

    #[test]
    fn a_full_disk_is_found_however_deep() {
        let full = || io::Error::from(io::ErrorKind::StorageFull);
        assert!(is_out_of_space(&full()));
        assert!(is_out_of_space(&Wrapped(full())));
        assert!(is_out_of_space(&io::Error::other(Wrapped(full()))));
        let blob = StoreError::Blob { doing: "writing a blob", source: Box::new(Wrapped(full())) };
        assert!(is_out_of_space(&blob));
        assert!(!is_out_of_space(&Wrapped(io::Error::from(io::ErrorKind::NotFound))));
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
    }
}
