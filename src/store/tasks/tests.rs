#![allow(clippy::unwrap_used, clippy::expect_used)]
//! The lease protocol on a real Postgres.

use std::time::Duration;

use finetuned_protocol::{
    engine::Phase,
    error::{ErrorCode, JobError},
    ids::WorkerId,
    status::{EventLevel, EventType, JobStatus, TaskKind},
};
use serde_json::json;

use super::*;
use crate::{
    Control, MetricQuery, Store, StoreError, Timings,
    testing::{TestDatabase, fixtures},
};

const ALL: &[TaskKind] = TaskKind::ALL;

fn quick() -> Timings {
    Timings {
        heartbeat: Duration::from_millis(50),
        expiry: Duration::from_millis(300),
        scan: Duration::from_millis(50),
    }
}

async fn fresh() -> (TestDatabase, Store) {
    let database = TestDatabase::with(|options| options.timings = quick()).await.unwrap();
    let store = database.store.clone();
    // Only a Postgres that has run for an expiry lets leases be taken back.
    tokio::time::sleep(quick().expiry).await;
    (database, store)
}

fn note(line: u64, message: &str) -> NewEvent {
    NewEvent { line: Some(line), ..NewEvent::message(EventLevel::Info, message) }
}

fn oom() -> JobError {
    JobError::new(ErrorCode::OutOfMemory, "no memory left")
}

async fn messages(store: &Store, job: &Job) -> Vec<(u64, String)> {
    let events = store.events_since(job.tenant, job.id, 0, 1000).await.unwrap();
    events.into_iter().map(|event| (event.sequence, event.message)).collect()
}

#[tokio::test]
async fn a_job_goes_from_its_files_to_a_published_adapter() {
    let (_database, store) = fresh().await;
    let tenant = fixtures::tenant(&store, "acme").await.unwrap();
    let worker = fixtures::worker(&store).await.unwrap();
    let job = fixtures::job(&store, tenant).await.unwrap();
    assert_eq!(job.status, JobStatus::ValidatingFiles);

    let lease = store.claim(&worker, &[TaskKind::Validate]).await.unwrap().unwrap();
    assert_eq!((lease.kind, lease.attempt, lease.crashes), (TaskKind::Validate, 1, 0));
    assert_eq!((lease.job.id, lease.base_model.name.as_str()), (job.id, fixtures::MODEL));
    assert_eq!(lease.training.id, job.training_file);
    assert!(store.claim(&worker, ALL).await.unwrap().is_none());
    let validated = fixtures::validated(&job).unwrap();
    store.finish_validation(&lease.key, &validated).await.unwrap();
    // The answer was lost; the worker sends it again.
    store.finish_validation(&lease.key, &validated).await.unwrap();
    assert!(matches!(store.heartbeat(&lease.key).await, Err(StoreError::LeaseLost)));

    assert!(store.claim(&worker, &[TaskKind::Validate]).await.unwrap().is_none());
    let lease = store.claim(&worker, ALL).await.unwrap().unwrap();
    assert_eq!((lease.kind, lease.job.status), (TaskKind::Train, JobStatus::Queued));
    assert_eq!(lease.job.effective, Some(validated.spec));
    let progress =
        JobProgress { phase: Phase::Training, done: 1, total: 2, step: 1, total_steps: 2, remaining_seconds: None };
    let report = Report { last_line: 3, started: true, progress: Some(progress.clone()), ..Report::default() };
    store.report(&lease.key, &report).await.unwrap();
    let running = store.get_job(tenant, job.id).await.unwrap();
    assert_eq!((running.status, running.progress), (JobStatus::Running, Some(progress)));
    assert!(running.started_at.is_some());

    let trained = fixtures::trained(&store, tenant).await.unwrap();
    store.finish_training(&lease.key, &trained).await.unwrap();
    store.finish_training(&lease.key, &trained).await.unwrap();
    let done = store.get_job(tenant, job.id).await.unwrap();
    assert_eq!(done.status, JobStatus::Succeeded);
    let name = done.fine_tuned_model.clone().unwrap();
    assert!(name.starts_with("ft:tiny-llama:acme::"), "{name}");
    assert_eq!((done.trained_tokens, done.result_files.len()), (Some(160), 1));
    assert_eq!((done.evaluation, done.parity), (Some(trained.evaluation), Some(trained.parity)));
    assert_eq!(store.get_model(tenant, &name).await.unwrap().name(), name);
    assert_eq!(store.artifacts(tenant, job.id).await.unwrap(), trained.artifacts);
    let results = store.get_file(tenant, done.result_files[0]).await.unwrap();
    assert_eq!(results.purpose, "fine-tune-results");
    let numbers: Vec<u64> = messages(&store, &job).await.into_iter().map(|(sequence, _)| sequence).collect();
    assert_eq!(numbers, [1, 2, 3, 4]);
}

