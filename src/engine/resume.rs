//! Going on from a checkpoint.

use std::path::Path;

use finetuned_model::{Optimizer, Trainable, tensor_file};

use crate::{
    checkpoint::{ADAPTER, Found, KEPT, OPTIMIZER, Origin, Search, newest_good},
    device::Machine,
    error::EngineError,
    events::EventLog,
    tensors::{Named, overwrite},
};

/// The newest checkpoint that is whole, if there is one; damaged newer ones are told of.
///
/// # Errors
/// It was made of another model, other data or other settings.
pub fn find(folder: &Path, origin: &Origin, log: &mut EventLog) -> Result<Option<Found>, EngineError> {
    let Search { newest, damaged } = newest_good(folder)?;
    for (step, damage) in damaged {
        let message = format!("the checkpoint of step {step} is not used: {damage}");
        log.warn("checkpoint_damaged", message)?;
    }
    if let Some(found) = &newest {
        found.state.check_origin(origin)?;
    }
    Ok(newest)
}

/// Tells where the resumed run can differ from the undisturbed one in its last digits.
///
/// # Errors
/// The log cannot be written.
pub fn warn_of_another_machine(found: &Found, machine: &Machine, log: &mut EventLog) -> Result<(), EngineError> {
    let before = (found.state.device.as_str(), found.state.instruction_set.as_str());
    let now = (machine.kind(), machine.instruction_set);
    if before != now {
        let message = format!(
            "step {} was computed on {} with {}; this machine uses {} with {}, so results may differ by rounding",
            found.step, before.0, before.1, now.0, now.1
        );
        log.warn("other_machine", message)?;
    }
    Ok(())
}

/// What a checkpoint kept for the choice of weights in the end, if anything.
///
/// # Errors
/// A file that cannot be read any more.
pub fn kept(found: &Found) -> Result<Option<Vec<Named>>, EngineError> {
    let path = found.folder.join(KEPT);
    Ok(if path.exists() { Some(tensor_file::load(&path)?) } else { None })
}

/// Puts a checkpoint's tensors into what is trained and its optimiser.
///
/// # Errors
/// Files that cannot be read any more, or that do not fit.
pub fn restore(found: &Found, trainable: &Trainable, optimizer: &mut Optimizer) -> Result<(), EngineError> {
    let weights = tensor_file::load(&found.folder.join(ADAPTER))?;
    let misfit = |message| EngineError::Resume { step: found.step, message };
    overwrite(&trainable.named_state(), &weights).map_err(misfit)?;
    optimizer.load_state(found.state.updates, tensor_file::load(&found.folder.join(OPTIMIZER))?)?;
    Ok(())
}
