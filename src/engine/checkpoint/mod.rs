//! Checkpoints: whole on disk or not there at all.
//!
//! `checkpoints/step-N/` holds the adapter, the optimiser's moments, with early stopping or averaging the weights that those
//! keep, the state of the run, and last a manifest with the
//! size and sha256 of each. It is written beside its place and renamed. Nothing here removes an older checkpoint: which
//! ones may go is known by the worker, who has them in the blob store.

mod read;
mod state;
mod write;

pub use read::{Found, Search, newest_good};
pub use state::{CheckpointState, Origin, SavedAnswer, StateError};
pub use write::write;

/// Trained tensors, f32, by peft's names.
pub const ADAPTER: &str = "adapter.safetensors";
/// Moments of the optimiser.
pub const OPTIMIZER: &str = "optimizer.safetensors";
/// Tensors from which the weights to export are chosen in the end, by the names in [`ADAPTER`]; only where there is a
/// choice.
pub const KEPT: &str = "kept.safetensors";
/// What the reference of a preference job gives its answers; only such a job has it.
pub const REFERENCE: &str = "reference.safetensors";
/// A [`CheckpointState`].
pub const STATE: &str = "state.json";

const PREFIX: &str = "step-";

/// Name of the folder of a step's checkpoint.
pub fn folder_name(step: u32) -> String {
    format!("{PREFIX}{step}")
}

/// Step of a checkpoint's folder; `None` for any other name.
fn step_of(name: &str) -> Option<u32> {
    let step = name.strip_prefix(PREFIX)?.parse().ok()?;
    (folder_name(step) == name).then_some(step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_checkpoints_have_a_step() {
        assert_eq!(step_of("step-12"), Some(12));
        for other in ["step-12.tmp", "step-012", "step-", "step-+1", "adapter"] {
            assert_eq!(step_of(other), None, "{other}");
        }
    }
}
