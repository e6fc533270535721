#![allow(clippy::unwrap_used, clippy::expect_used)]
//! Jobs as clients see them: lists, controls, idempotency, tenants apart.

use std::{
    collections::{BTreeMap, HashSet},
    time::{Duration, Instant},
};

use finetuned_protocol::{
    ids::{EventId, FileId, TenantId},
    status::{FileStatus, TaskKind},
};

use super::*;
use crate::{
    Created, Idempotency, MetricQuery, NewFile, Store, StoreError, Suspension, fingerprint,
    testing::{TestDatabase, fixtures},
};

async fn fresh() -> (Store, TenantId) {
    let store = TestDatabase::create().await.unwrap().store;
    let tenant = fixtures::tenant(&store, "acme").await.unwrap();
    (store, tenant)
}

fn request(retry_count: u32, client_key: Option<&str>, body: &str) -> Idempotency {
    Idempotency {
        caller: None,
        route: "POST /v1/fine_tuning/jobs",
        client_key: client_key.map(str::to_owned),
        retry_count,
        fingerprint: fingerprint(&[body.as_bytes()]),
        received: Instant::now(),
    }
}

async fn ready(store: &Store, tenant: TenantId) -> NewJob {
    fixtures::model(store).await.unwrap();
    fixtures::new_job(fixtures::file(store, tenant).await.unwrap()).unwrap()
}

#[tokio::test]
async fn jobs_are_listed_newest_first_and_filtered_by_metadata() {
    let (store, tenant) = fresh().await;
    let mut new = ready(&store, tenant).await;
    let mut ids = Vec::new();
    for index in 0..5 {
        new.request.metadata = (index % 2 == 0).then(|| BTreeMap::from([("n".to_owned(), index.to_string())]));
        ids.push(store.create_job(tenant, new.clone(), None).await.unwrap().into_inner().id);
    }
    ids.reverse();
    let list = async |after, limit, metadata| {
        let page = store.list_jobs(tenant, &JobPage { after, limit, metadata }).await.unwrap();
        (page.data.iter().map(|job| job.id).collect::<Vec<_>>(), page.has_more)
    };
    assert_eq!(list(None, 5, MetadataFilter::Any).await, (ids.clone(), false));
    assert_eq!(list(None, 2, MetadataFilter::Any).await, (ids[..2].to_vec(), true));
    assert_eq!(list(Some(ids[1]), 2, MetadataFilter::Any).await, (ids[2..4].to_vec(), true));
    assert_eq!(list(None, 9, MetadataFilter::Absent).await, (vec![ids[1], ids[3]], false));
    let four = MetadataFilter::Contains(BTreeMap::from([("n".to_owned(), "4".to_owned())]));
    assert_eq!(list(None, 9, four).await, (vec![ids[0]], false));
    let unknown = JobPage { after: Some(JobId::generate()), limit: 1, metadata: MetadataFilter::Any };
    assert!(matches!(store.list_jobs(tenant, &unknown).await, Err(StoreError::NotFound { what: "after" })));
}

#[tokio::test]
async fn a_job_needs_its_model_and_usable_files() {
    let (store, tenant) = fresh().await;
    let good = ready(&store, tenant).await;
    let mut bad = good.clone();
    bad.request.model = "gpt-4o".to_owned();
    let refused = store.create_job(tenant, bad, None).await;
    assert!(matches!(refused, Err(StoreError::NotFound { what: "model" })));
    let bad = NewJob { training_file: FileId::generate(), ..good.clone() };
    let refused = store.create_job(tenant, bad, None).await;
    assert!(matches!(refused, Err(StoreError::NotFound { what: "training_file" })));
    let broken = NewFile {
        status: FileStatus::Error,
        status_details: Some("line 3 has no answer".to_owned()),
        ..fixtures::new_file(&store, tenant).await.unwrap()
    };
    let broken = store.create_file(tenant, broken, None).await.unwrap().into_inner().id;
    let bad = NewJob { validation_file: Some(broken), ..good };
    let refused = store.create_job(tenant, bad, None).await.unwrap_err();
    assert!(refused.to_string().contains("line 3"), "{refused}");
}