#[tokio::test]
async fn no_task_is_claimed_twice() {
    let (_database, store) = fresh().await;
    let tenant = fixtures::tenant(&store, "acme").await.unwrap();
    for _ in 0..12 {
        fixtures::job(&store, tenant).await.unwrap();
    }
    let worker = fixtures::worker(&store).await.unwrap();
    let claims = (0..24).map(|_| {
        let (store, mut worker) = (store.clone(), worker.clone());
        worker.id = WorkerId::generate();
        tokio::spawn(async move { store.claim(&worker, ALL).await.unwrap() })
    });
    let mut tasks = Vec::new();
    for claim in claims.collect::<Vec<_>>() {
        tasks.extend(claim.await.unwrap().map(|lease| lease.key.task));
    }
    // A claim that found its candidates locked goes empty-handed and comes again.
    while let Some(lease) = store.claim(&worker, ALL).await.unwrap() {
        tasks.push(lease.key.task);
    }
    assert_eq!(tasks.len(), 12);
    tasks.sort_unstable();
    tasks.dedup();
    assert_eq!(tasks.len(), 12);
}

#[tokio::test]
async fn tenants_take_turns_by_weight_and_their_tasks_by_priority_and_time() {
    let (_database, store) = fresh().await;
    let big = fixtures::tenant(&store, "big").await.unwrap();
    let small = fixtures::tenant(&store, "small").await.unwrap();
    let mut first = Vec::new();
    for _ in 0..6 {
        first.push(fixtures::job(&store, big).await.unwrap().id);
    }
    let late = fixtures::job(&store, small).await.unwrap().id;
    let urgent = first[5];
    sqlx::query("update tasks set priority = 5 where job_id = $1").bind(urgent.0).execute(store.pool()).await.unwrap();
    let worker = fixtures::worker(&store).await.unwrap();
    // One worker, one task at a time: only the virtual time tells whose turn it is.
    let mut order = Vec::new();
    for _ in 0..4 {
        let lease = store.claim(&worker, ALL).await.unwrap().unwrap();
        order.push(lease.job.id);
        store.fail(&lease.key, oom()).await.unwrap();
    }
    assert_eq!(order, [urgent, late, first[0], first[1]]);

    // Both have tasks running: the one with the greater weight may have more of them.
    sqlx::query("update tenants set weight = 3 where name = 'small'").execute(store.pool()).await.unwrap();
    for _ in 0..4 {
        fixtures::job(&store, small).await.unwrap();
    }
    let mut of_small = 0;
    for _ in 0..4 {
        let lease = store.claim(&worker, ALL).await.unwrap().unwrap();
        of_small += u32::from(lease.job.tenant == small);
    }
    assert_eq!(of_small, 3);
}

