//! The connection to Postgres and what every call has in common: a deadline and one kind of error.

use std::{
    future::Future,
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use secrecy::{ExposeSecret, SecretString};
use sqlx::{
    PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use crate::{StoreError, blobs::Blobs, listen::Listening, tasks::ScanMemory};

/// How long a call waits for a free or new connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(4);
/// Longest that any one call may take, connection included. Above the server's own limits, so that those speak first.
const CALL_DEADLINE: Duration = Duration::from_secs(20);
/// Server-side limits of every connection but the migrations'.
const LIMITS: [(&str, &str); 3] =
    [("statement_timeout", "10s"), ("lock_timeout", "5s"), ("idle_in_transaction_session_timeout", "15s")];

/// Times of the lease protocol; a struct so that tests can run it faster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timings {
    /// Between two heartbeats of a worker.
    pub heartbeat: Duration,
    /// A lease without a heartbeat for so long is taken back.
    pub expiry: Duration,
    /// Between two scans for expired leases.
    pub scan: Duration,
}

impl Default for Timings {
    fn default() -> Self {
        Self { heartbeat: Duration::from_secs(5), expiry: Duration::from_secs(20), scan: Duration::from_secs(2) }
    }
}

impl Timings {
    /// All times multiplied by `factor`.
    pub fn scaled(self, factor: f64) -> Self {
        let Self { heartbeat, expiry, scan } = self;
        Self { heartbeat: heartbeat.mul_f64(factor), expiry: expiry.mul_f64(factor), scan: scan.mul_f64(factor) }
    }
}

/// Where the store keeps its rows and bytes.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// A `postgres://` URL.
    pub database_url: SecretString,
    /// Folder of the stored bytes; made where it is missing.
    pub blobs_dir: PathBuf,
    /// Most connections of this process to Postgres.
    pub max_connections: u32,
    pub timings: Timings,
}

impl StoreOptions {
    /// The shipped timings, and few enough connections for several processes on one small Postgres.
    pub fn new(database_url: SecretString, blobs_dir: impl Into<PathBuf>) -> Self {
        Self { database_url, blobs_dir: blobs_dir.into(), max_connections: 16, timings: Timings::default() }
    }
}

/// The one door to Postgres and to stored bytes; cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub pool: PgPool,
    pub connect: PgConnectOptions,
    pub blobs: Blobs,
    pub timings: Timings,
    pub listening: Listening,
    pub scan: ScanMemory,
}

impl Store {
    /// Connects and checks that Postgres answers. Does not migrate.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] where Postgres does not answer; [`StoreError::Database`] for a malformed URL or
    /// refused credentials; [`StoreError::Blob`] where the folder cannot be made.
    pub async fn connect(options: StoreOptions) -> Result<Self, StoreError> {
        let connect = PgConnectOptions::from_str(options.database_url.expose_secret())
            .map_err(|source| StoreError::Database { doing: "reading the database's URL", source })?
            .application_name("finetuned");
        let pool = PgPoolOptions::new()
            .max_connections(options.max_connections)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .idle_timeout(Duration::from_secs(120))
            .connect_lazy_with(connect.clone().options(LIMITS));
        let blobs = Blobs::open(&options.blobs_dir).await?;
        let inner = Inner {
            pool,
            connect,
            blobs,
            timings: options.timings,
            listening: Listening::default(),
            scan: ScanMemory::default(),
        };
        let store = Self { inner: Arc::new(inner) };
        store.ping().await?;
        Ok(store)
    }

    /// Whether Postgres answers.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] where it does not.
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.call("asking whether the database answers", async {
            sqlx::query("select 1").execute(self.pool()).await?;
            Ok(())
        })
        .await
    }

    /// The folder of the stored bytes.
    pub fn blobs_folder(&self) -> &Path {
        &self.inner.blobs.folder
    }

    /// Times of the lease protocol.
    pub fn timings(&self) -> Timings {
        self.inner.timings
    }

    /// Closes the connections; calls under way end first. For the end of a process.
    pub async fn close(&self) {
        // A connection that hangs must not keep the process alive.
        let _ = tokio::time::timeout(ACQUIRE_TIMEOUT, self.inner.pool.close()).await;
    }

    pub(crate) fn pool(&self) -> &PgPool {
        &self.inner.pool
    }

    /// Begins a transaction, safely for callers that may be dropped half-way (a deadline, a lost lease).
    ///
    /// sqlx 0.9 counts a transaction only once the answer to `begin` has come: a `begin` dropped before leaves its
    /// connection in an open transaction that nobody ends, and later statements on it are never committed. So `begin`
    /// runs to its end in a task of its own; a transaction that nobody waits for any more is rolled back there.
    pub(crate) async fn begin(&self) -> Result<sqlx::Transaction<'static, sqlx::Postgres>, StoreError> {
        let pool = self.pool().clone();
        let begun = tokio::spawn(async move { pool.begin().await }).await;
        Ok(begun.map_err(|error| sqlx::Error::Io(std::io::Error::other(error)))??)
    }

    /// Runs a call under its deadline and names it in its error.
    pub(crate) async fn call<T>(
        &self,
        doing: &'static str,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        match tokio::time::timeout(CALL_DEADLINE, work).await {
            Ok(result) => result.map_err(|error| error.while_doing(doing)),
            Err(_) => {
                let reason = format!("no answer within {} s", CALL_DEADLINE.as_secs());
                Err(StoreError::Unavailable { doing, reason })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::TestDatabase;
    use std::time::Duration;

    #[tokio::test]
    async fn a_begin_that_is_dropped_leaves_no_transaction_open() -> Result<(), Box<dyn std::error::Error>> {
        let database = TestDatabase::create().await?;
        let store = &database.store;
        // Dropped after one look, two looks, and so on: among them between the question and its answer.
        for looks in (1..40).cycle().take(400) {
            let mut begin = Box::pin(store.begin());
            for _ in 0..looks {
                if futures::poll!(&mut begin).is_ready() {
                    break;
                }
                std::thread::sleep(Duration::from_micros(20));
                tokio::task::yield_now().await;
            }
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        let open: i64 = sqlx::query_scalar(
            "select count(*) from pg_stat_activity
             where datname = current_database() and state like 'idle in transaction%'",
        )
        .fetch_one(store.pool())
        .await?;
        assert_eq!(open, 0, "connections lie idle in a transaction");
        Ok(())
    }
}
