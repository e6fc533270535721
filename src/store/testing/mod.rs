//! A throw-away Postgres for tests: one cluster a test process, a fresh migrated database a test.

pub mod fixtures;

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use secrecy::{ExposeSecret, SecretString};
use sqlx::{Connection, PgConnection};
use tokio::sync::OnceCell;
use uuid::Uuid;

use crate::{
    Store, StoreError, StoreOptions,
    embedded::{EmbeddedOptions, Postgres, StartLock},
};

/// A migrated database that the others are copied from.
const TEMPLATE: &str = "ft_template";

/// A cluster in a temporary folder. A companion process stops it and removes the folder when this process ends, however
/// it ends.
#[derive(Debug)]
pub struct TestCluster {
    pub postgres: Postgres,
    pub folder: PathBuf,
}

impl TestCluster {
    /// Starts a cluster of its own, for tests that kill or stop it.
    ///
    /// # Errors
    /// [`StoreError::Embedded`].
    pub async fn start() -> Result<Self, StoreError> {
        let folder = std::env::temp_dir().join(format!("ft-test-{}", Uuid::new_v4().simple()));
        let options = EmbeddedOptions { data_dir: folder.join("data"), runtime_dir: runtime_dir() };
        let postgres = Postgres::start_with(options, false).await?;
        companion(&postgres, &folder)?;
        Ok(Self { postgres, folder })
    }

    /// Kills the server as a crash would, and keeps it from being started again until the outage is dropped.
    ///
    /// # Errors
    /// [`StoreError::Embedded`].
    pub async fn outage(&self) -> Result<Outage, StoreError> {
        let lock = self.postgres.forbid_start().await?;
        if let Some(pid) = self.postgres.server_process() {
            // Its children notice its death a little later, and would answer until then.
            let children = children_of(pid);
            for process in std::iter::once(pid).chain(children) {
                let _ = rustix::process::kill_process(process, rustix::process::Signal::KILL);
            }
        }
        Ok(Outage { _lock: lock })
    }
}

/// Processes whose parent is `parent`.
fn children_of(parent: rustix::process::Pid) -> Vec<rustix::process::Pid> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let is_child = |number: &i32| {
        // `number (name) state parent ...`; the name may hold anything, so the last bracket counts.
        let stat = std::fs::read_to_string(format!("/proc/{number}/stat")).unwrap_or_default();
        let after_name = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
        after_name.split(' ').nth(1).and_then(|text| text.parse().ok()) == Some(parent.as_raw_nonzero().get())
    };
    numbers.filter(is_child).filter_map(rustix::process::Pid::from_raw).collect()
}

/// While it lives, Postgres is away; about a second after its end, it is back.
#[derive(Debug)]
pub struct Outage {
    _lock: StartLock,
}

/// `.runtime/postgres` of the repository.
pub fn runtime_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.runtime/postgres")
}

/// The process that cleans up: it waits for the end of its input, which this process holds.
fn companion(postgres: &Postgres, folder: &Path) -> Result<(), StoreError> {
    let script =
        r#"cat >/dev/null; kill -QUIT "$(head -n 1 "$1/postmaster.pid")" 2>/dev/null; sleep 0.5; rm -rf "$2" "$3""#;
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh"]).args([postgres.cluster(), postgres.socket_dir(), folder]);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let child = command.spawn().map_err(|error| StoreError::blob("starting the test cluster's companion", error))?;
    // Never dropped: the pipe closes with this process.
    std::mem::forget(child);
    Ok(())
}

/// A fresh database with its blob folder.
#[derive(Debug)]
pub struct TestDatabase {
    pub store: Store,
    pub url: SecretString,
    pub blobs_dir: PathBuf,
}

static CLUSTER: OnceCell<TestCluster> = OnceCell::const_new();
static MADE: AtomicU32 = AtomicU32::new(0);

impl TestDatabase {
    /// Makes a migrated database on the process's own cluster, which ends with the process.
    ///
    /// # Errors
    /// [`StoreError::Embedded`] where there is no `.runtime/`; [`StoreError::Unavailable`].
    pub async fn create() -> Result<Self, StoreError> {
        Self::with(|_| {}).await
    }

    /// Like [`Self::create`], with options changed by the test (timings, connections).
    ///
    /// # Errors
    /// As [`Self::create`].
    pub async fn with(change: impl FnOnce(&mut StoreOptions)) -> Result<Self, StoreError> {
        Self::copied_from(TEMPLATE, change).await
    }

    /// A database without any table.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub async fn empty() -> Result<Self, StoreError> {
        Self::copied_from("template0", |_| {}).await
    }

    async fn copied_from(template: &str, change: impl FnOnce(&mut StoreOptions)) -> Result<Self, StoreError> {
        let cluster = cluster().await?;
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("test_{number}");
        let mut connection = PgConnection::connect(cluster.postgres.url().expose_secret()).await?;
        // Names are ours, so there is nothing to quote.
        let statement = format!("create database {name} template {template}");
        sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&mut connection).await?;
        connection.close().await?;
        let url = cluster.postgres.url_of(&name);
        let blobs_dir = cluster.folder.join("blobs").join(&name);
        let mut options = StoreOptions::new(url.clone(), &blobs_dir);
        // Several tests at once share one cluster's connections.
        options.max_connections = 8;
        change(&mut options);
        let store = Store::connect(options).await?;
        Ok(Self { store, url, blobs_dir })
    }
}

/// Starts the cluster and makes the template at first. The cluster lives on its own thread's runtime: a test's runtime
/// ends with the test.
async fn cluster() -> Result<&'static TestCluster, StoreError> {
    CLUSTER
        .get_or_try_init(|| async {
            let (sender, receiver) = tokio::sync::oneshot::channel();
            std::thread::spawn(move || match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime.block_on(async {
                    let _ = sender.send(prepared().await);
                    std::future::pending::<()>().await;
                }),
                Err(error) => drop(sender.send(Err(StoreError::blob("starting a runtime", error)))),
            });
            let reason = |_| StoreError::blob("starting the test cluster", "its thread ended");
            receiver.await.map_err(reason)?
        })
        .await
}

async fn prepared() -> Result<TestCluster, StoreError> {
    let cluster = TestCluster::start().await?;
    let mut connection = PgConnection::connect(cluster.postgres.url().expose_secret()).await?;
    let statement = format!("create database {TEMPLATE}");
    sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&mut connection).await?;
    connection.close().await?;
    let store =
        Store::connect(StoreOptions::new(cluster.postgres.url_of(TEMPLATE), cluster.folder.join("blobs"))).await?;
    store.migrate().await?;
    // A template is only copied while nobody is connected to it.
    store.close().await;
    Ok(cluster)
}
