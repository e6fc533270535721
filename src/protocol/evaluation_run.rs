//! A further evaluation of a succeeded job, by settings of its own.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    error::FieldError,
    evaluation_spec::{EvaluationRequest, EvaluationSpec},
    request::{AnswersRequest, check_answers},
    spec::{AnswersSpec, TrainingSpec},
};

/// What to evaluate once more, and how. What is left out is as it was for the job.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EvaluationRunRequest {
    /// Which held-out prompts to answer, and how long. Answers that the job has already are not given again.
    pub answers: Option<AnswersRequest>,
    /// How the answers are judged.
    pub evaluation: Option<EvaluationRequest>,
}

/// The settings without a gap.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EvaluationRunSpec {
    pub answers: AnswersSpec,
    pub evaluation: EvaluationSpec,
}

impl EvaluationRunRequest {
    /// The settings, with those of the job where the request says nothing.
    ///
    /// # Errors
    /// The first field that cannot be used.
    pub fn resolve(&self, job: &TrainingSpec) -> Result<EvaluationRunSpec, FieldError> {
        let asked = self.answers.clone().unwrap_or_default();
        check_answers(&asked)?;
        let answers = AnswersSpec {
            rows: asked.rows.unwrap_or(job.answers.rows),
            max_new_tokens: asked.max_new_tokens.unwrap_or(job.answers.max_new_tokens),
        };
        if answers.rows == 0 {
            let message = "`answers.rows` must be at least 1, since answers are what is judged";
            return Err(FieldError::new("answers.rows", message));
        }
        let evaluation = self.evaluation.clone().unwrap_or_default();
        if evaluation.during_training.is_some() {
            let message = "`evaluation.during_training` must be absent: the job's training is over";
            return Err(FieldError::new("evaluation.during_training", message));
        }
        let evaluation = evaluation.resolve_beside(&job.evaluation)?;
        Ok(EvaluationRunSpec { answers, evaluation })
    }
}
