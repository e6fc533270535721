#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use finetuned_protocol::{
    error::{ErrorCode, JobError},
    status::{JobStatus, TaskKind},
};
use serde_json::json;

use crate::{
    GcOptions, Idempotency, MetricQuery, NewCheckpoint, NewMetric, Report, StoreError, StoredFile, fingerprint,
    testing::{TestDatabase, fixtures},
};

#[tokio::test]
async fn a_retry_goes_on_from_the_last_checkpoint_and_shares_its_bytes() {
    let database = TestDatabase::create().await.unwrap();
    let store = &database.store;
    let tenant = fixtures::tenant(store, "acme").await.unwrap();
    let other = fixtures::tenant(store, "other").await.unwrap();
    let worker = fixtures::worker(store).await.unwrap();
    let lease = fixtures::training(store, tenant, &worker).await.unwrap();
    store.set_priority(tenant, lease.job.id, 7).await.unwrap();
    let content = store.put_bytes(tenant, Bytes::from_static(b"weights")).await.unwrap();
    let files = vec![StoredFile { name: "adapter.safetensors".to_owned(), content }];
    let metric = |step| NewMetric { name: "train_loss".to_owned(), step, value: 1.0 };
    let report = Report { last_line: 1, metrics: vec![metric(1), metric(2), metric(3)], ..Report::default() };
    store.report(&lease.key, &report).await.unwrap();
    let checkpoint = NewCheckpoint { step: 2, metrics: json!({"train_loss": 1.0}), files };
    store.publish_checkpoint(&lease.key, &checkpoint).await.unwrap();
    store.fail(&lease.key, JobError::new(ErrorCode::InternalError, "broken").after_step(3)).await.unwrap();

    let old = lease.job.id;
    let request = |key: Option<&str>| Idempotency {
        caller: None,
        route: "retry",
        client_key: key.map(str::to_owned),
        retry_count: 0,
        fingerprint: fingerprint(&[b"x"]),
        received: std::time::Instant::now(),
    };
    let foreign = store.retry_job(other, old, &request(None)).await;
    assert!(matches!(foreign, Err(StoreError::NotFound { what: "job" })), "{foreign:?}");
    let made = store.retry_job(tenant, old, &request(Some("k"))).await.unwrap();
    assert!(made.is_new());
    let again = store.retry_job(tenant, old, &request(Some("k"))).await.unwrap();
    assert!(!again.is_new());
    let (made, again) = (made.into_inner(), again.into_inner());
    assert_eq!((made.id, made.retry_of, made.priority), (again.id, Some(old), 7));
    assert_eq!((made.status, made.seed), (JobStatus::ValidatingFiles, lease.job.seed));
    assert_eq!(store.get_job(tenant, old).await.unwrap().status, JobStatus::Failed);

    let validation = store.claim(&worker, TaskKind::ALL).await.unwrap().unwrap();
    store.finish_validation(&validation.key, &fixtures::validated(&made).unwrap()).await.unwrap();
    let training = store.claim(&worker, TaskKind::ALL).await.unwrap().unwrap();
    assert_eq!((training.job.id, training.checkpoints.len(), training.checkpoints[0].step), (made.id, 1, 2));
    assert_eq!(training.checkpoints[0].files[0].content, checkpoint.files[0].content);
    let series = store.metrics(tenant, made.id, MetricQuery::ALL).await.unwrap();
    assert_eq!(
        series[0].points.iter().map(|point| point.step).collect::<Vec<_>>(),
        [1, 2],
        "not beyond the checkpoint"
    );
    // The old job's end does not take the new one's bytes along.
    sqlx::query("delete from jobs where id = $1").bind(old.0).execute(store.pool()).await.unwrap();
    let all = GcOptions { min_age: std::time::Duration::ZERO, dry_run: false };
    store.collect_garbage(all).await.unwrap();
    assert_eq!(&store.get_blob_bytes(checkpoint.files[0].content.id).await.unwrap()[..], b"weights");
}

