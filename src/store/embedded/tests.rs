#![allow(clippy::unwrap_used, clippy::expect_used)]
//! The embedded Postgres: start, join, crash, stop; as root and not.

use std::{os::unix::fs::MetadataExt, path::Path};

use secrecy::ExposeSecret;
use sqlx::{Connection, PgConnection};

use super::*;
use crate::testing::runtime_dir;

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn options(data_dir: &Path) -> EmbeddedOptions {
    EmbeddedOptions { data_dir: data_dir.to_owned(), runtime_dir: runtime_dir() }
}

/// Lets others enter it, as they can a data directory made under /var/lib; else root's cluster would lie elsewhere.
fn open_to_others(data_dir: &Path) {
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(data_dir, mode).unwrap();
}

async fn start(data_dir: &Path) -> Postgres {
    open_to_others(data_dir);
    Postgres::start_with(options(data_dir), false).await.unwrap()
}

async fn answer(postgres: &Postgres, statement: &'static str) -> i32 {
    let mut connection = PgConnection::connect(postgres.url().expose_secret()).await.unwrap();
    sqlx::query_scalar(statement).fetch_one(&mut connection).await.unwrap()
}

async fn execute(postgres: &Postgres, statement: &'static str) {
    let mut connection = PgConnection::connect(postgres.url().expose_secret()).await.unwrap();
    sqlx::query(statement).execute(&mut connection).await.unwrap();
}

#[tokio::test]
async fn data_survive_a_stop_and_the_second_start_is_quick() {
    let folder = folder();
    let postgres = start(folder.path()).await;
    let socket_dir = postgres.layout.socket_dir.clone();
    assert_eq!(std::fs::metadata(&socket_dir).unwrap().mode() & 0o777, 0o700);
    assert_eq!(std::fs::metadata(folder.path().join("postgres.password")).unwrap().mode() & 0o777, 0o600);
    execute(&postgres, "create table kept as select 7 as number").await;
    assert!(postgres.stop().await.unwrap());

    let begun = std::time::Instant::now();
    let postgres = start(folder.path()).await;
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    assert_eq!(answer(&postgres, "select number from kept").await, 7);
    assert!(postgres.stop().await.unwrap());
    std::fs::remove_dir_all(socket_dir).unwrap();
}

#[tokio::test]
async fn the_server_does_not_run_as_root_and_wants_the_password() {
    let folder = folder();
    let postgres = start(folder.path()).await;
    let pid = server::postmaster(&postgres.layout).unwrap();
    let owner = std::fs::metadata(format!("/proc/{}", pid.as_raw_nonzero())).unwrap().uid();
    if !matches!(postgres.layout.identity, identity::Identity::Namespace { .. }) {
        assert_ne!(owner, 0);
        assert_eq!(owner, postgres.layout.identity.uid());
    }
    let url = postgres.url().expose_secret().replace(postgres.layout.password(), "guess");
    let refused = PgConnection::connect(&url).await.unwrap_err();
    assert!(refused.to_string().contains("password authentication failed"), "{refused}");
    let socket_dir = postgres.layout.socket_dir.clone();
    postgres.stop().await.unwrap();
    std::fs::remove_dir_all(socket_dir).unwrap();
}

#[tokio::test]
async fn a_second_user_joins_and_the_last_one_stops_it() {
    let folder = folder();
    let serve = start(folder.path()).await;
    let worker = start(folder.path()).await;
    let pid = server::postmaster(&serve.layout).unwrap();
    assert_eq!(server::postmaster(&worker.layout), Some(pid));
    assert!(!serve.stop().await.unwrap(), "the worker still needs it");
    assert_eq!(answer(&worker, "select 1").await, 1);
    let socket_dir = worker.layout.socket_dir.clone();
    assert!(worker.stop().await.unwrap());
    std::fs::remove_dir_all(socket_dir).unwrap();
}

