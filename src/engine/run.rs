//! One attempt, from its folder to its last line.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use finetuned_protocol::engine::EXIT_FAILED;

use crate::{
    control::{Control, Interrupt},
    ending::conclude,
    error::EngineError,
    evaluate::evaluate,
    events::{CopyTo, EventLog},
    job::JobFolder,
    session::Session,
    setup,
    watch::Watch,
};

/// What is done in a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    Train,
    /// Base and published model are asked again.
    Evaluate,
}

/// Works as the folder says and returns the exit status. Whatever happens, the event log ends with a line that says
/// so; only an orphan ends without a word.
pub fn run(work: Work, folder: &Path, control: &Control, copy: CopyTo) -> i32 {
    let mut log = match EventLog::open(folder, copy) {
        Ok(log) => log,
        Err(error) => {
            tracing::error!(%error, "the event log cannot be opened");
            return EXIT_FAILED;
        }
    };
    let mut step = None;
    let outcome = catch_unwind(AssertUnwindSafe(|| match work {
        Work::Train => train(folder, control, &mut log, &mut step),
        Work::Evaluate => evaluate(folder, control, &mut log),
    }));
    conclude(&mut log, step, outcome)
}

/// `step` follows the last whole step.
fn train(folder: &Path, control: &Control, log: &mut EventLog, step: &mut Option<u32>) -> Result<(), EngineError> {
    let folder = JobFolder::open(folder)?;
    let mut watch = Watch::new(control, log);
    let setup = setup::set_up(&folder, &mut watch)?;
    let mut session = Session::new(&folder, setup, watch, step);
    match session.go() {
        Err(EngineError::Interrupted(Interrupt::Stop)) => {
            session.checkpoint_unless_there()?;
            Err(Interrupt::Stop.into())
        }
        other => other,
    }
}