#[tokio::test]
async fn tenants_do_not_see_each_other() {
    let (store, tenant) = fresh().await;
    let other = fixtures::tenant(&store, "other").await.unwrap();
    let job = fixtures::job(&store, tenant).await.unwrap();
    let file = job.training_file;
    let missing =
        |result: Result<(), StoreError>| assert!(matches!(result, Err(StoreError::NotFound { .. })), "{result:?}");
    missing(store.get_job(other, job.id).await.map(drop));
    missing(store.cancel_job(other, job.id).await.map(drop));
    missing(store.pause_job(other, job.id).await.map(drop));
    missing(store.resume_job(other, job.id).await.map(drop));
    missing(store.list_events(other, job.id, None, 9).await.map(drop));
    missing(store.events_since(other, job.id, 0, 9).await.map(drop));
    missing(store.metrics(other, job.id, MetricQuery::ALL).await.map(drop));
    missing(store.list_checkpoints(other, job.id, None, 9).await.map(drop));
    missing(store.artifacts(other, job.id).await.map(drop));
    missing(store.get_file(other, file).await.map(drop));
    missing(store.delete_file(other, file).await);
    missing(store.create_job(other, fixtures::new_job(file).unwrap(), None).await.map(drop));
    let after = JobPage { after: Some(job.id), limit: 9, metadata: MetadataFilter::Any };
    missing(store.list_jobs(other, &after).await.map(drop));
    assert!(store.list_jobs(other, &JobPage { after: None, ..after }).await.unwrap().data.is_empty());
    // Bytes of another tenant cannot be made a file of one's own.
    let stolen = fixtures::new_file(&store, tenant).await.unwrap();
    assert!(matches!(store.create_file(other, stolen, None).await, Err(StoreError::Conflict { .. })));
    assert_eq!(store.get_job(tenant, job.id).await.unwrap(), job);
}

#[tokio::test]
async fn events_are_paged_newest_first() {
    let (store, tenant) = fresh().await;
    let job = fixtures::job(&store, tenant).await.unwrap();
    store.pause_job(tenant, job.id).await.unwrap();
    store.resume_job(tenant, job.id).await.unwrap();
    let first = store.list_events(tenant, job.id, None, 2).await.unwrap();
    assert_eq!((first.data.iter().map(|event| event.sequence).collect::<Vec<_>>(), first.has_more), (vec![3, 2], true));
    let rest = store.list_events(tenant, job.id, Some(first.data[1].id), 2).await.unwrap();
    assert_eq!((rest.data[0].sequence, rest.data.len(), rest.has_more), (1, 1, false));
    let unknown = store.list_events(tenant, job.id, Some(EventId::generate()), 2).await;
    assert!(matches!(unknown, Err(StoreError::NotFound { what: "after" })));
    let since = store.events_since(tenant, job.id, 1, 1).await.unwrap();
    assert_eq!(since.iter().map(|event| event.sequence).collect::<Vec<_>>(), [2]);
}

#[tokio::test]
async fn a_waiting_job_is_held_and_resumed_at_once() {
    let (store, tenant) = fresh().await;
    let worker = fixtures::worker(&store).await.unwrap();
    let job = fixtures::job(&store, tenant).await.unwrap();
    let paused = store.pause_job(tenant, job.id).await.unwrap();
    assert!(matches!(&paused, Control::Done(job) if job.paused), "{paused:?}");
    assert!(matches!(store.pause_job(tenant, job.id).await.unwrap(), Control::Already(_)));
    assert!(store.claim(&worker, TaskKind::ALL).await.unwrap().is_none());
    assert!(matches!(store.resume_job(tenant, job.id).await.unwrap(), Control::Done(job) if !job.paused));
    assert!(matches!(store.resume_job(tenant, job.id).await.unwrap(), Control::Already(_)));
    assert!(store.claim(&worker, TaskKind::ALL).await.unwrap().is_some());
}

