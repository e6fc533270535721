//! How an engine ended, in words.

use std::{fmt, os::unix::process::ExitStatusExt, process::ExitStatus};

use finetuned_protocol::engine::{EXIT_ORPHANED, EXIT_SUSPENDED};

/// The end of an engine's process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EngineExit {
    Status(i32),
    Signal(i32),
}

impl EngineExit {
    /// Whether the engine took its worker for dead, which says nothing against the engine.
    pub fn was_orphaned(self) -> bool {
        self == Self::Status(EXIT_ORPHANED)
    }

    /// Whether the engine waits for a person to mend something. On a full disk the status may be its only word.
    pub fn was_suspended(self) -> bool {
        self == Self::Status(EXIT_SUSPENDED)
    }

    /// Whether the kernel may have killed it for memory: it uses this signal.
    pub fn was_killed(self) -> bool {
        self == Self::Signal(9)
    }
}

impl From<ExitStatus> for EngineExit {
    fn from(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::Status(code),
            (None, signal) => Self::Signal(signal.unwrap_or(0)),
        }
    }
}

impl fmt::Display for EngineExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(code) => write!(f, "exit status {code}"),
            Self::Signal(number) => write!(f, "signal {number} ({})", signal_name(*number)),
        }
    }
}

fn signal_name(number: i32) -> &'static str {
    match number {
        4 => "illegal instruction",
        6 => "abort",
        7 => "bus error",
        8 => "arithmetic error",
        9 => "killed",
        11 => "segmentation fault",
        15 => "terminated",
        _ => "unusual",
    }
}
