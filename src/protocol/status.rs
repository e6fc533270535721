//! States of jobs, tasks and files.

/// A value read from the database or the wire that no variant spells.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a {kind}")]
pub struct UnknownName {
    pub text: String,
    pub kind: &'static str,
}

// `$text` is a token and not a `literal`: derives that read `rename` do not see through the group a fragment comes in.
macro_rules! named_enum {
    ($(#[$doc:meta])* $name:ident, $kind:literal { $($(#[$vdoc:meta])* $variant:ident = $text:tt),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ::serde::Serialize, ::serde::Deserialize, ::utoipa::ToSchema)]
        pub enum $name {
            $($(#[$vdoc])* #[serde(rename = $text)] $variant),+
        }

        impl $name {
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }

        impl ::std::fmt::Display for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl ::std::str::FromStr for $name {
            type Err = $crate::status::UnknownName;

            fn from_str(text: &str) -> Result<Self, $crate::status::UnknownName> {
                match text {
                    $($text => Ok(Self::$variant),)+
                    _ => Err($crate::status::UnknownName { text: text.to_owned(), kind: $kind }),
                }
            }
        }
    };
}
pub(crate) use named_enum;

named_enum!(
    /// Where a job stands. Strict clients fail on a seventh value, so a paused job is `queued` with `paused: true`.
    JobStatus, "job status" {
        ValidatingFiles = "validating_files",
        Queued = "queued",
        Running = "running",
        Succeeded = "succeeded",
        Failed = "failed",
        Cancelled = "cancelled",
    }
);

impl JobStatus {
    /// A terminal job stays what it is; a retry is a new job.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}

named_enum!(
    /// What a task does.
    TaskKind, "task kind" {
        /// Resolves a job's settings and checks its rows against the model.
        Validate = "validate",
        /// Trains, evaluates, exports and verifies.
        Train = "train",
        /// Judges a succeeded job's answers once more, by other settings.
        Evaluate = "evaluate",
    }
);

named_enum!(
    /// Where a task stands.
    TaskState, "task state" {
        /// Waits for a worker.
        Queued = "queued",
        /// Waits for a person or for a condition named in `waiting_reason` (a paused job).
        Held = "held",
        /// Leased by a worker.
        Running = "running",
        Done = "done",
        Failed = "failed",
        Cancelled = "cancelled",
    }
);

named_enum!(
    /// Where a further evaluation of a job stands.
    EvaluationRunStatus, "evaluation run status" {
        Queued = "queued",
        Running = "running",
        Succeeded = "succeeded",
        Failed = "failed",
        Cancelled = "cancelled",
    }
);

named_enum!(
    /// Where an uploaded file stands.
    FileStatus, "file status" {
        Uploaded = "uploaded",
        Processed = "processed",
        Error = "error",
    }
);

named_enum!(
    /// Where a file that comes in parts stands.
    UploadStatus, "upload status" {
        /// Takes parts.
        Pending = "pending",
        Completed = "completed",
        Cancelled = "cancelled",
        /// Not completed in its time.
        Expired = "expired",
    }
);

named_enum!(
    /// How much a person should care about an event.
    EventLevel, "event level" {
        Info = "info",
        Warn = "warn",
        Error = "error",
    }
);

named_enum!(
    /// What kind of event a client reads.
    EventType, "event type" {
        Message = "message",
        Metrics = "metrics",
    }
);
