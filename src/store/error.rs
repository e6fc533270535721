//! What can go wrong below HTTP; nothing here knows of HTTP.

use crate::{Quota, blobs::READING, embedded::EmbeddedError};

/// Why a call of the store failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// No such object, or not one of this tenant.
    #[error("{what} was not found")]
    NotFound {
        /// What was looked for, such as `job` or `training_file`.
        what: &'static str,
    },
    /// The object's state does not allow it.
    #[error("{message}")]
    Conflict { message: String },
    /// The tenant has used up what the operator gives it.
    #[error("{quota}: {used} of {limit} are used")]
    QuotaExceeded { quota: Quota, limit: u64, used: u64 },
    /// An `Idempotency-Key` came again with another request.
    #[error("this Idempotency-Key was used before with another request")]
    IdempotencyMismatch,
    /// The lease's epoch has passed: the task was taken back, cancelled or finished. Stop the work.
    #[error("the lease of this task is no longer ours")]
    LeaseLost,
    /// Postgres did not answer in time or is away; the same call may succeed later.
    #[error("the database is away, while {doing}: {reason}")]
    Unavailable { doing: &'static str, reason: String },
    /// The database was written by a newer version of this program.
    #[error(
        "the database has schema version {found}, but this program knows versions up to {known}; \
         use a newer `finetuned`, or another database"
    )]
    NewerSchema { found: i64, known: i64 },
    /// The schema could not be brought up to date.
    #[error("the schema could not be migrated: {0}")]
    Migration(#[source] Box<sqlx::migrate::MigrateError>),
    /// Bytes could not be stored or read.
    #[error("{doing}: {source}")]
    Blob { doing: &'static str, source: Box<dyn std::error::Error + Send + Sync> },
    /// A stream of bytes was longer than the caller allows.
    #[error("more than {limit_bytes} bytes came")]
    TooLarge { limit_bytes: u64 },
    /// Stored bytes are not those that were written.
    #[error("stored bytes of blob {blob} have sha256 {found}, not {expected}")]
    Corrupt { blob: String, expected: String, found: String },
    /// A row holds what this program cannot read.
    #[error("{what} in the database cannot be read: {reason}")]
    Unreadable { what: &'static str, reason: String },
    /// The database refused a statement; a fault of this program.
    #[error("{doing}: {source}")]
    Database { doing: &'static str, source: sqlx::Error },
    /// The embedded Postgres could not be run.
    #[error(transparent)]
    Embedded(#[from] EmbeddedError),
}

impl StoreError {
    /// Whether the same call may succeed later without anyone's doing.
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }

    /// Whether bytes that were stored are gone, damaged or cannot be read.
    pub fn is_of_stored_bytes(&self) -> bool {
        match self {
            Self::Corrupt { .. } | Self::NotFound { what: "blob" } => true,
            Self::Blob { doing, .. } => *doing == READING,
            _ => false,
        }
    }

    pub(crate) fn conflict(message: impl Into<String>) -> Self {
        Self::Conflict { message: message.into() }
    }

    pub(crate) fn blob(doing: &'static str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Blob { doing, source: source.into() }
    }

    /// The same error with the words of the call it happened in.
    pub(crate) fn while_doing(self, words: &'static str) -> Self {
        match self {
            Self::Unavailable { reason, .. } => Self::Unavailable { doing: words, reason },
            Self::Database { source, .. } => Self::Database { doing: words, source },
            other => other,
        }
    }
}

/// SQLSTATE classes and codes that speak of the server's condition and not of the statement: connection failures (08),
/// insufficient resources (53), operator intervention and timeouts (57), lock timeouts (55P03), deadlocks and
/// serialisation failures (40), a transaction left idle (25P03).
fn is_transient(code: &str) -> bool {
    matches!(code.get(..2), Some("08" | "53" | "57" | "40")) || code == "55P03" || code == "25P03"
}

/// Whether a text of the caller's held what no text of Postgres can.
fn is_zero_byte(source: &sqlx::Error) -> bool {
    let code = source.as_database_error().and_then(|error| error.code());
    code.is_some_and(|code| code == "22021" || code == "22P05")
}

impl From<sqlx::Error> for StoreError {
    fn from(source: sqlx::Error) -> Self {
        let away = match &source {
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => true,
            sqlx::Error::Database(error) => error.code().is_some_and(|code| is_transient(&code)),
            _ => false,
        };
        if is_zero_byte(&source) {
            return Self::conflict("a text with a zero byte cannot be stored or looked for");
        }
        if away {
            Self::Unavailable { doing: "using the database", reason: source.to_string() }
        } else {
            Self::Database { doing: "using the database", source }
        }
    }
}
