//! The causes of attempts that broke, in words.

use std::{path::Path, time::Duration};

use finetuned_protocol::error::{ErrorCode, JobError};

use crate::{engine::EngineExit, tail::last_lines};

/// Lines of the engine's log that go with a cause.
const LOG_LINES: usize = 20;
const LOG_BYTES: u64 = 16 * 1024;

/// The engine died without a last word.
pub fn died(exit: EngineExit, step: u32, killed_for_memory: bool, log: &Path) -> JobError {
    let error = if exit.was_killed() && killed_for_memory {
        let message = format!("The system killed the engine for memory after step {step} ({exit})");
        JobError::new(ErrorCode::OutOfMemory, message)
            .hint("Lower `micro_batch_size` or `max_seq_len`, or use a worker with more memory.")
    } else {
        JobError::new(ErrorCode::EngineCrashed, format!("The engine died after step {step} by {exit}"))
    };
    with_log(error.after_step(step), log)
}

/// The watchdog killed the engine.
pub fn stuck(silence: Duration, step: u32, log: &Path) -> JobError {
    let message =
        format!("The engine made no progress for {} seconds after step {step}, and was killed", silence.as_secs());
    with_log(JobError::new(ErrorCode::EngineStuck, message).after_step(step), log)
}

/// The engine says that it finished, and exported nothing.
pub fn without_adapter() -> JobError {
    JobError::new(ErrorCode::InternalError, "The engine finished without an adapter")
}

/// A part of the worker ended by a fault of this program.
pub fn broken_off() -> JobError {
    JobError::new(ErrorCode::InternalError, "The worker broke off; its log has the cause")
}

fn with_log(error: JobError, log: &Path) -> JobError {
    let details = last_lines(log, LOG_LINES, LOG_BYTES).into_iter().map(Into::into).collect();
    JobError { details, ..error }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_crash_names_step_signal_and_last_lines() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("engine.log");
        let lines: Vec<String> = (1..=30).map(|line| format!("line {line}")).collect();
        std::fs::write(&log, lines.join("\n")).unwrap();
        let error = died(EngineExit::Signal(11), 12, false, &log);
        assert_eq!(error.code, ErrorCode::EngineCrashed);
        assert_eq!(error.message, "The engine died after step 12 by signal 11 (segmentation fault)");
        assert_eq!(error.step, Some(12));
        assert_eq!((error.details.len(), &error.details[19]), (20, &"line 30".into()));
        assert_eq!(died(EngineExit::Status(1), 0, true, &log).code, ErrorCode::EngineCrashed);
        assert_eq!(died(EngineExit::Signal(9), 0, true, &log).code, ErrorCode::OutOfMemory);
    }
}
