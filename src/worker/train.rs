//! `train`: one engine from its folder to its last word, and what is published of it.

use std::sync::Arc;

use bytes::Bytes;
use finetuned_protocol::evaluation_run::EvaluationRunSpec;
use finetuned_store::{MetricQuery, StoredBlob, Trained};

use crate::{
    assess::assessed,
    attempt::Attempt,
    crash,
    engine_run::{run_engine, within_grace},
    error::AttemptError,
    folder::AttemptFolder,
    layout::lay_out,
    report::{Harvest, LastWord},
    results,
    training_rows::look_at,
};

/// Trains, and publishes what was made.
///
/// # Errors
/// Why there is nothing to publish, or not yet.
pub async fn train(attempt: &Arc<Attempt>, folder: &AttemptFolder) -> Result<(), AttemptError> {
    let resumed = attempt.unless_interrupted(lay_out(attempt, folder.path())).await?;
    tracing::info!(resumed, "the attempt's folder is laid out");
    let Harvest { last_word, exported, step: _ } = run_engine(attempt, folder, "train").await?;
    let (Some(LastWord::Finished { trained_tokens, mut evaluation }), Some((artifacts, parity))) =
        (last_word, exported)
    else {
        return Err(AttemptError::Crashed(crash::without_adapter()));
    };
    let mut judging = None;
    if let Some(answers) = evaluation.answers.take() {
        let spec = attempt.lease.job.effective.as_ref();
        let evaluated = spec.map(|spec| spec.evaluation.clone()).unwrap_or_default();
        let mut answers = assessed(attempt, folder, &evaluated, answers).await?;
        if let Some(spec) = spec {
            look_at(attempt, folder, spec, &answers).await?;
        }
        judging = to_be_judged(attempt);
        if judging.is_some() {
            answers
                .not_judged
                .push("judge: it is asked once the adapter is published; see the job's evaluations".into());
        }
        evaluation.answers = Some(answers);
    }
    let results = store_results(attempt).await?;
    let trained = Trained { artifacts, evaluation: *evaluation, parity, trained_tokens, judging, results };
    publish(attempt, &trained).await
}

/// The evaluation that follows where the job asks for a judge.
fn to_be_judged(attempt: &Attempt) -> Option<EvaluationRunSpec> {
    let spec = attempt.lease.job.effective.as_ref()?;
    spec.evaluation.judge.as_ref()?;
    Some(EvaluationRunSpec { answers: spec.answers.clone(), evaluation: spec.evaluation.clone() })
}

/// The result file, of all attempts' steps.
async fn store_results(attempt: &Attempt) -> Result<StoredBlob, AttemptError> {
    let job = &attempt.lease.job;
    let names = results::series();
    let all = MetricQuery { names: &names, ..MetricQuery::ALL };
    let series = attempt.persist("reading the metrics", || attempt.store.metrics(job.tenant, job.id, all)).await?;
    let points = series
        .iter()
        .flat_map(|series| series.points.iter().map(|point| (series.name.as_str(), point.step, point.value)));
    let text = Bytes::from(results::csv(points));
    attempt.persist("storing the results", || attempt.store.put_bytes(job.tenant, text.clone())).await
}

async fn publish(attempt: &Attempt, trained: &Trained) -> Result<(), AttemptError> {
    let key = attempt.lease.key;
    within_grace(attempt, attempt.persist("publishing", || attempt.store.finish_training(&key, trained))).await
}