#[tokio::test]
async fn a_worker_gets_only_what_it_can_run_and_the_job_says_why_it_waits() {
    let (_database, store) = fresh().await;
    let tenant = fixtures::tenant(&store, "acme").await.unwrap();
    let job = fixtures::job(&store, tenant).await.unwrap();
    let reason = async || store.get_job(tenant, job.id).await.unwrap().waiting_reason;
    assert_eq!(reason().await.as_deref(), Some("no worker is running"));
    let mut worker = fixtures::worker(&store).await.unwrap();
    assert_eq!(reason().await, None);
    worker.models = vec!["another".to_owned()];
    store.register_worker(&worker).await.unwrap();
    assert_eq!(reason().await.as_deref(), Some("no running worker has the base model"));
    assert!(store.claim(&worker, ALL).await.unwrap().is_none());
    worker.models = vec![fixtures::MODEL_SHA256.to_owned()];
    worker.free_memory_bytes = 1000;
    store.register_worker(&worker).await.unwrap();
    let lease = store.claim(&worker, ALL).await.unwrap().unwrap();
    store.finish_validation(&lease.key, &fixtures::validated(&job).unwrap()).await.unwrap();
    assert!(store.claim(&worker, ALL).await.unwrap().is_none());
    assert!(reason().await.unwrap().contains("1048576 bytes"));
    store.worker_gone(worker.id).await.unwrap();
    assert_eq!(reason().await.as_deref(), Some("no worker is running"));
    assert!(matches!(store.worker_seen(worker.id).await, Err(StoreError::NotFound { what: "worker" })));
}

#[tokio::test]
async fn a_worker_older_than_the_schema_does_not_claim_and_the_job_says_so() {
    let (_database, store) = fresh().await;
    let tenant = fixtures::tenant(&store, "acme").await.unwrap();
    let job = fixtures::job(&store, tenant).await.unwrap();
    let worker = fixtures::worker(&store).await.unwrap();
    sqlx::query("update schema_marker set version = version + 1").execute(store.pool()).await.unwrap();
    let refused = store.claim(&worker, ALL).await.unwrap_err();
    assert!(matches!(refused, StoreError::NewerSchema { .. }), "{refused}");
    let reason = store.get_job(tenant, job.id).await.unwrap().waiting_reason.unwrap();
    assert!(reason.contains("older than the database"), "{reason}");
    sqlx::query("update schema_marker set version = version - 1").execute(store.pool()).await.unwrap();
    assert_eq!(store.get_job(tenant, job.id).await.unwrap().waiting_reason, None);
    assert!(store.claim(&worker, ALL).await.unwrap().is_some());
}