#[tokio::test]
async fn a_crash_is_recovered_from_while_it_is_in_use() {
    let folder = folder();
    let postgres = start(folder.path()).await;
    execute(&postgres, "create table kept as select 8 as number").await;
    let pid = postgres.server_process().unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    while postgres.server_process().is_none_or(|now| now == pid) {
        assert!(std::time::Instant::now() < deadline, "it was not started again");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // The start lock is held until it answers.
    drop(StartLock::take(folder.path()).await.unwrap());
    assert_eq!(answer(&postgres, "select number from kept").await, 8);
    let socket_dir = postgres.layout.socket_dir.clone();
    postgres.stop().await.unwrap();
    std::fs::remove_dir_all(socket_dir).unwrap();
}

#[tokio::test]
async fn a_pid_file_left_from_a_crash_is_not_believed() {
    let folder = folder();
    let postgres = start(folder.path()).await;
    let pid_file = postgres.layout.cluster.join("postmaster.pid");
    let socket_dir = postgres.layout.socket_dir.clone();
    let left = std::fs::read_to_string(&pid_file).unwrap();
    assert!(postgres.stop().await.unwrap());
    // The number now belongs to a living process that is no Postgres: this one.
    let rest = left.split_once('\n').unwrap().1;
    std::fs::write(&pid_file, format!("{}\n{rest}", std::process::id())).unwrap();
    let postgres = start(folder.path()).await;
    assert_eq!(answer(&postgres, "select 1").await, 1);
    postgres.stop().await.unwrap();
    std::fs::remove_dir_all(socket_dir).unwrap();
}

#[tokio::test]
async fn a_cluster_of_another_version_is_refused() {
    let folder = folder();
    let postgres = start(folder.path()).await;
    let cluster = postgres.layout.cluster.clone();
    let socket_dir = postgres.layout.socket_dir.clone();
    postgres.stop().await.unwrap();
    std::fs::write(cluster.join("PG_VERSION"), "99\n").unwrap();
    let refused = Postgres::start_with(options(folder.path()), false).await.unwrap_err();
    assert!(matches!(&refused, EmbeddedError::OtherVersion { found, .. } if found == "99"), "{refused}");
    std::fs::remove_dir_all(socket_dir).unwrap();
}

#[tokio::test]
async fn without_a_runtime_the_error_says_what_to_do() {
    let folder = folder();
    let options = EmbeddedOptions { data_dir: folder.path().join("data"), runtime_dir: folder.path().join("none") };
    let refused = Postgres::start(options).await.unwrap_err();
    assert!(refused.to_string().contains("make runtime"), "{refused}");
}

/// Root's data directory may lie where no other user can go, such as /root.
#[tokio::test]
async fn as_root_a_closed_data_directory_gets_its_cluster_elsewhere() {
    if rustix::process::geteuid().as_raw() != 0 {
        return;
    }
    let folder = folder();
    let closed = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    std::fs::set_permissions(folder.path(), closed).unwrap();
    let data_dir = folder.path().join("data");
    let postgres = Postgres::start_with(options(&data_dir), false).await.unwrap();
    execute(&postgres, "create table kept as select 9 as number").await;
    assert_eq!(std::fs::metadata(folder.path()).unwrap().mode() & 0o777, 0o700, "modes of parents are not changed");
    let (place, socket_dir) = (postgres.layout.place.clone(), postgres.layout.socket_dir.clone());
    assert!(!place.starts_with(folder.path()), "{}", place.display());
    assert!(postgres.stop().await.unwrap());
    let again = Postgres::start_with(options(&data_dir), false).await.unwrap();
    assert_eq!(again.layout.place, place);
    assert_eq!(answer(&again, "select number from kept").await, 9);
    again.stop().await.unwrap();
    std::fs::remove_dir_all(place).unwrap();
    std::fs::remove_dir_all(socket_dir).unwrap();
}

/// Where root may not become another user, it still may have a user namespace.
#[tokio::test]
async fn as_root_a_user_namespace_serves_too() {
    let Some(identity) = identity::namespace().filter(|identity| identity.works().is_ok()) else { return };
    if rustix::process::geteuid().as_raw() != 0 {
        return;
    }
    let folder = folder();
    open_to_others(folder.path());
    let mut layout = Layout::prepare(&options(folder.path()), false).unwrap();
    layout.identity = identity;
    layout.cluster = folder.path().canonicalize().unwrap().join("postgres");
    layout.place = folder.path().canonicalize().unwrap();
    let _ = std::os::unix::fs::chown(&layout.socket_dir, Some(0), Some(0));
    let layout = Arc::new(layout);
    let mut server = Server::ensure(&layout).await.unwrap();
    let url = layout.url(layout::DATABASE);
    let mut connection = PgConnection::connect(url.expose_secret()).await.unwrap();
    let one: i32 = sqlx::query_scalar("select 1").fetch_one(&mut connection).await.unwrap();
    assert_eq!(one, 1);
    server.stop(&layout).await.unwrap();
    std::fs::remove_dir_all(&layout.socket_dir).unwrap();
}
