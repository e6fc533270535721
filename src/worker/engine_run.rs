//! One engine from its start to its last word, whatever it was told to do.

use std::{env, future::Future, path::Path, sync::Arc, time::Duration};

use finetuned_protocol::error::JobError;
use tokio::{sync::mpsc::unbounded_channel, task::JoinError, time::sleep};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{
    attempt::Attempt,
    crash,
    engine::{Engine, EngineEnd, EngineExit, EngineLines, Supervisor, Told},
    environment,
    error::{AttemptError, DiskTrouble},
    folder::AttemptFolder,
    host,
    report::{Harvest, LastWord, Reporter},
    tail::last_lines,
    watchdog::Watchdog,
};

/// What the engine says on standard error, in the attempt's folder.
const LOG_FILE: &str = "engine.log";
/// Lines of it that are kept for the client.
const LOG_LINES: usize = 500;
const LOG_BYTES: u64 = 256 * 1024;

/// Runs `command` of the engine in a folder that is laid out; gives what came out of an engine that ended well.
///
/// # Errors
/// Why there is no result, or not yet.
pub async fn run_engine(
    attempt: &Arc<Attempt>,
    folder: &AttemptFolder,
    command: &str,
) -> Result<Harvest, AttemptError> {
    let kills = host::memory_kills();
    let (end, harvest) = supervised(attempt, folder, command).await?;
    let log = folder.join(LOG_FILE);
    keep_log(attempt, &log).await?;
    match end {
        EngineEnd::Exited { exit, told } => {
            let killed_for_memory = host::memory_kills() > kills;
            let cause = |step| crash::died(exit, step, killed_for_memory, &log);
            conclude(harvest, Ending { told, exit }, cause)
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
fn conclude(harvest: Harvest, ending: Ending, cause: impl FnOnce(u32) -> JobError) -> Result<Harvest, AttemptError> {
    match harvest.last_word {
        Some(LastWord::Finished { .. } | LastWord::AllAnswered) => Ok(harvest),
        Some(LastWord::Failed(error)) => Err(AttemptError::Failed(error)),
        Some(LastWord::Suspended(error)) => Err(AttemptError::Suspended(error)),
        _ if ending.told == Some(Told::Shutdown) => Err(AttemptError::Shutdown),
        Some(LastWord::Stopped) if ending.told == Some(Told::Pause) => Err(AttemptError::Paused),
        // A person stopped it by a signal, or it took this worker for dead: no fault of the job.
        Some(LastWord::Stopped | LastWord::Cancelled) => Err(AttemptError::Shutdown),
        None if ending.exit.was_orphaned() => Err(AttemptError::Shutdown),
        None if ending.exit.was_suspended() => Err(AttemptError::Suspended(DiskTrouble::Full.told())),
        None => Err(AttemptError::Crashed(cause(harvest.step))),
    }
}

/// Runs the engine to its end while its lines are reported.
async fn supervised(
    attempt: &Arc<Attempt>,
    folder: &AttemptFolder,
    command: &str,
) -> Result<(EngineEnd, Harvest), AttemptError> {
    let options = &attempt.options;
    let allowed = environment::allowed(env::vars_os());
    let engine = Engine::start(&options.engine_program, (command, folder.path()), &folder.join(LOG_FILE), allowed)
        .await
        .map_err(AttemptError::io("starting the engine"))?;
    tracing::info!(pid = engine.id(), command, "the engine runs");
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
///
/// # Errors
/// Its own, or the shutdown.
pub async fn within_grace<T>(
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
