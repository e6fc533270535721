//! What the reference gives the answers of a preference job: computed once before the first step, kept in every checkpoint,
//! since a model that is trained itself is no longer what it was.

use std::path::Path;

use finetuned_dataset::{Encoded, Prepared};
use finetuned_model::{Adapter, CausalLm, tensor_file};
use finetuned_protocol::{
    engine::Phase,
    objective::{DpoSpec, ObjectiveSpec},
};
use finetuned_torch::Tensor;

use crate::{
    checkpoint::{Found, REFERENCE},
    error::EngineError,
    preference::{PairScore, score_all},
    tensors::Named,
    watch::Watch,
};

/// Log-probabilities of all pairs under the reference.
#[derive(Debug, Default, PartialEq)]
pub struct Reference {
    /// As many as training rows.
    pub train: Vec<PairScore>,
    /// As many as held-out rows.
    pub held_out: Vec<PairScore>,
}

/// What a job learns, and from what.
#[derive(Debug)]
pub enum Objective {
    Supervised,
    /// The reference is `None` until it was asked.
    Dpo(DpoSpec, Option<Reference>),
}

impl Objective {
    /// # Errors
    /// A checkpoint without the reference's figures of these rows.
    pub fn new(spec: ObjectiveSpec, found: Option<&Found>, prepared: &Prepared) -> Result<Self, EngineError> {
        let ObjectiveSpec::Dpo(spec) = spec else { return Ok(Self::Supervised) };
        let path = found.map(|found| (found, found.folder.join(REFERENCE)));
        // Stopped before the reference was asked, a run has not taken a step.
        let Some((found, path)) = path.filter(|(found, path)| found.step > 0 || path.exists()) else {
            return Ok(Self::Dpo(spec, None));
        };
        let reference = Reference::load(&path)?;
        let has = (reference.train.len(), reference.held_out.len());
        if has != (prepared.train.len(), prepared.held_out.len()) {
            let message = format!("the reference's figures are of {} and {} pairs", has.0, has.1);
            return Err(EngineError::Resume { step: found.step, message });
        }
        Ok(Self::Dpo(spec, Some(reference)))
    }

    /// Asks the reference, where it was not asked yet: `model` with `adapter`, neither of them trained so far.
    ///
    /// # Errors
    /// The model's, or the reason to break off.
    pub fn ask_reference(
        &mut self,
        (model, adapter): (&CausalLm, Option<&Adapter>),
        prepared: &Prepared,
        size: usize,
        watch: &mut Watch,
    ) -> Result<(), EngineError> {
        let Self::Dpo(_, reference @ None) = self else { return Ok(()) };
        let train: Vec<&Encoded> = prepared.train.iter().collect();
        let held_out: Vec<&Encoded> = prepared.held_out.iter().map(|row| &row.encoded).collect();
        let total = (train.len() + held_out.len()) as u64;
        let mut scored = Reference::default();
        for (rows, scores) in [(&train, &mut scored.train), (&held_out, &mut scored.held_out)] {
            let before = if std::ptr::eq(rows, &train) { 0 } else { train.len() as u64 };
            *scores = score_all(model, adapter, rows, size, |done| {
                watch.tick(Phase::ScoringReference, before + done, total)
            })?;
        }
        watch.tick(Phase::ScoringReference, total, total)?;
        *reference = Some(scored);
        Ok(())
    }

    /// What a checkpoint must hold beside weights and moments.
    pub fn reference(&self) -> Option<&Reference> {
        match self {
            Self::Dpo(_, reference) => reference.as_ref(),
            Self::Supervised => None,
        }
    }
}

impl Reference {
    /// Two columns, the better answers' and the others'; f64, so that nothing is lost.
    pub fn tensors(&self) -> Result<Vec<Named>, EngineError> {
        let named = |name: &str, scores: &[PairScore]| -> Result<Named, EngineError> {
            let values: Vec<f64> = scores.iter().flat_map(|score| [score.chosen, score.rejected]).collect();
            Ok((name.to_owned(), Tensor::f_from_slice(&values)?.f_reshape([scores.len() as i64, 2])?))
        };
        Ok(vec![named("train", &self.train)?, named("held_out", &self.held_out)?])
    }

    fn load(path: &Path) -> Result<Self, EngineError> {
        let mut reference = Self::default();
        for (name, tensor) in tensor_file::load(path)? {
            let values = Vec::<f64>::try_from(tensor.f_flatten(0, -1)?)?;
            let scores = values.chunks_exact(2).map(|pair| PairScore { chosen: pair[0], rejected: pair[1] }).collect();
            match name.as_str() {
                "train" => reference.train = scores,
                "held_out" => reference.held_out = scores,
                _ => return Err(EngineError::Internal(format!("`{name}` is no figure of the reference"))),
            }
        }
        Ok(reference)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn figures_come_back_to_the_bit() {
        let score = |n: i32| PairScore { chosen: -f64::from(n) / 3.0, rejected: -1e-17 * f64::from(n) };
        for held_out in [0, 2] {
            let reference =
                Reference { train: (0..5).map(score).collect(), held_out: (0..held_out).map(score).collect() };
            let file = tempfile::NamedTempFile::new().unwrap();
            tensor_file::save(file.path(), &reference.tensors().unwrap()).unwrap();
            assert_eq!(Reference::load(file.path()).unwrap(), reference);
        }
    }
}
