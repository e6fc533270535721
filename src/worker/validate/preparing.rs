//! Runs the preparation of rows on a thread of its own, with progress out and a way to break it off.

use std::{
    ops::ControlFlow,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use finetuned_dataset::{PrepareError, Survey, Watch, survey};
use finetuned_protocol::{engine::Phase, lint::Finding, spec::PreparationSpec};
use finetuned_store::{JobProgress, Report};
use finetuned_weights::TextTokenizer;
use tokio::time::{MissedTickBehavior, interval};

use super::{refusals, told::Tallies};
use crate::{attempt::Attempt, crash, error::AttemptError};

/// What is prepared.
pub struct Preparing {
    pub spec: PreparationSpec,
    pub train: PathBuf,
    pub valid: Option<PathBuf>,
    pub tokenizer: TextTokenizer,
}

#[derive(Debug, Default)]
struct Shared {
    done: AtomicU64,
    total: AtomicU64,
    stop: AtomicBool,
}

/// Breaks the preparation off when nobody waits for it any more.
struct StopOnDrop(Arc<Shared>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::Relaxed);
    }
}

impl Preparing {
    /// # Errors
    /// Rows that cannot be trained on, a pause, a lost lease, files that cannot be read.
    pub async fn run(self, attempt: &Attempt) -> Result<(Survey, Tallies), AttemptError> {
        let shared = Arc::new(Shared::default());
        let _stop = StopOnDrop(Arc::clone(&shared));
        let template = self.spec.template.clone();
        let work = blocking({
            let shared = Arc::clone(&shared);
            move || self.survey(&shared)
        });
        let result = tokio::select! {
            result = work => result?,
            error = tell_progress(attempt, &shared) => return Err(error),
            () = paused(attempt) => return Err(AttemptError::Paused),
        };
        result.map_err(|error| refusals::rows(error, &template))
    }

    /// Only a survey: the rows themselves are made again by the engine, and the server keeps its memory.
    fn survey(self, shared: &Shared) -> Result<(Survey, Tallies), PrepareError> {
        let mut progress = |done, total| {
            shared.done.store(done, Ordering::Relaxed);
            shared.total.store(total, Ordering::Relaxed);
            if shared.stop.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let mut tallies = Tallies::default();
        let found = &mut |_, findings: &[Finding]| tallies.add(findings);
        let watch = Watch { progress: &mut progress, found };
        let survey = survey(&self.spec, &self.train, self.valid.as_deref(), &self.tokenizer, watch)?;
        Ok((survey, tallies))
    }
}

/// Reports how far the preparation is until it fails to.
async fn tell_progress(attempt: &Attempt, shared: &Shared) -> AttemptError {
    let mut tick = interval(attempt.options.timings.report * 2);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let key = attempt.lease.key;
    let mut told = 0;
    loop {
        tick.tick().await;
        let (done, total) = (shared.done.load(Ordering::Relaxed), shared.total.load(Ordering::Relaxed));
        if done == told {
            continue;
        }
        told = done;
        let progress =
            JobProgress { phase: Phase::Preparing, done, total, step: 0, total_steps: 0, remaining_seconds: None };
        let report = Report { progress: Some(progress), ..Report::default() };
        if let Err(error) = attempt.persist("reporting", || attempt.store.report(&key, &report)).await {
            return error;
        }
    }
}

/// Comes back once the client asks for a pause.
async fn paused(attempt: &Attempt) {
    let mut watch = attempt.watch.clone();
    let mut view = watch.view();
    while !view.pause_requested {
        view = watch.changed().await;
    }
}

/// `work` on a thread that may block.
///
/// # Errors
/// It panicked.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, AttemptError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        tracing::error!(%error, "a validation broke off");
        AttemptError::Crashed(crash::broken_off())
    })
}