#[tokio::test]
async fn reports_are_idempotent_and_steps_repeated_after_a_resume_make_no_second_event() {
    let (_database, store) = fresh().await;
    let tenant = fixtures::tenant(&store, "acme").await.unwrap();
    let worker = fixtures::worker(&store).await.unwrap();
    let lease = fixtures::training(&store, tenant, &worker).await.unwrap();
    let before = messages(&store, &lease.job).await.len();
    let step = |line, value| {
        let once = Some("step:1".to_owned());
        let metric = NewMetric { name: "train_loss".to_owned(), step: 1, value };
        let event =
            NewEvent { kind: EventType::Metrics, data: Some(json!({"step": 1})), once, ..note(line, "Step 1/2") };
        Report { last_line: line, events: vec![note(line, "a"), event], metrics: vec![metric], ..Report::default() }
    };
    store.report(&lease.key, &step(1, 4.0)).await.unwrap();
    store.report(&lease.key, &step(1, 4.0)).await.unwrap();
    // Line 1 comes once more, together with line 2.
    let both = Report { last_line: 2, events: vec![note(1, "a"), note(2, "b")], ..Report::default() };
    store.report(&lease.key, &both).await.unwrap();
    assert_eq!(messages(&store, &lease.job).await.len(), before + 3);

    store.release(&lease.key, Release::Shutdown).await.unwrap();
    let again = store.claim(&worker, ALL).await.unwrap().unwrap();
    assert_eq!((again.attempt, again.key.epoch > lease.key.epoch), (1, true));
    let before = messages(&store, &lease.job).await.len();
    store.report(&again.key, &step(1, 3.0)).await.unwrap();
    let after = messages(&store, &lease.job).await;
    assert_eq!(after.len(), before + 1, "the line is new, the step is not");
    assert!(after.iter().zip(1..).all(|((sequence, _), wanted)| *sequence == wanted), "{after:?}");
    let series = store.metrics(tenant, lease.job.id, MetricQuery::ALL).await.unwrap();
    assert_eq!((series.len(), series[0].points[0].value), (1, 3.0));
    assert!(
        store
            .metrics(tenant, lease.job.id, MetricQuery { names: &["other".to_owned()], ..MetricQuery::ALL })
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn events_have_no_gaps_under_concurrent_writers_and_aborts() {
    let (_database, store) = fresh().await;
    let tenant = fixtures::tenant(&store, "acme").await.unwrap();
    let worker = fixtures::worker(&store).await.unwrap();
    let lease = fixtures::training(&store, tenant, &worker).await.unwrap();
    let before = messages(&store, &lease.job).await.len();
    let writers = (0..40).map(|number: u32| {
        let (store, key) = (store.clone(), lease.key);
        tokio::spawn(async move {
            let mut events = vec![NewEvent::message(EventLevel::Info, format!("{number}"))];
            if number.is_multiple_of(4) {
                // Refused by the database after the sequence was locked: a zero byte in a key.
                events.push(NewEvent { once: Some("a\0b".to_owned()), ..events[0].clone() });
            }
            store.report(&key, &Report { events, ..Report::default() }).await.is_ok()
        })
    });
    let mut written = 0;
    for writer in writers.collect::<Vec<_>>() {
        written += usize::from(writer.await.unwrap());
    }
    assert_eq!(written, 30);
    let numbers: Vec<u64> = messages(&store, &lease.job).await.into_iter().map(|(sequence, _)| sequence).collect();
    assert_eq!(numbers, (1..=(before + 30) as u64).collect::<Vec<_>>());
}

#[tokio::test]
async fn zero_bytes_of_logs_and_answers_do_not_stop_a_job() {
    let (_database, store) = fresh().await;
    let tenant = fixtures::tenant(&store, "acme").await.unwrap();
    let worker = fixtures::worker(&store).await.unwrap();
    let lease = fixtures::training(&store, tenant, &worker).await.unwrap();
    let event = NewEvent { data: Some(json!({"log": ["a\0"]})), ..note(1, "b\0") };
    store.report(&lease.key, &Report { last_line: 1, events: vec![event], ..Report::default() }).await.unwrap();
    let newest = store.list_events(tenant, lease.job.id, None, 1).await.unwrap().data.remove(0);
    assert_eq!((newest.message.as_str(), newest.data), ("b\u{fffd}", Some(json!({"log": ["a\u{fffd}"]}))));
    store.fail(&lease.key, JobError::new(ErrorCode::InternalError, "c\0")).await.unwrap();
    assert_eq!(store.get_job(tenant, lease.job.id).await.unwrap().error.unwrap().message, "c\u{fffd}");
    assert!(matches!(store.get_model(tenant, "\0").await, Err(StoreError::Conflict { .. })));
}

#[tokio::test]
async fn a_silent_worker_loses_its_task_and_its_late_writes_are_refused() {
    let (_database, store) = fresh().await;
    let tenant = fixtures::tenant(&store, "acme").await.unwrap();
    let worker = fixtures::worker(&store).await.unwrap();
    let lease = fixtures::training(&store, tenant, &worker).await.unwrap();
    store.report(&lease.key, &Report { started: true, ..Report::default() }).await.unwrap();
    assert_eq!(store.scan_expired().await.unwrap(), 0);
    tokio::time::sleep(quick().expiry + Duration::from_millis(50)).await;
    // Expired, but nobody took it back: the worker may go on.
    store.heartbeat(&lease.key).await.unwrap();
    assert_eq!(store.scan_expired().await.unwrap(), 0);
    tokio::time::sleep(quick().expiry + Duration::from_millis(50)).await;
    assert_eq!(store.scan_expired().await.unwrap(), 1);
    assert_eq!(store.get_job(tenant, lease.job.id).await.unwrap().status, JobStatus::Queued);

    let trained = fixtures::trained(&store, tenant).await.unwrap();
    let checkpoint = NewCheckpoint { step: 1, metrics: json!({}), files: trained.artifacts.clone() };
    let lost = |result: Result<(), StoreError>| assert!(matches!(result, Err(StoreError::LeaseLost)), "{result:?}");
    lost(store.heartbeat(&lease.key).await.map(drop));
    lost(store.report(&lease.key, &Report::default()).await);
    lost(store.publish_checkpoint(&lease.key, &checkpoint).await.map(drop));
    lost(store.finish_training(&lease.key, &trained).await);
    lost(store.fail(&lease.key, oom()).await);
    lost(store.suspend(&lease.key, Suspension::Paused).await);
    lost(store.release(&lease.key, Release::Shutdown).await.map(drop));

    let again = store.claim(&worker, ALL).await.unwrap().unwrap();
    assert_eq!((again.key.task, again.attempt, again.crashes), (lease.key.task, 2, 0));
    assert!(again.key.epoch > lease.key.epoch);
    lost(store.report(&lease.key, &Report::default()).await);
}

/// The write that a bare `where epoch = $n` would let through: it begins before the take-back and commits after it.
#[tokio::test]
async fn a_write_that_began_before_the_take_back_commits_before_it_or_not_at_all() {
    let (_database, store) = fresh().await;
    let tenant = fixtures::tenant(&store, "acme").await.unwrap();
    let worker = fixtures::worker(&store).await.unwrap();
    let lease = fixtures::training(&store, tenant, &worker).await.unwrap();
    tokio::time::sleep(quick().expiry + Duration::from_millis(50)).await;
    // The worker is between its fence and its commit: the scan passes its lease by.
    let fenced = store.fence(&lease.key).await.unwrap();
    assert_eq!(store.scan_expired().await.unwrap(), 0);
    // A cancel waits for it.
    let cancelling = {
        let (store, job) = (store.clone(), lease.job.id);
        tokio::spawn(async move { store.cancel_job(tenant, job).await.unwrap() })
    };
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!cancelling.is_finished());
    fenced.tx.commit().await.unwrap();
    assert!(matches!(cancelling.await.unwrap(), Control::Done(job) if job.status == JobStatus::Cancelled));
    assert!(matches!(store.heartbeat(&lease.key).await, Err(StoreError::LeaseLost)));
}

#[tokio::test]
async fn crashes_have_a_cap_and_a_shutdown_is_not_counted() {
    let (_database, store) = fresh().await;
    let tenant = fixtures::tenant(&store, "acme").await.unwrap();
    let worker = fixtures::worker(&store).await.unwrap();
    let mut lease = fixtures::training(&store, tenant, &worker).await.unwrap();
    for crash in 1..=2 {
        assert_eq!(store.release(&lease.key, Release::Crashed(oom())).await.unwrap(), Released::Queued);
        assert_eq!(store.release(&lease.key, Release::Crashed(oom())).await.unwrap(), Released::Queued, "repeated");
        lease = store.claim(&worker, ALL).await.unwrap().unwrap();
        assert_eq!((lease.crashes, lease.attempt), (crash, crash + 1));
        store.release(&lease.key, Release::Shutdown).await.unwrap();
        lease = store.claim(&worker, ALL).await.unwrap().unwrap();
        assert_eq!(lease.attempt, crash + 1);
    }
    assert_eq!(store.release(&lease.key, Release::Crashed(oom())).await.unwrap(), Released::Failed);
    assert_eq!(store.release(&lease.key, Release::Crashed(oom())).await.unwrap(), Released::Failed, "repeated");
    let job = store.get_job(tenant, lease.job.id).await.unwrap();
    assert_eq!((job.status, job.error), (JobStatus::Failed, Some(oom())));
    assert!(store.claim(&worker, ALL).await.unwrap().is_none());
}

#[tokio::test]
async fn checkpoints_are_replaced_by_step_and_come_with_the_lease() {
    let (_database, store) = fresh().await;
    let tenant = fixtures::tenant(&store, "acme").await.unwrap();
    let worker = fixtures::worker(&store).await.unwrap();
    let lease = fixtures::training(&store, tenant, &worker).await.unwrap();
    let mut ids = Vec::new();
    for step in [1, 2, 3, 4, 4] {
        let content = store.put_bytes(tenant, bytes::Bytes::from(format!("weights {step}"))).await.unwrap();
        let files = vec![StoredFile { name: "adapter.safetensors".to_owned(), content }];
        let checkpoint = NewCheckpoint { step, metrics: json!({"train_loss": 0.5}), files };
        ids.push(store.publish_checkpoint(&lease.key, &checkpoint).await.unwrap());
    }
    assert_eq!(ids[3], ids[4]);
    let page = store.list_checkpoints(tenant, lease.job.id, None, 3).await.unwrap();
    assert_eq!((page.data.iter().map(|found| found.step).collect::<Vec<_>>(), page.has_more), (vec![4, 3, 2], true));
    let rest = store.list_checkpoints(tenant, lease.job.id, Some(ids[1]), 3).await.unwrap();
    assert_eq!((rest.data[0].step, rest.data.len(), rest.has_more), (1, 1, false));
    assert_eq!(rest.data[0].metrics, json!({"train_loss": 0.5}));
    store.release(&lease.key, Release::Shutdown).await.unwrap();
    let again = store.claim(&worker, ALL).await.unwrap().unwrap();
    assert_eq!(again.checkpoints.iter().map(|found| found.step).collect::<Vec<_>>(), [4, 3, 2]);
    let bytes = store.get_blob_bytes(again.checkpoints[0].files[0].content.id).await.unwrap();
    assert_eq!(&bytes[..], b"weights 4");
}

#[tokio::test]
async fn a_full_disk_suspends_the_job_until_a_person_resumes_it() {
    let (_database, store) = fresh().await;
    let tenant = fixtures::tenant(&store, "acme").await.unwrap();
    let worker = fixtures::worker(&store).await.unwrap();
    let lease = fixtures::training(&store, tenant, &worker).await.unwrap();
    store.report(&lease.key, &Report { started: true, ..Report::default() }).await.unwrap();
    let full = JobError::new(ErrorCode::OutOfDiskSpace, "no space for a checkpoint");
    store.suspend(&lease.key, Suspension::Because(full.clone())).await.unwrap();
    store.suspend(&lease.key, Suspension::Because(full.clone())).await.unwrap();
    let job = store.get_job(tenant, lease.job.id).await.unwrap();
    assert_eq!((job.status, job.paused), (JobStatus::Queued, true));
    assert_eq!((job.waiting_reason.as_deref(), job.error), (Some("no space for a checkpoint"), Some(full)));
    assert!(store.claim(&worker, ALL).await.unwrap().is_none());
    let resumed = store.resume_job(tenant, job.id).await.unwrap();
    assert!(matches!(resumed, Control::Done(job) if !job.paused && job.error.is_none()));
    assert!(store.claim(&worker, ALL).await.unwrap().is_some());
}

#[tokio::test]
async fn old_checkpoints_go_but_for_the_best_and_the_newest() {
    let (_database, store) = fresh().await;
    let tenant = fixtures::tenant(&store, "acme").await.unwrap();
    let worker = fixtures::worker(&store).await.unwrap();
    let lease = fixtures::training(&store, tenant, &worker).await.unwrap();
    sqlx::query("update jobs set request = request || '{\"keep_checkpoints\": {\"last\": 2, \"best\": 1}}'")
        .execute(store.pool())
        .await
        .unwrap();
    let (mut kept, mut blobs) = (Vec::new(), Vec::new());
    for (step, loss) in [(1, Some(0.9)), (2, Some(0.2)), (3, Some(0.8)), (4, None), (5, Some(0.7)), (6, Some(0.1))] {
        let content = store.put_bytes(tenant, bytes::Bytes::from(format!("weights {step}"))).await.unwrap();
        let blob = content.id;
        let files = vec![StoredFile { name: "adapter.safetensors".to_owned(), content }];
        let metrics = loss.map_or(json!({}), |loss| json!({"valid_loss": loss}));
        store.publish_checkpoint(&lease.key, &NewCheckpoint { step, metrics, files }).await.unwrap();
        let page = store.list_checkpoints(tenant, lease.job.id, None, 10).await.unwrap();
        kept = page.data.iter().map(|found| found.step).collect::<Vec<_>>();
        assert_eq!(kept[0], step, "the newest is there");
        assert!(step < 2 || kept.contains(&2) || step == 6, "the best is there: {kept:?}");
        blobs.push(blob);
    }
    assert_eq!(kept, [6, 5], "the newest is the best, too");
    for (step, blob) in (1..).zip(blobs) {
        assert_eq!(store.get_blob_bytes(blob).await.is_ok(), kept.contains(&step), "bytes of step {step}");
    }
}
