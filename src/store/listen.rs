//! Wake-ups: that something changed, not what. Polling stays the truth.

use std::{sync::Once, time::Duration};

use sqlx::{PgConnection, PgPool, postgres::PgListener};
use tokio::sync::broadcast;

use crate::{Store, StoreError};

const TASKS: &str = "finetuned_tasks";
const JOBS: &str = "finetuned_jobs";
/// Between two attempts to listen again.
const RECONNECT: Duration = Duration::from_millis(500);

/// What may have changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wake {
    /// A task waits, or something is asked of a running one (cancel, pause): claim, or heartbeat at once.
    Tasks,
    /// A job or its events.
    Jobs,
    /// Wake-ups were lost (reconnection, slow reader): look at everything.
    Everything,
}

/// A subscription to wake-ups.
#[derive(Debug)]
pub struct Wakeups {
    receiver: broadcast::Receiver<Wake>,
}

impl Wakeups {
    /// The next wake-up. Never ends while the store lives.
    pub async fn next(&mut self) -> Wake {
        match self.receiver.recv().await {
            Ok(wake) => wake,
            Err(broadcast::error::RecvError::Lagged(_)) => Wake::Everything,
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Listening {
    started: Once,
    sender: broadcast::Sender<Wake>,
}

impl Default for Listening {
    fn default() -> Self {
        Self { started: Once::new(), sender: broadcast::channel(64).0 }
    }
}

impl Store {
    /// Subscribes to wake-ups; the first call opens the process's one LISTEN connection (in a tokio runtime).
    pub fn listen(&self) -> Wakeups {
        let listening = &self.inner.listening;
        let receiver = listening.sender.subscribe();
        listening.started.call_once(|| {
            tokio::spawn(relay(self.pool().clone(), listening.sender.clone()));
        });
        Wakeups { receiver }
    }
}

/// Passes notifications on for as long as the pool is open.
async fn relay(pool: PgPool, sender: broadcast::Sender<Wake>) {
    while !pool.is_closed() {
        if let Err(error) = listen_once(&pool, &sender).await {
            tracing::debug!(%error, "listen.lost: listening again");
        }
        tokio::time::sleep(RECONNECT).await;
    }
}

async fn listen_once(pool: &PgPool, sender: &broadcast::Sender<Wake>) -> Result<(), sqlx::Error> {
    let mut listener = PgListener::connect_with(pool).await?;
    listener.eager_reconnect(false);
    listener.listen_all([TASKS, JOBS]).await?;
    // What was sent before is lost.
    let _ = sender.send(Wake::Everything);
    while let Some(notification) = listener.try_recv().await? {
        let wake = if notification.channel() == TASKS { Wake::Tasks } else { Wake::Jobs };
        // Nobody may be listening any more; that is no error.
        let _ = sender.send(wake);
    }
    Ok(())
}

/// Wakes everyone when the transaction commits.
pub(crate) async fn wake(tx: &mut PgConnection, what: Wake) -> Result<(), StoreError> {
    let channels: &[&str] = match what {
        Wake::Tasks => &[TASKS],
        Wake::Jobs => &[JOBS],
        Wake::Everything => &[TASKS, JOBS],
    };
    for channel in channels {
        sqlx::query!("select pg_notify($1, '')", *channel).execute(&mut *tx).await?;
    }
    Ok(())
}
