//! `train`: one engine from its folder to its last word, and what is published of it.

use std::{env, future::Future, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use finetuned_protocol::error::JobError;
use finetuned_store::{MetricQuery, StoredBlob, Trained};
use tokio::{sync::mpsc::unbounded_channel, task::JoinError, time::sleep};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{
    assess::assessed,
    attempt::Attempt,
    crash,
    engine::{Engine, EngineEnd, EngineExit, EngineLines, Supervisor, Told},
    environment,
    error::{AttemptError, DiskTrouble},
    folder::AttemptFolder,
    host,
    layout::lay_out,
    report::{Harvest, LastWord, Reporter},
    results,
    tail::last_lines,
    watchdog::Watchdog,
};

/// What the engine says on standard error, in the attempt's folder.
const LOG_FILE: &str = "engine.log";
/// Lines of it that are kept for the client.
const LOG_LINES: usize = 500;
const LOG_BYTES: u64 = 256 * 1024;

/// Trains, and publishes what was made.
///
/// # Errors
/// Why there is nothing to publish, or not yet.
pub async fn train(attempt: &Arc<Attempt>, folder: &AttemptFolder) -> Result<(), AttemptError> {
    let resumed = attempt.unless_interrupted(lay_out(attempt, folder.path())).await?;
    tracing::info!(resumed, "the attempt's folder is laid out");
    let kills = host::memory_kills();
    let (end, harvest) = run_engine(attempt, folder).await?;
    let log = folder.join(LOG_FILE);
    keep_log(attempt, &log).await?;
    match end {
        EngineEnd::Exited { exit, told } => {
            let killed_for_memory = host::memory_kills() > kills;
            let cause = |step| crash::died(exit, step, killed_for_memory, &log);
            conclude((attempt, folder), harvest, Ending { told, exit }, cause).await
        }
        EngineEnd::LeaseLost => Err(AttemptError::LeaseLost),
        EngineEnd::Stuck { silence } => Err(AttemptError::Crashed(crash::stuck(silence, harvest.step, &log))),
        EngineEnd::Broken(source) => Err(AttemptError::Io { doing: "following the engine", source }),
        // The reporter's own error has come before this.
        EngineEnd::Abandoned => Err(AttemptError::Crashed(crash::broken_off())),
    }
}

/// Keeps the engine's last lines where the client can read them; without the lease there is nothing to keep them for.
async fn keep_log(attempt: &Attempt, log: &Path) -> Result<(), AttemptError> {
    let lines = last_lines(log, LOG_LINES, LOG_BYTES);
    let key = attempt.lease.key;
    within_grace(attempt, attempt.persist("keeping the engine's log", || attempt.store.record_log(&key, &lines))).await
}

/// How an engine that was not killed for a fault came to its end.
struct Ending {
    told: Option<Told>,
    exit: EngineExit,
}

/// Takes an engine that ended at its word; where it left none, `cause` says why it died after a step.
async fn conclude(
    (attempt, folder): (&Attempt, &AttemptFolder),
    harvest: Harvest,
    ending: Ending,
    cause: impl FnOnce(u32) -> JobError,
) -> Result<(), AttemptError> {
    let Harvest { last_word, exported, step } = harvest;
    match last_word {
        Some(LastWord::Finished { trained_tokens, mut evaluation }) => {
            if let Some(answers) = evaluation.answers.take() {
                let spec = attempt.lease.job.effective.as_ref().map(|spec| spec.evaluation.clone()).unwrap_or_default();
                evaluation.answers = Some(assessed(attempt, folder, &spec, answers).await?);
            }
            let (artifacts, parity) = exported.ok_or_else(|| AttemptError::Crashed(crash::without_adapter()))?;
            let results = store_results(attempt).await?;
            publish(attempt, &Trained { artifacts, evaluation: *evaluation, parity, trained_tokens, results }).await
        }
        Some(LastWord::Failed(error)) => Err(AttemptError::Failed(error)),
        Some(LastWord::Suspended(error)) => Err(AttemptError::Suspended(error)),
        _ if ending.told == Some(Told::Shutdown) => Err(AttemptError::Shutdown),
        Some(LastWord::Stopped) if ending.told == Some(Told::Pause) => Err(AttemptError::Paused),
        // A person stopped it by a signal, or it took this worker for dead: no fault of the job.
        Some(LastWord::Stopped | LastWord::Cancelled) => Err(AttemptError::Shutdown),
        None if ending.exit.was_orphaned() => Err(AttemptError::Shutdown),
        None if ending.exit.was_suspended() => Err(AttemptError::Suspended(DiskTrouble::Full.told())),
        None => Err(AttemptError::Crashed(cause(step))),
    }
}

/// Runs the engine to its end while its lines are reported.
async fn run_engine(attempt: &Arc<Attempt>, folder: &AttemptFolder) -> Result<(EngineEnd, Harvest), AttemptError> {
    let options = &attempt.options;
    let allowed = environment::allowed(env::vars_os());
    let engine = Engine::start(&options.engine_program, ("train", folder.path()), &folder.join(LOG_FILE), allowed)
        .await
        .map_err(AttemptError::io("starting the engine"))?;
    tracing::info!(pid = engine.id(), "the engine runs");
    let (sender, lines) = unbounded_channel();
    let trouble = CancellationToken::new();
    let reporter = Reporter::new(Arc::clone(attempt), folder.path().to_owned());
    let reporting = AbortOnDropHandle::new(tokio::spawn(reporter.run(lines, trouble.clone())));
    let supervisor = Supervisor {
        engine,
        lines: EngineLines::new(folder.path(), sender),
        watchdog: Watchdog::new(options.timings.watchdog_least, step_estimate(attempt)),
        lease: attempt.watch.clone(),
        shutdown: attempt.shutdown.clone(),
        trouble,
        timings: options.timings,
    };
    let end = supervisor.run().await;
    tracing::info!(?end, "the engine has ended");
    let harvest = within_grace(attempt, async { reporting.await.map_err(panicked)? }).await?;
    Ok((end, harvest))
}

/// `work`, but only for the grace of a shutdown once the worker is told to end.
async fn within_grace<T>(
    attempt: &Attempt,
    work: impl Future<Output = Result<T, AttemptError>>,
) -> Result<T, AttemptError> {
    let grace = async {
        attempt.shutdown.cancelled().await;
        sleep(attempt.options.timings.stop_grace).await;
    };
    tokio::select! {
        biased;
        result = work => result,
        () = grace => {
            tracing::warn!("the database does not take the last lines of an attempt; they are made again");
            Err(AttemptError::Shutdown)
        }
    }
}

fn panicked(error: JoinError) -> AttemptError {
    tracing::error!(%error, "the reporter broke off");
    AttemptError::Crashed(crash::broken_off())
}

/// The planner's estimate of a step.
fn step_estimate(attempt: &Attempt) -> Duration {
    let estimate = attempt.lease.job.estimate.as_ref();
    let seconds = estimate.map_or(0.0, |estimate| estimate.seconds as f64 / f64::from(estimate.steps.max(1)));
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
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