#[tokio::test]
async fn a_retry_wants_the_same_base_model() {
    let database = TestDatabase::create().await.unwrap();
    let store = &database.store;
    let tenant = fixtures::tenant(store, "acme").await.unwrap();
    let job = fixtures::job(store, tenant).await.unwrap();
    store.cancel_job(tenant, job.id).await.unwrap();
    let request = || Idempotency {
        caller: None,
        route: "retry",
        client_key: None,
        retry_count: 0,
        fingerprint: fingerprint(&[b"x"]),
        received: std::time::Instant::now(),
    };
    sqlx::query("update base_models set sha256 = repeat('f', 64)").execute(store.pool()).await.unwrap();
    let error = store.retry_job(tenant, job.id, &request()).await.unwrap_err().to_string();
    assert!(error.contains("another"), "{error}");
    sqlx::query("delete from base_models").execute(store.pool()).await.unwrap();
    let error = store.retry_job(tenant, job.id, &request()).await.unwrap_err().to_string();
    assert!(error.contains("gone"), "{error}");
}

#[tokio::test]
async fn places_follow_claims_and_priority() {
    let database = TestDatabase::create().await.unwrap();
    let store = &database.store;
    let tenants = [fixtures::tenant(store, "a").await.unwrap(), fixtures::tenant(store, "b").await.unwrap()];
    let worker = fixtures::worker(store).await.unwrap();
    let mut jobs = Vec::new();
    for owner in [0, 0, 0, 1, 1] {
        let job = fixtures::job(store, tenants[owner]).await.unwrap();
        let validation = store.claim(&worker, &[TaskKind::Validate]).await.unwrap().unwrap();
        store.finish_validation(&validation.key, &fixtures::validated(&job).unwrap()).await.unwrap();
        jobs.push((tenants[owner], job.id));
    }
    let (tenant, urgent) = jobs[2];
    store.set_priority(tenant, urgent, 1).await.unwrap();
    // The order that is foreseen is the order that comes, one after another.
    for _ in 0..jobs.len() {
        let mut first = None;
        for (tenant, job) in &jobs {
            let job = store.get_job(*tenant, *job).await.unwrap();
            if let Some(place) = job.line.filter(|place| place.position == Some(1)) {
                assert_eq!(place.starts_in_seconds, Some(0));
                assert!(first.replace(job.id).is_none(), "two are first");
            }
        }
        let lease = store.claim(&worker, &[TaskKind::Train]).await.unwrap().unwrap();
        assert_eq!(Some(lease.job.id), first);
        store.fail(&lease.key, JobError::new(ErrorCode::InternalError, "x")).await.unwrap();
    }
}

#[tokio::test]
async fn logs_are_kept_by_attempt_and_only_the_newest_twenty() {
    let database = TestDatabase::create().await.unwrap();
    let store = &database.store;
    let tenant = fixtures::tenant(store, "acme").await.unwrap();
    let worker = fixtures::worker(store).await.unwrap();
    let mut lease = fixtures::training(store, tenant, &worker).await.unwrap();
    let job = lease.job.id;
    store.record_log(&lease.key, &["old".to_owned()]).await.unwrap();
    for number in 1..=25 {
        store.record_log(&lease.key, &[format!("line {number}\0")]).await.unwrap();
        let key = lease.key;
        let step = JobError::new(ErrorCode::EngineCrashed, "gone").after_step(number);
        store.release(&key, crate::Release::Crashed(step)).await.unwrap();
        assert!(matches!(store.record_log(&key, &[]).await, Err(StoreError::LeaseLost)));
        lease = store.claim(&worker, TaskKind::ALL).await.unwrap().unwrap();
    }
    let logs = store.attempt_logs(tenant, job).await.unwrap();
    assert_eq!((logs.len(), logs[0].attempt, logs[0].lines[0].as_str()), (20, 25, "line 25\u{fffd}"));
    let other = fixtures::tenant(store, "other").await.unwrap();
    assert!(matches!(store.attempt_logs(other, job).await, Err(StoreError::NotFound { .. })));
}
