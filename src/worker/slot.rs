//! A slot runs one task at a time, for as long as the worker lives.

use std::{panic::AssertUnwindSafe, sync::Arc};

use finetuned_protocol::status::TaskKind;
use finetuned_store::{Lease, Store, StoreError};
use futures::FutureExt;
use tokio::{sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::{
    WorkerOptions,
    attempt::Attempt,
    crash,
    error::AttemptError,
    evaluate::evaluate,
    facts::Facts,
    folder::AttemptFolder,
    lease::{Beat, LeaseKeeper},
    serving::{Desk, Training},
    settle::settle,
    train::train,
    validate::validate,
};

/// What a slot works with.
#[derive(Debug, Clone)]
pub struct Slot {
    pub kind: TaskKind,
    pub store: Store,
    pub options: Arc<WorkerOptions>,
    pub facts: Facts,
    /// Changes whenever there may be something to do.
    pub nudges: watch::Receiver<u64>,
    /// Says whether this worker trains.
    pub training: Training,
    /// For questions to models of this service, where this worker answers them.
    pub desk: Option<Arc<Desk>>,
    pub shutdown: CancellationToken,
    /// The database was seen to be newer than this program.
    pub is_outdated: bool,
}

impl Slot {
    /// Claims and runs until the worker ends.
    pub async fn run(mut self) {
        while !self.shutdown.is_cancelled() {
            self.nudges.mark_unchanged();
            match self.claim().await {
                Ok(Some(lease)) => self.attempt(lease).await,
                Ok(None) => self.rest().await,
                Err(StoreError::NewerSchema { found, known }) => {
                    // Once, and not at every look.
                    if !std::mem::replace(&mut self.is_outdated, true) {
                        tracing::warn!(
                            found, known, kind = %self.kind,
                            "this worker is older than the database's schema: it claims nothing more until it is updated"
                        );
                    }
                    self.rest().await;
                }
                Err(error) => {
                    if error.is_unavailable() {
                        tracing::debug!(%error, "no claim");
                    } else {
                        tracing::error!(%error, kind = %self.kind, "a claim was refused");
                    }
                    self.rest().await;
                }
            }
        }
    }

    async fn claim(&self) -> Result<Option<Lease>, StoreError> {
        let facts = self.facts.fresh().await?;
        self.store.claim(&facts, &[self.kind]).await
    }

    async fn rest(&mut self) {
        tokio::select! {
            () = self.shutdown.cancelled() => {}
            changed = self.nudges.changed() => {
                if changed.is_err() {
                    // Nobody nudges any more; polling stays.
                    sleep(self.options.timings.poll).await;
                }
            }
            () = sleep(self.options.timings.poll) => {}
        }
    }

    async fn attempt(&self, lease: Lease) {
        let span = tracing::info_span!(
            "attempt", kind = %lease.kind, job = %lease.job.id, task = %lease.key.task, epoch = lease.key.epoch
        );
        self.run_attempt(lease).instrument(span).await;
    }

    async fn run_attempt(&self, lease: Lease) {
        tracing::info!(attempt = lease.attempt, crashes = lease.crashes, "claimed");
        let key = lease.key;
        let store = self.store.clone();
        let beat = move || {
            let store = store.clone();
            async move { beat_of(store.heartbeat(&key).await) }
        };
        let keeper = LeaseKeeper::start(beat, self.nudges.clone(), self.options.timings);
        let attempt = Arc::new(Attempt {
            store: self.store.clone(),
            options: Arc::clone(&self.options),
            lease,
            watch: keeper.watch(),
            desk: self.desk.clone(),
            shutdown: self.shutdown.clone(),
        });
        let _trains = (self.kind == TaskKind::Train).then(|| self.training.begin());
        // A fault of ours ends one attempt, not the worker.
        let outcome = AssertUnwindSafe(work(&attempt)).catch_unwind().await;
        settle(&attempt, outcome.unwrap_or_else(|_| Err(AttemptError::Crashed(crash::broken_off())))).await;
        drop(keeper);
    }
}

async fn work(attempt: &Arc<Attempt>) -> Result<(), AttemptError> {
    let key = attempt.lease.key;
    let name = format!("{}-{}", key.task, key.epoch);
    let folder = AttemptFolder::create(&attempt.options.work_dir, &name)
        .map_err(AttemptError::io("making an attempt's folder"))?;
    match attempt.lease.kind {
        TaskKind::Validate => validate(attempt, &folder).await,
        TaskKind::Train => train(attempt, &folder).await,
        TaskKind::Evaluate => evaluate(attempt, &folder).await,
    }
}

fn beat_of(answer: Result<finetuned_store::Heartbeat, StoreError>) -> Beat {
    match answer {
        Ok(heartbeat) => Beat::Held { pause_requested: heartbeat.pause_requested },
        Err(StoreError::LeaseLost) => Beat::Lost,
        Err(error) => {
            if !error.is_unavailable() {
                tracing::error!(%error, "a heartbeat was refused");
            }
            Beat::Silent
        }
    }
}
