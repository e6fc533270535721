//! The cluster made and the server run.

use std::{
    fs::{self, OpenOptions},
    path::{Path, PathBuf},
    process::{Child, Command},
    str::FromStr,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use secrecy::ExposeSecret;
use sqlx::{Connection, PgConnection, postgres::PgConnectOptions};

use super::{
    blocking,
    error::{EmbeddedError, io},
    layout::{DATABASE, Layout, SUPERUSER, write_private},
};

/// Crash recovery may take a while; without it, Postgres is ready in about a second.
const READY_SECONDS: u64 = 90;
/// Backends of a killed server may hold its memory for a moment; until then a new one gives up at once.
const RETRY_START: Duration = Duration::from_secs(10);
const STOP_POLITELY: Duration = Duration::from_secs(10);
const STOP_AT_ONCE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(20);
/// The log is begun anew when it has grown beyond this.
const LOG_BYTES: u64 = 10 << 20;
/// Small, for a service that shares its machine with training.
const SETTINGS: [&str; 9] = [
    "listen_addresses=",
    "unix_socket_permissions=0700",
    "shared_buffers=64MB",
    "max_connections=60",
    "max_wal_senders=0",
    "wal_level=minimal",
    "max_parallel_workers=2",
    "jit=off",
    "log_min_messages=warning",
];

/// A running server; `child` where this process started it.
#[derive(Debug)]
pub(super) struct Server {
    child: Option<Child>,
}

impl Server {
    /// Makes the cluster at first, and starts the server where none runs. The caller holds the start lock.
    pub(super) async fn ensure(layout: &std::sync::Arc<Layout>) -> Result<Self, EmbeddedError> {
        let for_setup = std::sync::Arc::clone(layout);
        blocking(move || {
            if !for_setup.cluster.join("PG_VERSION").exists() {
                make_cluster(&for_setup)?;
            }
            check_version(&for_setup)
        })
        .await?;
        let mut server = Self { child: None };
        server.run_until_ready(layout).await?;
        Ok(server)
    }

    async fn run_until_ready(&mut self, layout: &Layout) -> Result<(), EmbeddedError> {
        let begun = Instant::now();
        loop {
            let reason = match connect(layout, DATABASE).await {
                Ok(connection) => {
                    let _ = connection.close().await;
                    return Ok(());
                }
                Err(error) if is_missing_database(&error) => {
                    create_database(layout).await?;
                    continue;
                }
                Err(error) => error.to_string(),
            };
            let died = self.child_died();
            if self.child.is_none() && postmaster(layout).is_none() {
                if died && begun.elapsed() > RETRY_START {
                    return Err(not_ready(layout, begun, "it ended at once"));
                }
                self.child = Some(spawn(layout)?);
            } else if begun.elapsed().as_secs() > READY_SECONDS {
                return Err(not_ready(layout, begun, &reason));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Reaps a child that has ended; gives whether there was one.
    fn child_died(&mut self) -> bool {
        let died = self.child.as_mut().is_some_and(|child| !matches!(child.try_wait(), Ok(None)));
        if died {
            self.child = None;
        }
        died
    }

    pub(super) fn is_alive(&mut self, layout: &Layout) -> bool {
        self.child_died();
        self.child.is_some() || postmaster(layout).is_some()
    }

    /// Ends the server: open connections are closed, what is committed is kept.
    pub(super) async fn stop(&mut self, layout: &Layout) -> Result<(), EmbeddedError> {
        for (signal, patience) in [(Signal::INT, STOP_POLITELY), (Signal::QUIT, STOP_AT_ONCE)] {
            let Some(pid) = postmaster(layout) else { break };
            let _ = kill_process(pid, signal);
            let deadline = Instant::now() + patience;
            while Instant::now() < deadline && self.is_alive(layout) {
                tokio::time::sleep(POLL).await;
            }
        }
        match postmaster(layout) {
            None => Ok(()),
            Some(_) => Err(not_ready(layout, Instant::now(), "it does not stop")),
        }
    }
}

fn not_ready(layout: &Layout, begun: Instant, reason: &str) -> EmbeddedError {
    let log = fs::read(layout.log()).unwrap_or_default();
    let tail = log.get(log.len().saturating_sub(2000)..).unwrap_or_default();
    let log = String::from_utf8_lossy(tail).into_owned();
    EmbeddedError::NotReady { seconds: begun.elapsed().as_secs(), reason: reason.to_owned(), log }
}

/// The process of this cluster's server. The file that names it may be left from a crash, and its number may belong to
/// another process by now; a server works in its cluster's folder.
pub(super) fn postmaster(layout: &Layout) -> Option<Pid> {
    let text = fs::read_to_string(layout.cluster.join("postmaster.pid")).ok()?;
    let number: i32 = text.lines().next()?.trim().parse().ok()?;
    let pid = Pid::from_raw(number)?;
    let folder = fs::read_link(format!("/proc/{number}/cwd")).ok()?;
    (folder == layout.cluster).then_some(pid)
}

fn run(mut command: Command, program: &'static str) -> Result<String, EmbeddedError> {
    let output = command.output().map_err(io("running", Path::new(program)))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let output_text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(EmbeddedError::Failed { program, status: output.status.to_string(), output: output_text })
}

/// Makes the cluster beside its place and renames it, so that an interrupted start leaves no half of one.
fn make_cluster(layout: &Layout) -> Result<(), EmbeddedError> {
    let staging = layout.place.join("postgres.new");
    match fs::remove_dir_all(&staging) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io("removing", &staging)(error)),
        _ => {}
    }
    fs::create_dir(&staging).map_err(io("making", &staging))?;
    layout.give(&staging)?;
    let secret = staging.join("password");
    let data = staging.join("data");
    write_private(&secret, layout.password())?;
    layout.give(&secret)?;
    let mut command = layout.identity.command(&layout.bin.join("initdb"));
    command.arg("--pgdata").arg(&data).arg("--username").arg(SUPERUSER);
    command.arg("--pwfile").arg(&secret).args(["--auth=scram-sha-256", "--encoding=UTF8", "--no-locale"]);
    if !layout.durable {
        command.arg("--no-sync");
    }
    run(command, "initdb")?;
    fs::rename(&data, &layout.cluster).map_err(io("renaming", &data))?;
    fs::remove_dir_all(&staging).map_err(io("removing", &staging))
}

fn check_version(layout: &Layout) -> Result<(), EmbeddedError> {
    let path = layout.cluster.join("PG_VERSION");
    let found = fs::read_to_string(&path).map_err(io("reading", &path))?.trim().to_owned();
    let mut command = layout.identity.command(&layout.bin.join("postgres"));
    command.arg("--version");
    // Such as `postgres (PostgreSQL) 18.6`.
    let text = run(command, "postgres")?;
    let ours = text.split_whitespace().nth(2).and_then(|version| version.split('.').next()).unwrap_or_default();
    if found == ours {
        return Ok(());
    }
    Err(EmbeddedError::OtherVersion { cluster: layout.cluster.clone(), found, ours: ours.to_owned() })
}

fn spawn(layout: &Layout) -> Result<Child, EmbeddedError> {
    let pid_file = layout.cluster.join("postmaster.pid");
    // `postmaster` found that no server of this cluster runs, so the file speaks of a dead one; Postgres would believe
    // it where the number belongs to another process of the same user.
    let _ = fs::remove_file(&pid_file);
    let log = layout.log();
    let fresh = fs::metadata(&log).is_ok_and(|metadata| metadata.len() > LOG_BYTES);
    let mut options = OpenOptions::new();
    let file = options.create(true).write(true).truncate(fresh).append(!fresh).open(&log);
    let file = file.map_err(io("opening", &log))?;
    let copy = file.try_clone().map_err(io("opening", &log))?;
    let mut command = layout.identity.command(&layout.bin.join("postgres"));
    command.arg("-D").arg(&layout.cluster).arg("-k").arg(&layout.socket_dir).stdout(copy).stderr(file);
    for setting in SETTINGS {
        command.args(["-c", setting]);
    }
    if !layout.durable {
        command.args(["-c", "fsync=off", "-c", "full_page_writes=off"]);
    }
    let program: PathBuf = layout.bin.join("postgres");
    command.spawn().map_err(io("starting", &program))
}

async fn connect(layout: &Layout, database: &str) -> Result<PgConnection, sqlx::Error> {
    let options = PgConnectOptions::from_str(layout.url(database).expose_secret())?;
    let attempt = PgConnection::connect_with(&options);
    match tokio::time::timeout(Duration::from_secs(5), attempt).await {
        Ok(result) => result,
        Err(_) => Err(sqlx::Error::PoolTimedOut),
    }
}

fn is_missing_database(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(|error| error.code()).is_some_and(|code| code == "3D000")
}

async fn create_database(layout: &Layout) -> Result<(), EmbeddedError> {
    let attempt = async {
        let mut connection = connect(layout, "postgres").await?;
        sqlx::query("create database finetuned").execute(&mut connection).await?;
        connection.close().await
    };
    attempt.await.map_err(|error: sqlx::Error| not_ready(layout, Instant::now(), &error.to_string()))
}
