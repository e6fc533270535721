//! One attempt at a task: its lease, and writes that wait for the database but never outlive the lease.

use std::{future::Future, sync::Arc, time::Duration};

use backon::{ExponentialBuilder, Retryable};
use finetuned_store::{Lease, Store, StoreError};
use tokio_util::sync::CancellationToken;

use crate::{WorkerOptions, error::AttemptError, lease::LeaseWatch, serving::Desk};

/// What an attempt works with; the engine's supervisor and the reporter share it.
#[derive(Debug)]
pub struct Attempt {
    pub store: Store,
    pub options: Arc<WorkerOptions>,
    pub lease: Lease,
    pub watch: LeaseWatch,
    /// For questions to models of this service, where this worker answers them.
    pub desk: Option<Arc<Desk>>,
    /// The worker's own end.
    pub shutdown: CancellationToken,
}

impl Attempt {
    /// A call to the store, made again for as long as the database is away and the lease is ours.
    ///
    /// # Errors
    /// The lease is lost, or the store refuses.
    pub async fn persist<T, F, W>(&self, doing: &'static str, call: F) -> Result<T, AttemptError>
    where
        F: FnMut() -> W,
        W: Future<Output = Result<T, StoreError>>,
    {
        let waits = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(100))
            .with_max_delay(Duration::from_secs(2))
            .with_jitter()
            .without_max_times();
        let tell = |error: &StoreError, wait: Duration| tracing::debug!(%error, ?wait, doing, "trying again");
        let call = call.retry(waits).when(StoreError::is_unavailable).notify(tell);
        tokio::select! {
            biased;
            () = self.watch.lost() => Err(AttemptError::LeaseLost),
            result = call => result.map_err(AttemptError::store(doing)),
        }
    }

    /// `work` until the lease is lost or the worker is told to end.
    ///
    /// # Errors
    /// Those two, or what `work` says.
    pub async fn unless_interrupted<T>(
        &self,
        work: impl Future<Output = Result<T, AttemptError>>,
    ) -> Result<T, AttemptError> {
        tokio::select! {
            biased;
            () = self.watch.lost() => Err(AttemptError::LeaseLost),
            () = self.shutdown.cancelled() => Err(AttemptError::Shutdown),
            result = work => result,
        }
    }
}