#[tokio::test]
async fn a_running_job_is_paused_by_its_worker() {
    let (store, tenant) = fresh().await;
    let worker = fixtures::worker(&store).await.unwrap();
    let lease = fixtures::training(&store, tenant, &worker).await.unwrap();
    let job = lease.job.id;
    assert!(!store.heartbeat(&lease.key).await.unwrap().pause_requested);
    assert!(matches!(store.pause_job(tenant, job).await.unwrap(), Control::Done(job) if job.pause_requested));
    assert!(matches!(store.pause_job(tenant, job).await.unwrap(), Control::Already(_)));
    assert!(store.heartbeat(&lease.key).await.unwrap().pause_requested);
    store.suspend(&lease.key, Suspension::Paused).await.unwrap();
    let paused = store.get_job(tenant, job).await.unwrap();
    assert_eq!((paused.status, paused.paused, paused.pause_requested), (JobStatus::Queued, true, false));
    store.resume_job(tenant, job).await.unwrap();

    // Taken back before the worker fulfilled it: the task goes back to the queue.
    let lease = store.claim(&worker, TaskKind::ALL).await.unwrap().unwrap();
    store.pause_job(tenant, job).await.unwrap();
    assert!(matches!(store.resume_job(tenant, job).await.unwrap(), Control::Done(job) if !job.pause_requested));
    store.suspend(&lease.key, Suspension::Paused).await.unwrap();
    assert!(!store.get_job(tenant, job).await.unwrap().paused);
    assert!(store.claim(&worker, TaskKind::ALL).await.unwrap().is_some());
}

#[tokio::test]
async fn cancel_ends_the_lease_at_once_and_ended_jobs_stay() {
    let (store, tenant) = fresh().await;
    let worker = fixtures::worker(&store).await.unwrap();
    let lease = fixtures::training(&store, tenant, &worker).await.unwrap();
    let job = lease.job.id;
    let cancelled = store.cancel_job(tenant, job).await.unwrap();
    assert!(
        matches!(&cancelled, Control::Done(job) if job.status == JobStatus::Cancelled && job.finished_at.is_some())
    );
    assert!(matches!(store.heartbeat(&lease.key).await, Err(StoreError::LeaseLost)));
    assert!(matches!(store.cancel_job(tenant, job).await.unwrap(), Control::Already(_)));
    assert!(matches!(store.pause_job(tenant, job).await.unwrap(), Control::Ended(_)));
    assert!(store.claim(&worker, TaskKind::ALL).await.unwrap().is_none());
    let lease = fixtures::training(&store, tenant, &worker).await.unwrap();
    store.finish_training(&lease.key, &fixtures::trained(&store, tenant).await.unwrap()).await.unwrap();
    assert!(matches!(store.cancel_job(tenant, lease.job.id).await.unwrap(), Control::Ended(_)));
}

/// A cancel that meets the moment in which `validate` ends and queues `train`: both orders end in a cancelled job
/// without a task.
#[tokio::test]
async fn cancel_and_the_end_of_a_validation_do_not_miss_each_other() {
    let (store, tenant) = fresh().await;
    let worker = fixtures::worker(&store).await.unwrap();
    for _ in 0..20 {
        let job = fixtures::job(&store, tenant).await.unwrap();
        let lease = store.claim(&worker, TaskKind::ALL).await.unwrap().unwrap();
        let validated = fixtures::validated(&job).unwrap();
        let (cancelled, _) =
            tokio::join!(store.cancel_job(tenant, job.id), store.finish_validation(&lease.key, &validated));
        assert!(matches!(cancelled.unwrap(), Control::Done(job) if job.status == JobStatus::Cancelled));
        assert!(store.claim(&worker, TaskKind::ALL).await.unwrap().is_none());
    }
}

