//! `evaluate`: a succeeded job's answers judged once more by other settings, and given anew where the settings ask for
//! others. What was answered before the worker died is not asked again.

use std::{collections::BTreeMap, sync::Arc};

use finetuned_evaluation::{AnswerRow, GivenAnswer, answers_report};
use finetuned_protocol::{
    engine::{AnsweredRow, Answerer},
    error::{ErrorCode, JobError},
    evaluation::{AnswersReport, EvaluationReport},
    spec::AnswersSpec,
};

use crate::{
    assess::assessed,
    attempt::Attempt,
    engine_run::{run_engine, within_grace},
    error::AttemptError,
    folder::AttemptFolder,
    judge::judged,
    layout::{fetch_data, lay_out_published},
};

/// Evaluates, and writes the report beside the job's.
///
/// # Errors
/// Why there is no report, or not yet.
pub async fn evaluate(attempt: &Arc<Attempt>, folder: &AttemptFolder) -> Result<(), AttemptError> {
    let task = attempt.lease.key.task;
    let run = attempt.persist("reading an evaluation", || attempt.store.evaluation_of(task)).await?;
    let Some(of_job) = attempt.lease.job.evaluation.clone() else {
        return Err(failed("The job has no evaluation to go on from"));
    };
    let asked = &run.settings.answers;
    let known = of_job.answers.as_ref().filter(|answers| has_all(attempt, answers, asked));
    let answers = match known.map(|answers| first_rows(answers, asked)) {
        Some(rows) => {
            attempt.unless_interrupted(fetch_data(attempt, folder.path())).await?;
            rows
        }
        None => answered(attempt, folder, asked).await?,
    };
    let seed = u64::from(attempt.lease.job.seed);
    let report = answers_report(answers, asked.max_new_tokens, seed)
        .map_err(|_| failed("No held-out row has a prompt that the models could answer"))?;
    let spec = &run.settings.evaluation;
    let mut answers = assessed(attempt, folder, spec, report).await?;
    if let Some(judge) = &spec.judge {
        answers = judged(attempt, judge, answers).await?;
    }
    let report = EvaluationReport { answers: Some(answers), ..of_job };
    let key = attempt.lease.key;
    let written = attempt.persist("finishing an evaluation", || attempt.store.finish_evaluation(&key, &report));
    within_grace(attempt, written).await
}

fn failed(message: &str) -> AttemptError {
    AttemptError::Failed(JobError::new(ErrorCode::InvalidSettings, message))
}

/// Whether the job's own answers are those that are asked for.
fn has_all(attempt: &Attempt, report: &AnswersReport, asked: &AnswersSpec) -> bool {
    // Where fewer answered than the job's settings allow, there are no more.
    let all_there_are = attempt.lease.job.effective.as_ref().is_some_and(|spec| report.rows < spec.answers.rows);
    report.max_new_tokens == asked.max_new_tokens && (report.rows >= asked.rows || all_there_are)
}

/// The first of the job's own answers.
fn first_rows(report: &AnswersReport, asked: &AnswersSpec) -> Vec<AnswerRow> {
    let rows = report.answers.iter().take(asked.rows as usize).map(|pair| AnswerRow {
        line: pair.line,
        prompt: pair.prompt.clone(),
        reference: pair.reference.clone(),
        base: GivenAnswer { text: pair.base.clone(), ended: pair.base_ended },
        tuned: GivenAnswer { text: pair.tuned.clone(), ended: pair.tuned_ended },
    });
    rows.collect()
}

/// Has the engine answer; gives the answers of this attempt and of those before.
async fn answered(
    attempt: &Arc<Attempt>,
    folder: &AttemptFolder,
    asked: &AnswersSpec,
) -> Result<Vec<AnswerRow>, AttemptError> {
    attempt.unless_interrupted(lay_out_published(attempt, folder.path(), asked)).await?;
    run_engine(attempt, folder, "evaluate").await?;
    let task = attempt.lease.key.task;
    let given = attempt.persist("reading answers", || attempt.store.answers_so_far(task)).await?;
    Ok(paired(given))
}

/// Rows that both models have answered, by line.
fn paired(given: Vec<AnsweredRow>) -> Vec<AnswerRow> {
    let mut by_line: BTreeMap<u64, [Option<AnsweredRow>; 2]> = BTreeMap::new();
    for row in given {
        let [base, tuned] = by_line.entry(row.line).or_default();
        let place = if row.by == Answerer::Base { base } else { tuned };
        *place = Some(row);
    }
    let both = by_line.into_iter().filter_map(|(line, [base, tuned])| {
        let (base, tuned) = (base?, tuned?);
        Some(AnswerRow {
            line,
            prompt: base.prompt,
            reference: base.reference,
            base: GivenAnswer { text: base.text, ended: base.ended },
            tuned: GivenAnswer { text: tuned.text, ended: tuned.ended },
        })
    });
    both.collect()
}
