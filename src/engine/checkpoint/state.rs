//! What a run must know to go on where it was.

use finetuned_protocol::{engine::EngineJob, evaluation::LikelihoodAtStep};
use serde::{Deserialize, Serialize};

use crate::selection::Selection;

/// A checkpoint that belongs to something else.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    #[error("the checkpoint of step {0} was made on another base model")]
    Model(u32),
    #[error("the checkpoint of step {0} was made on another training or validation file")]
    Data(u32),
    #[error("the checkpoint of step {0} was made with other settings")]
    Settings(u32),
}

/// What a checkpoint was made of; a run resumes only what was made of the same.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Origin {
    pub base_model_sha256: String,
    pub training_file_sha256: String,
    pub validation_file_sha256: Option<String>,
    /// The settings as JSON text: text compares exactly where a number read back may differ in its last digit.
    pub settings: String,
}

impl Origin {
    /// # Errors
    /// Settings that JSON cannot spell.
    pub fn of(job: &EngineJob) -> Result<Self, serde_json::Error> {
        Ok(Self {
            base_model_sha256: job.base_model_sha256.clone(),
            training_file_sha256: job.training_file_sha256.clone(),
            validation_file_sha256: job.validation_file_sha256.clone(),
            settings: serde_json::to_string(&job.spec)?,
        })
    }
}

/// A model's answer to a held-out prompt; the base model's are kept, so that a resumed run need not ask again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedAnswer {
    /// Line of the row in its file, counted from 1.
    pub line: u64,
    pub text: String,
    /// Whether it ended by itself.
    pub ended: bool,
}

/// `state.json` of a checkpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckpointState {
    /// Steps done; the position in the data follows from it and the settings.
    pub step: u32,
    /// Updates that the optimiser made: steps less the skipped ones. Its bias correction counts these.
    pub updates: u32,
    /// Steps skipped in a row, up to now, because the loss or a gradient was not finite.
    pub skipped_in_a_row: u32,
    /// Real tokens trained on.
    pub trained_tokens: u64,
    pub train_loss: Option<f64>,
    pub train_mean_token_accuracy: Option<f64>,
    /// Every evaluation up to now, step 0 first.
    pub history: Vec<LikelihoodAtStep>,
    /// How far the choice of the weights to export is.
    #[serde(default)]
    pub selection: Selection,
    /// `None` until the base model has answered.
    pub base_answers: Option<Vec<SavedAnswer>>,
    /// Bytes are only equal with the same thread count, micro-batch, instruction set and device.
    pub threads: u32,
    /// Of the steps to come: less than the settings say where memory ran out.
    pub micro_batch_size: u32,
    pub instruction_set: String,
    /// `cpu` or `cuda`.
    pub device: String,
    pub origin: Origin,
}

impl CheckpointState {
    /// Refuses to go on with another model, other data or other settings.
    ///
    /// # Errors
    /// What differs.
    pub fn check_origin(&self, origin: &Origin) -> Result<(), StateError> {
        let Origin { base_model_sha256, training_file_sha256, validation_file_sha256, settings } = origin;
        if self.origin.base_model_sha256 != *base_model_sha256 {
            return Err(StateError::Model(self.step));
        }
        let same_training = self.origin.training_file_sha256 == *training_file_sha256;
        if !same_training || self.origin.validation_file_sha256 != *validation_file_sha256 {
            return Err(StateError::Data(self.step));
        }
        if self.origin.settings != *settings {
            return Err(StateError::Settings(self.step));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use crate::testing;

    #[test]
    fn a_state_survives_its_file() {
        let mut state = testing::state();
        state.train_loss = Some(0.25);
        let text = serde_json::to_string(&state).unwrap();
        assert_eq!(serde_json::from_str::<CheckpointState>(&text).unwrap(), state);
    }

    #[test]
    fn another_origin_is_refused_by_name() {
        let state = testing::state();
        assert_eq!(state.check_origin(&state.origin), Ok(()));
        let check = |change: fn(&mut Origin)| {
            let mut origin = state.origin.clone();
            change(&mut origin);
            state.check_origin(&origin).unwrap_err()
        };
        assert_eq!(check(|o| o.base_model_sha256 = "x".into()), StateError::Model(state.step));
        assert_eq!(check(|o| o.training_file_sha256 = "x".into()), StateError::Data(state.step));
        assert_eq!(check(|o| o.validation_file_sha256 = Some("x".into())), StateError::Data(state.step));
        assert_eq!(check(|o| o.settings.push(' ')), StateError::Settings(state.step));
    }
}
