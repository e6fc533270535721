//! The last line of a run, and the status it ends with.

use std::any::Any;

use finetuned_protocol::{
    engine::{EXIT_FAILED, EXIT_OK, EXIT_ORPHANED, EXIT_SUSPENDED, EngineEvent},
    error::{ErrorCode, JobError},
};

use crate::{control::Interrupt, error::EngineError, events::EventLog};

/// How a run came to its end: its own result, or the panic that ended it.
pub type Outcome = std::thread::Result<Result<(), EngineError>>;

/// Writes the line that an end deserves and returns the exit status. `step` is the last whole step, `None` before the
/// first.
pub fn conclude(log: &mut EventLog, step: Option<u32>, outcome: Outcome) -> i32 {
    let (event, status) = match outcome {
        Ok(Ok(())) => return EXIT_OK,
        Ok(Err(error)) => ending_of(&error, step),
        Err(panic) => (Some(failure(panic_error(panic.as_ref()), step)), EXIT_FAILED),
    };
    let Some(event) = event else { return status };
    if let Err(error) = log.emit(event) {
        // The status still tells it.
        tracing::error!(%error, "the last line could not be written");
    }
    status
}

fn ending_of(error: &EngineError, step: Option<u32>) -> (Option<EngineEvent>, i32) {
    let done = step.unwrap_or(0);
    match error {
        EngineError::Interrupted(Interrupt::Orphaned) => (None, EXIT_ORPHANED),
        EngineError::Interrupted(Interrupt::Stop) => (Some(EngineEvent::Stopped { step: done }), EXIT_OK),
        EngineError::Interrupted(Interrupt::Cancel) => (Some(EngineEvent::Cancelled { step: done }), EXIT_OK),
        error if error.is_mendable() => {
            tracing::error!(%error, "suspended");
            (Some(EngineEvent::Suspended { step: done, error: error.to_job_error() }), EXIT_SUSPENDED)
        }
        error => {
            tracing::error!(%error, "failed");
            (Some(failure(error.to_job_error(), step)), EXIT_FAILED)
        }
    }
}

fn failure(error: JobError, step: Option<u32>) -> EngineEvent {
    EngineEvent::Failed { step, error }
}

/// libtorch's faults arrive as panics where its binding has no other way; running out of memory is told apart.
fn panic_error(panic: &(dyn Any + Send)) -> JobError {
    let message = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("the engine panicked");
    let first_line = message.lines().next().unwrap_or_default();
    let memory = ["out of memory", "can't allocate memory", "not enough memory"];
    if memory.iter().any(|phrase| message.contains(phrase)) {
        return JobError::new(ErrorCode::OutOfMemory, first_line).hint("lower `micro_batch_size` or `max_seq_len`");
    }
    JobError::new(ErrorCode::InternalError, format!("the engine panicked: {first_line}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use crate::disk::DiskError;
    use std::{fs, io, panic::catch_unwind};

    fn conclusion(outcome: Outcome) -> (String, i32) {
        let folder = tempfile::tempdir().unwrap();
        let mut log = EventLog::open(folder.path(), Box::new(|_, _| {})).unwrap();
        let status = conclude(&mut log, Some(3), outcome);
        (fs::read_to_string(folder.path().join("events.jsonl")).unwrap(), status)
    }

    #[test]
    fn every_end_has_its_line_and_its_status() {
        let disk = |code| DiskError { doing: "writing", path: "x".into(), source: io::Error::from_raw_os_error(code) };
        let cases: [(EngineError, &str, i32); 5] = [
            (Interrupt::Stop.into(), "\"type\":\"stopped\",\"step\":3", EXIT_OK),
            (Interrupt::Cancel.into(), "\"type\":\"cancelled\",\"step\":3", EXIT_OK),
            (
                disk(libc::ENOSPC).into(),
                "\"type\":\"suspended\",\"step\":3,\"error\":{\"code\":\"out_of_disk_space\"",
                EXIT_SUSPENDED,
            ),
            (
                disk(libc::EACCES).into(),
                "\"type\":\"failed\",\"step\":3,\"error\":{\"code\":\"internal_error\"",
                EXIT_FAILED,
            ),
            (
                EngineError::NonFinite { step: 3, in_a_row: 3, tensor: "the loss".into() },
                "\"type\":\"failed\",\"step\":3,\"error\":{\"code\":\"non_finite\"",
                EXIT_FAILED,
            ),
        ];
        for (error, line, status) in cases {
            let (text, got) = conclusion(Ok(Err(error)));
            assert!(text.contains(line), "{text}");
            assert_eq!(got, status);
        }
    }

    #[test]
    fn an_orphan_says_nothing() {
        assert_eq!(conclusion(Ok(Err(Interrupt::Orphaned.into()))), (String::new(), EXIT_ORPHANED));
        assert_eq!(conclusion(Ok(Ok(()))), (String::new(), EXIT_OK));
    }

    #[test]
    fn a_panic_becomes_a_cause() {
        let (text, status) = conclusion(catch_unwind(|| panic!("index {}", 7)));
        assert!(text.contains("internal_error") && text.contains("index 7"), "{text}");
        assert_eq!(status, EXIT_FAILED);
        let (text, _) = conclusion(catch_unwind(|| panic!("CUDA out of memory. Tried to allocate")));
        assert!(text.contains("out_of_memory"), "{text}");
    }
}
