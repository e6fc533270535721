//! The last write of an attempt: what becomes of its task.

use finetuned_store::{Release, Released, Suspension};
use tokio::time::sleep;

use crate::{attempt::Attempt, error::AttemptError};

/// Ends an attempt by its outcome. A success has been published already.
pub async fn settle(attempt: &Attempt, outcome: Result<(), AttemptError>) {
    let Err(error) = outcome.map_err(AttemptError::classified) else {
        tracing::info!("the task is done");
        return;
    };
    tracing::info!(%error, "the attempt ends");
    let grace = attempt.options.timings.release_grace;
    let written = async {
        // While the worker lives it waits for the database as long as the lease is its own; at its end, for a while.
        tokio::select! {
            written = write(attempt, error) => written,
            () = async { attempt.shutdown.cancelled().await; sleep(grace).await } => {
                tracing::warn!("the database did not take an attempt's end; its lease will expire");
                Ok(())
            }
        }
    };
    if let Err(error) = written.await {
        // Nothing else can be done: the lease expires, and the task is taken back.
        tracing::error!(%error, "an attempt's end could not be written");
    }
}

async fn write(attempt: &Attempt, error: AttemptError) -> Result<(), AttemptError> {
    let (key, store) = (attempt.lease.key, &attempt.store);
    let number = attempt.lease.attempt;
    match error {
        AttemptError::LeaseLost => Ok(()),
        AttemptError::Shutdown => release(attempt, Release::Shutdown).await,
        AttemptError::Paused => attempt.persist("pausing", || store.suspend(&key, Suspension::Paused)).await,
        AttemptError::Suspended(cause) => {
            let cause = cause.in_attempt(number);
            attempt.persist("suspending", || store.suspend(&key, Suspension::Because(cause.clone()))).await
        }
        AttemptError::Failed(cause) => {
            let cause = cause.in_attempt(number);
            attempt.persist("failing a job", || store.fail(&key, cause.clone())).await
        }
        AttemptError::Crashed(cause) => release(attempt, Release::Crashed(cause.in_attempt(number))).await,
        // `classified` leaves none of these.
        error @ (AttemptError::Io { .. } | AttemptError::Store { .. }) => Err(error),
    }
}

async fn release(attempt: &Attempt, why: Release) -> Result<(), AttemptError> {
    let key = attempt.lease.key;
    let released = attempt.persist("releasing a task", || attempt.store.release(&key, why.clone())).await?;
    if released == Released::Failed {
        tracing::warn!("the task has crashed too often; its job has failed");
    }
    Ok(())
}
