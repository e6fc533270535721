//! Answers of both models to held-out prompts.

use finetuned_dataset::HeldOut;
use finetuned_evaluation::{AnswerRow, GivenAnswer, answers_report};
use finetuned_model::{GenerateOptions, generate};
use finetuned_protocol::{
    engine::Phase,
    evaluation::AnswersReport,
    spec::{AnswersSpec, TrainingSpec},
};

use crate::{checkpoint::SavedAnswer, error::EngineError, setup::Setup, watch::Watch};

/// Prompts answered together.
const TOGETHER: usize = 8;

/// The held-out rows that are asked: the first by line, as many as the settings say, that have a prompt.
pub fn asked<'a>(setup: &'a Setup, spec: &AnswersSpec) -> Vec<&'a HeldOut> {
    let mut rows: Vec<&HeldOut> = setup.prepared.held_out.iter().filter(|row| !row.prompt_ids.is_empty()).collect();
    rows.sort_by_key(|row| row.encoded.line);
    rows.truncate(spec.rows as usize);
    rows
}

/// Who is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// Without the adapter; where the model itself is trained, before its first step.
    Base,
    Tuned,
}

/// Greedy answers of the base model or the tuned one.
///
/// # Errors
/// The model's, or the reason to break off.
pub fn ask(setup: &Setup, who: Who, spec: &AnswersSpec, watch: &mut Watch) -> Result<Vec<SavedAnswer>, EngineError> {
    let (phase, adapter) = match who {
        Who::Base => (Phase::AnsweringBase, None),
        Who::Tuned => (Phase::AnsweringTuned, setup.trainer.adapter()),
    };
    let rows = asked(setup, spec);
    let total = rows.len() as u64;
    let options = GenerateOptions::greedy(spec.max_new_tokens, setup.eos_ids.clone());
    let mut answers = Vec::with_capacity(rows.len());
    for rows in rows.chunks(TOGETHER) {
        let prompts: Vec<Vec<u32>> = rows.iter().map(|row| row.prompt_ids.clone()).collect();
        let done = answers.len() as u64;
        let given = generate(&setup.model, adapter, &prompts, &options, &mut |_| watch.flow(phase, done, total));
        for (row, answer) in rows.iter().zip(watch.settle(given)?) {
            let text = setup.tokenizer.decode(&answer.ids, true)?;
            answers.push(SavedAnswer { line: row.encoded.line, text: text.trim().to_owned(), ended: answer.ended });
        }
    }
    watch.tick(phase, total, total)?;
    Ok(answers)
}

/// Both models' answers, scored; `None` where nothing was asked.
///
/// # Errors
/// Answers that belong to other rows.
pub fn compare(
    setup: &Setup,
    tuned: Vec<SavedAnswer>,
    spec: &TrainingSpec,
) -> Result<Option<AnswersReport>, EngineError> {
    if tuned.is_empty() {
        return Ok(None);
    }
    let rows = asked(setup, &spec.answers);
    let base = setup.state.base_answers.as_deref().unwrap_or_default();
    let lines = |answers: &[SavedAnswer]| answers.iter().map(|answer| answer.line).collect::<Vec<_>>();
    if lines(base) != lines(&tuned) {
        return Err(EngineError::Internal("base and tuned answered different rows".to_owned()));
    }
    let given = |answer: &SavedAnswer| GivenAnswer { text: answer.text.clone(), ended: answer.ended };
    let pairs = rows.iter().zip(base.iter().zip(&tuned)).map(|(row, (base, tuned))| AnswerRow {
        line: row.encoded.line,
        prompt: row.prompt_text.clone(),
        reference: row.reference.clone(),
        base: given(base),
        tuned: given(tuned),
    });
    Ok(Some(answers_report(pairs.collect(), spec.answers.max_new_tokens, u64::from(spec.seed))?))
}
