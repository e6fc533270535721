//! Answers requests to models: a resident engine beside the worker's slots, and the door at which API nodes knock.
//!
//! ```text
//! API node ─ HTTP, one request a connection ─ door ─ Desk ─ library (adapters on disk)
//!                                                    └ resident (one engine with one base model) ─ finetuned-engine serve
//! ```

mod desk;
mod door;
mod library;
mod resident;
mod training;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use finetuned_store::{ServingEndpoint, Store};
use secrecy::SecretString;
use tokio::{
    net::TcpListener,
    time::{MissedTickBehavior, interval},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{WorkerError, WorkerOptions, facts::Facts, folder::AttemptFolder};
pub use desk::Desk;
pub use training::Training;

/// Between two looks at whether the resident engine is still wanted.
const LOOK: Duration = Duration::from_secs(1);

/// Whether a worker answers while it trains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceSharing {
    /// The device computes both.
    Shared,
    /// Training has it alone: requests are refused meanwhile, and the resident engine ends.
    TrainingFirst,
}

/// How a worker answers requests to models.
#[derive(Debug, Clone, Copy)]
pub struct ServingOptions {
    /// Address to answer API nodes on, which they reach; port 0 takes any free one.
    pub listen: SocketAddr,
    pub sharing: DeviceSharing,
}

/// What runs for as long as the worker does.
pub struct Serving {
    pub desk: Arc<Desk>,
    _tasks: Vec<AbortOnDropHandle<()>>,
}

/// Listens, and says where.
///
/// # Errors
/// An address that cannot be listened on, or a folder that cannot be made.
pub async fn start(
    store: &Store,
    options: &Arc<WorkerOptions>,
    (facts, training): (&Facts, Training),
    shutdown: CancellationToken,
) -> Result<Option<Serving>, WorkerError> {
    let Some(serving) = options.serving else { return Ok(None) };
    let failed = |source| WorkerError::Serving { address: serving.listen, source };
    let listener = TcpListener::bind(serving.listen).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let folder = AttemptFolder::create(&options.work_dir, &format!("serving-{}", facts.id()));
    let folder = folder.map_err(failed)?;
    let secret = format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple());
    let endpoint =
        ServingEndpoint { worker: facts.id(), url: format!("http://{address}"), secret: SecretString::from(secret) };
    let desk = Arc::new(Desk::new(store.clone(), Arc::clone(options), serving.sharing, training, folder));
    let door = door::router(Arc::clone(&desk), endpoint.secret.clone());
    let open = axum::serve(listener, door).with_graceful_shutdown(shutdown.cancelled_owned());
    let tasks = vec![
        tokio::spawn(async move {
            if let Err(error) = open.await {
                tracing::error!(%error, "the worker answers no more requests");
            }
        }),
        tokio::spawn(announce(store.clone(), endpoint, options.timings.heartbeat)),
        tokio::spawn({
            let desk = Arc::clone(&desk);
            async move { desk.look_after(LOOK).await }
        }),
    ];
    tracing::info!(%address, "the worker answers requests to models");
    Ok(Some(Serving { desk, _tasks: tasks.into_iter().map(AbortOnDropHandle::new).collect() }))
}

/// The database forgets a worker that was silent for long, and with it where it answers.
async fn announce(store: Store, endpoint: ServingEndpoint, every: Duration) {
    let mut tick = interval(every);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        if let Err(error) = store.announce_serving(&endpoint).await {
            tracing::debug!(%error, "could not say where this worker answers");
        }
    }
}