#[tokio::test]
async fn fifty_equal_requests_at_once_make_one_job() {
    let (store, tenant) = fresh().await;
    let new = ready(&store, tenant).await;
    for idempotency in [request(1, None, "body"), request(0, Some("a key"), "body")] {
        let calls = (0..50).map(|_| {
            let (store, new, idempotency) = (store.clone(), new.clone(), idempotency.clone());
            tokio::spawn(async move { store.create_job(tenant, new, Some(&idempotency)).await.unwrap() })
        });
        let (mut ids, mut made) = (HashSet::new(), 0);
        for call in calls.collect::<Vec<_>>() {
            let created = call.await.unwrap();
            made += u32::from(created.is_new());
            ids.insert(created.into_inner().id);
        }
        assert_eq!((ids.len(), made), (1, 1));
    }
}

#[tokio::test]
async fn requests_are_known_again_by_key_or_by_retry() {
    let (store, tenant) = fresh().await;
    let other = fixtures::tenant(&store, "other").await.unwrap();
    let new = ready(&store, tenant).await;
    let theirs = ready(&store, other).await;
    let create = async |idempotency: Idempotency| store.create_job(tenant, new.clone(), Some(&idempotency)).await;

    let first = create(request(0, None, "a")).await.unwrap();
    assert!(create(request(0, None, "a")).await.unwrap().is_new(), "two first attempts are two jobs");
    let newest = create(request(0, None, "a")).await.unwrap().into_inner();
    let retried = create(request(1, None, "a")).await.unwrap();
    assert_eq!(retried, Created::Existing(newest));
    assert!(create(request(1, None, "b")).await.unwrap().is_new(), "another body");
    let elsewhere = store.create_job(other, theirs, Some(&request(1, None, "a"))).await.unwrap();
    assert!(elsewhere.is_new(), "another tenant");
    assert!(first.is_new());

    let keyed = create(request(0, Some("k"), "a")).await.unwrap().into_inner();
    assert_eq!(create(request(0, Some("k"), "a")).await.unwrap(), Created::Existing(keyed));
    let mismatch = create(request(2, Some("k"), "b")).await;
    assert!(matches!(mismatch, Err(StoreError::IdempotencyMismatch)));
    assert!(create(request(0, Some("l"), "a")).await.unwrap().is_new());

    let age = "update idempotency set created_at = created_at - interval '16 min' where client_key is null";
    sqlx::query(age).execute(store.pool()).await.unwrap();
    assert!(create(request(1, None, "a")).await.unwrap().is_new(), "beyond the window");
}

#[tokio::test]
async fn a_first_attempt_gives_way_to_the_retry_that_overtook_it() {
    let (store, tenant) = fresh().await;
    let new = ready(&store, tenant).await;
    let first = request(0, None, "a");
    tokio::time::sleep(Duration::from_millis(20)).await;
    let retry = store.create_job(tenant, new.clone(), Some(&request(1, None, "a"))).await.unwrap();
    assert!(retry.is_new());
    let late = store.create_job(tenant, new.clone(), Some(&first)).await.unwrap();
    assert_eq!(late, Created::Existing(retry.into_inner()));
    assert!(store.create_job(tenant, new, Some(&request(0, None, "a"))).await.unwrap().is_new());
}

#[tokio::test]
async fn a_retry_takes_over_when_the_first_dies_before_its_commit() {
    let (store, tenant) = fresh().await;
    let new = ready(&store, tenant).await;
    let mut dying = store.pool().begin().await.unwrap();
    let idempotency = request(1, Some("k"), "a");
    assert_eq!(idempotency.find(&mut dying, tenant).await.unwrap(), None);
    let retry = {
        let (store, idempotency) = (store.clone(), idempotency.clone());
        tokio::spawn(async move { store.create_job(tenant, new, Some(&idempotency)).await.unwrap() })
    };
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!retry.is_finished(), "a retry in flight waits for the first");
    dying.rollback().await.unwrap();
    assert!(retry.await.unwrap().is_new());
}
