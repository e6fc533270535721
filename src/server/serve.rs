//! From a listener to a running server, and its end.

use std::{future::IntoFuture, time::Duration};

use axum::serve::ListenerExt;
use finetuned_store::Store;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{options::ServerOptions, router::router, state::App, telemetry};

/// How often collected samples are folded into their histograms.
const UPKEEP: Duration = Duration::from_secs(5);

/// Why a server ended that was not told to.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The listener failed.
    #[error("while serving HTTP: {0}")]
    Serving(#[source] std::io::Error),
}

/// Serves until `shutdown` is cancelled, then gives open requests [`ServerOptions::shutdown_grace`] to end.
///
/// # Errors
/// [`ServerError::Serving`] where the listener fails.
pub async fn serve(
    store: Store,
    options: ServerOptions,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> Result<(), ServerError> {
    let grace = options.shutdown_grace;
    let listener = listener.tap_io(|connection| {
        // Answers are small; waiting to fill a packet only delays them.
        if let Err(error) = connection.set_nodelay(true) {
            tracing::debug!(%error, "a connection keeps Nagle's algorithm");
        }
    });
    telemetry::handle();
    let serving = axum::serve(listener, router(App::new(store, options, shutdown.clone())))
        .with_graceful_shutdown(shutdown.clone().cancelled_owned())
        .into_future();
    tokio::select! {
        ended = serving => ended.map_err(ServerError::Serving),
        () = too_late(shutdown, grace) => {
            tracing::warn!(grace_seconds = grace.as_secs(), "open requests were cut off at the end");
            Ok(())
        }
        () = upkeep() => Ok(()),
    }
}

async fn too_late(shutdown: CancellationToken, grace: Duration) {
    shutdown.cancelled().await;
    tokio::time::sleep(grace).await;
}

async fn upkeep() {
    let mut ticks = tokio::time::interval(UPKEEP);
    loop {
        ticks.tick().await;
        telemetry::handle().run_upkeep();
    }
}
