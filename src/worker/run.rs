//! The worker's life: folders, registration, slots, scans, and a graceful end.

use std::{fs, path::Path, sync::Arc, time::Duration};

use finetuned_protocol::status::TaskKind;
use finetuned_store::{Store, Wake};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{
    WorkerError, WorkerOptions,
    facts::Facts,
    folder::remove_leftovers,
    serving::{self, Training},
    slot::Slot,
};

/// Between two attempts to register, while the database is away.
const REGISTER_AGAIN: Duration = Duration::from_secs(1);

/// Runs a worker until `shutdown` is cancelled; then its engine saves a checkpoint and its tasks are given back.
///
/// # Errors
/// Folders or an engine that cannot be used, a database that refuses, or a fault of this program. While the database is
/// away it waits.
pub async fn run(store: Store, options: WorkerOptions, shutdown: CancellationToken) -> Result<(), WorkerError> {
    let options = Arc::new(prepare(options, &store)?);
    let facts = Facts::new(store.clone(), Arc::clone(&options));
    if !register(&facts, &shutdown).await? {
        return Ok(());
    }
    let (nudge, nudges) = watch::channel(0_u64);
    let _forwarding = AbortOnDropHandle::new(tokio::spawn(forward_wakes(store.clone(), nudge)));
    let _scanning = AbortOnDropHandle::new(tokio::spawn(scan(store.clone(), options.timings.scan)));
    let _living = AbortOnDropHandle::new(tokio::spawn(say_alive(facts.clone(), options.timings.heartbeat)));
    let training = Training::default();
    let serving = serving::start(&store, &options, (&facts, training.clone()), shutdown.clone()).await?;
    let mut slots = JoinSet::new();
    for kind in kinds(&options.kinds) {
        let slot = Slot {
            kind,
            store: store.clone(),
            options: Arc::clone(&options),
            facts: facts.clone(),
            nudges: nudges.clone(),
            training: training.clone(),
            desk: serving.as_ref().map(|serving| Arc::clone(&serving.desk)),
            shutdown: shutdown.clone(),
            is_outdated: false,
        };
        slots.spawn(slot.run());
    }
    tracing::info!(worker = %facts.id(), work_dir = %options.work_dir.display(), "the worker runs");
    let mut result = Ok(());
    while let Some(ended) = slots.join_next().await {
        if let Err(error) = ended {
            // The other slots end in an orderly way.
            shutdown.cancel();
            result = Err(WorkerError::Broken(error));
        }
    }
    // It is forgotten after an expiry anyway.
    let _ = timeout(options.timings.release_grace, store.worker_gone(facts.id())).await;
    tracing::info!(worker = %facts.id(), "the worker has ended");
    result
}

/// Each kind once.
fn kinds(asked: &[TaskKind]) -> Vec<TaskKind> {
    TaskKind::ALL.iter().copied().filter(|kind| asked.contains(kind)).collect()
}

fn prepare(options: WorkerOptions, store: &Store) -> Result<WorkerOptions, WorkerError> {
    let work_dir = &options.work_dir;
    let failed = |source| WorkerError::WorkDir { folder: work_dir.display().to_string(), source };
    fs::create_dir_all(work_dir).map_err(failed)?;
    // Engines run in their folder, where a relative path would lead elsewhere.
    let absolute = fs::canonicalize(work_dir).map_err(failed)?;
    match remove_leftovers(&absolute).map_err(failed)? {
        0 => {}
        removed => tracing::info!(removed, "removed what ended workers left"),
    }
    let engine_program = match options.kinds.iter().any(|kind| *kind != TaskKind::Validate) || options.serving.is_some()
    {
        true => find_program(&options.engine_program)?,
        false => options.engine_program.clone(),
    };
    let timings = options.timings.with_lease(store.timings());
    Ok(WorkerOptions { work_dir: absolute, engine_program, timings, ..options })
}

/// A bare name is left to the search path; a path must lead to a file.
fn find_program(program: &Path) -> Result<std::path::PathBuf, WorkerError> {
    if program.components().count() <= 1 && !program.is_absolute() {
        return Ok(program.to_owned());
    }
    fs::canonicalize(program)
        .map_err(|source| WorkerError::EngineProgram { program: program.display().to_string(), source })
}

/// `false` where the worker was told to end before the database answered.
async fn register(facts: &Facts, shutdown: &CancellationToken) -> Result<bool, WorkerError> {
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(false),
            answer = facts.fresh() => match answer {
                Ok(_) => return Ok(true),
                Err(error) if error.is_unavailable() => tracing::warn!(%error, "the worker waits for the database"),
                Err(source) => return Err(WorkerError::Store { doing: "registering a worker", source }),
            },
        }
        sleep(REGISTER_AGAIN).await;
    }
}

async fn forward_wakes(store: Store, nudge: watch::Sender<u64>) {
    let mut wakeups = store.listen();
    loop {
        if matches!(wakeups.next().await, Wake::Tasks | Wake::Everything) {
            nudge.send_modify(|count| *count += 1);
        }
    }
}

async fn scan(store: Store, every: Duration) {
    let mut tick = interval(every);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        match store.scan_expired().await {
            Ok(0) => {}
            Ok(taken_back) => tracing::warn!(taken_back, "took back the tasks of a silent worker"),
            Err(error) => tracing::debug!(%error, "no scan"),
        }
    }
}

async fn say_alive(facts: Facts, every: Duration) {
    let mut tick = interval(every);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        if let Err(error) = facts.say_alive().await {
            tracing::debug!(%error, "could not say that this worker lives");
        }
    }
}
