//! Why there is no Postgres, and what to do about it.

use std::path::{Path, PathBuf};

/// Why the embedded Postgres could not be run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EmbeddedError {
    /// A file or folder could not be made, read or changed.
    #[error("{doing} {}: {source}", path.display())]
    Io { doing: &'static str, path: PathBuf, source: std::io::Error },
    /// The runtime has not been fetched.
    #[error("there is no Postgres at {}; run `make runtime`, or set FINETUNED_DATABASE_URL", path.display())]
    NoPrograms { path: PathBuf },
    /// Started by root, and no other identity can run Postgres here.
    #[error(
        "Postgres refuses to run as root, and nobody else can run it here ({tried}); start as an ordinary user, add a \
         user `finetuned`, or set FINETUNED_DATABASE_URL"
    )]
    NoIdentity { tried: String },
    /// The cluster belongs to somebody else.
    #[error(
        "{} belongs to user {owner}, but this process runs as user {own}; start it as that user or as root",
        cluster.display()
    )]
    NotOurs { cluster: PathBuf, owner: u32, own: u32 },
    /// The folder of the socket was made by somebody else, or others can enter it.
    #[error("{} is not a private folder of user {expected}; remove it", path.display())]
    SocketFolder { path: PathBuf, expected: u32 },
    /// The cluster was made by another major version of Postgres.
    #[error(
        "the data directory {} was written by Postgres {found}, which is {} than this one's {ours}; use a `finetuned` \
         whose Postgres has version {found}, or dump the data there and restore it here",
        cluster.display(),
        if is_newer(found, ours) { "newer" } else { "older" }
    )]
    OtherVersion { cluster: PathBuf, found: String, ours: String },
    /// A program of Postgres failed.
    #[error("{program} failed ({status}): {output}")]
    Failed { program: &'static str, status: String, output: String },
    /// Postgres was started, but did not take connections in time.
    #[error("Postgres did not take connections within {seconds} s: {reason}; its log ends with:\n{log}")]
    NotReady { seconds: u64, reason: String, log: String },
    /// Another process has been starting or stopping this Postgres for too long.
    #[error("another process holds {} for more than {seconds} s", path.display())]
    Locked { path: PathBuf, seconds: u64 },
    /// The cluster is there, but its password is not.
    #[error("{} is missing, so the cluster beside it cannot be opened; restore it from a backup", path.display())]
    NoPassword { path: PathBuf },
    /// The runtime ended while Postgres was being prepared.
    #[error("preparing Postgres was interrupted: {0}")]
    Interrupted(String),
}

/// Compares major versions; what is no number is of a time to come.
fn is_newer(found: &str, ours: &str) -> bool {
    let major = |text: &str| text.trim().parse::<u32>().unwrap_or(u32::MAX);
    major(found) > major(ours)
}

/// Names the path in an I/O error.
pub(super) fn io<'a>(doing: &'static str, path: &'a Path) -> impl FnOnce(std::io::Error) -> EmbeddedError + 'a {
    move |source| EmbeddedError::Io { doing, path: path.to_owned(), source }
}
