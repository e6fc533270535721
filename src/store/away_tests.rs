#![allow(clippy::unwrap_used, clippy::expect_used)]
//! Postgres away and back: errors that say so, connections and wake-ups that come again, no lease taken unjustly.

use std::time::{Duration, Instant};

use finetuned_protocol::status::TaskKind;

use crate::{
    Store, StoreOptions, Timings, Wake,
    testing::{TestCluster, fixtures},
};

async fn until_back(store: &Store) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while let Err(error) = store.ping().await {
        assert!(error.is_unavailable(), "{error}");
        assert!(Instant::now() < deadline, "Postgres did not come back: {error}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_killed_postgres_is_unavailable_and_then_back_with_everything() {
    let cluster = TestCluster::start().await.unwrap();
    let expiry = Duration::from_secs(2);
    let mut options = StoreOptions::new(cluster.postgres.url(), cluster.folder.join("blobs"));
    options.timings = Timings { expiry, ..Timings::default() };
    let store = Store::connect(options).await.unwrap();
    store.migrate().await.unwrap();
    let mut wakeups = store.listen();
    assert_eq!(wakeups.next().await, Wake::Everything);
    let tenant = fixtures::tenant(&store, "acme").await.unwrap();
    let worker = fixtures::worker(&store).await.unwrap();
    let lease = fixtures::training(&store, tenant, &worker).await.unwrap();

    let outage = cluster.outage().await.unwrap();
    let error = store.heartbeat(&lease.key).await.unwrap_err();
    assert!(error.is_unavailable(), "{error}");
    assert!(store.scan_expired().await.unwrap_err().is_unavailable());
    drop(outage);
    until_back(&store).await;
    // The lease is old by now, but workers had no chance to renew it.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(store.scan_expired().await.unwrap(), 0);
    store.heartbeat(&lease.key).await.unwrap();

    // Wake-ups come again without anyone's doing.
    let again = async { while wakeups.next().await != Wake::Everything {} };
    tokio::time::timeout(Duration::from_secs(10), again).await.unwrap();
    fixtures::job(&store, tenant).await.unwrap();
    let woken = tokio::time::timeout(Duration::from_secs(5), wakeups.next()).await.unwrap();
    assert!(matches!(woken, Wake::Tasks | Wake::Jobs), "{woken:?}");

    // A worker that stays silent for one expiry after that loses its task.
    tokio::time::sleep(expiry + Duration::from_millis(200)).await;
    let deadline = Instant::now() + Duration::from_secs(10);
    while store.scan_expired().await.unwrap() == 0 {
        assert!(Instant::now() < deadline, "the lease was not taken back");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(store.claim(&worker, &[TaskKind::Train]).await.unwrap().is_some());
    store.close().await;
    cluster.postgres.stop().await.unwrap();
}

#[tokio::test]
async fn a_scanner_that_had_an_error_gives_workers_one_expiry() {
    let expiry = Duration::from_millis(600);
    let timings = Timings { expiry, ..Timings::default() };
    let database = crate::testing::TestDatabase::with(|options| options.timings = timings).await.unwrap();
    let store = database.store;
    let tenant = fixtures::tenant(&store, "acme").await.unwrap();
    let worker = fixtures::worker(&store).await.unwrap();
    fixtures::training(&store, tenant, &worker).await.unwrap();
    tokio::time::sleep(expiry + Duration::from_millis(50)).await;
    // The table is locked for longer than a statement may wait: the scanner's own trouble.
    let mut blocker = store.pool().begin().await.unwrap();
    sqlx::query("lock table tasks in access exclusive mode").execute(&mut *blocker).await.unwrap();
    let error = store.scan_expired().await.unwrap_err();
    assert!(error.is_unavailable(), "{error}");
    blocker.rollback().await.unwrap();
    assert_eq!(store.scan_expired().await.unwrap(), 0);
    assert_eq!(store.scan_expired().await.unwrap(), 0);
    tokio::time::sleep(expiry).await;
    assert_eq!(store.scan_expired().await.unwrap(), 1);
}

#[tokio::test]
async fn nobody_there_is_unavailable_and_quickly_so() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("postgres://finetuned@localhost/finetuned?host={}", folder.path().display());
    let begun = Instant::now();
    let error = Store::connect(StoreOptions::new(url.into(), folder.path().join("blobs"))).await.unwrap_err();
    assert!(error.is_unavailable(), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(6));
}
