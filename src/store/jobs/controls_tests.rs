//! Every state of a job against every control: the table in ARCHITECTURE.md, row by row.
#![allow(clippy::unwrap_used)]

use finetuned_protocol::{
    error::{ErrorCode, JobError},
    ids::{JobId, TenantId},
    status::TaskKind,
};

use crate::{
    Control, Idempotency, Job, Lease, Release, Report, Store, StoreError, Suspension, fingerprint,
    testing::{TestDatabase, fixtures},
};

/// The states that a job can be in, finer than its status.
const STATES: [&str; 13] = [
    "validation waits",
    "validation held",
    "validating",
    "validating, pause asked for",
    "waiting",
    "paused",
    "suspended",
    "claimed",
    "running",
    "running, pause asked for",
    "succeeded",
    "failed",
    "cancelled",
];
const CONTROLS: [&str; 5] = ["pause", "resume", "cancel", "retry", "priority"];

/// What each control answers in each state, in the order of the two lists: `=` unchanged, `x` refused, otherwise the
/// job's status afterwards (with `p` where it is paused, `?` where a pause is asked for).
const TABLE: [&str; 13] = [
    // pause            resume            cancel     retry   priority
    "validating_files p|=                 |cancelled |x      |validating_files",
    "=                 |validating_files  |cancelled |x      |validating_files p",
    "validating_files ?|=                 |cancelled |x      |validating_files",
    "=                 |validating_files  |cancelled |x      |validating_files ?",
    "queued p          |=                 |cancelled |x      |queued",
    "=                 |queued            |cancelled |x      |queued p",
    "=                 |queued            |cancelled |x      |queued p",
    "queued ?          |=                 |cancelled |x      |queued",
    "running ?         |=                 |cancelled |x      |running",
    "=                 |running           |cancelled |x      |running ?",
    "x                 |x                 |x         |x      |x",
    "x                 |x                 |x         |new    |x",
    "x                 |x                 |=         |new    |x",
];

async fn lease(store: &Store) -> Lease {
    let worker = fixtures::worker(store).await.unwrap();
    store.claim(&worker, TaskKind::ALL).await.unwrap().unwrap()
}

/// A fresh job brought into a state. No other task waits.
async fn job_in(store: &Store, tenant: TenantId, state: &str) -> JobId {
    let job = fixtures::job(store, tenant).await.unwrap();
    let pause = async || store.pause_job(tenant, job.id).await.unwrap();
    match state {
        "validation waits" => return job.id,
        "validation held" => {
            pause().await;
            return job.id;
        }
        _ => {}
    }
    let validation = lease(store).await;
    if state.starts_with("validating") {
        if state.ends_with("asked for") {
            pause().await;
        }
        return job.id;
    }
    store.finish_validation(&validation.key, &fixtures::validated(&job).unwrap()).await.unwrap();
    match state {
        "waiting" => return job.id,
        "paused" => {
            pause().await;
            return job.id;
        }
        "cancelled" => {
            store.cancel_job(tenant, job.id).await.unwrap();
            return job.id;
        }
        _ => {}
    }
    let training = lease(store).await;
    if state != "claimed" {
        store.report(&training.key, &Report { started: true, ..Report::default() }).await.unwrap();
    }
    let cause = JobError::new(ErrorCode::OutOfDiskSpace, "full");
    match state {
        "running, pause asked for" => drop(pause().await),
        "suspended" => store.suspend(&training.key, Suspension::Because(cause)).await.unwrap(),
        "failed" => store.fail(&training.key, cause).await.unwrap(),
        "succeeded" => {
            let trained = fixtures::trained(store, tenant).await.unwrap();
            store.finish_training(&training.key, &trained).await.unwrap();
        }
        _ => {}
    }
    job.id
}

fn told(job: &Job) -> String {
    let paused = if job.paused { " p" } else { "" };
    let asked = if job.pause_requested { " ?" } else { "" };
    format!("{}{paused}{asked}", job.status)
}

fn answer(control: Control) -> String {
    match control {
        Control::Done(job) => told(&job),
        Control::Already(_) => "=".to_owned(),
        Control::Ended(_) => "x".to_owned(),
    }
}

fn once(job: JobId) -> Idempotency {
    Idempotency {
        caller: None,
        route: "retry",
        client_key: None,
        retry_count: 0,
        fingerprint: fingerprint(&[job.to_string().as_bytes()]),
        received: std::time::Instant::now(),
    }
}

async fn apply(store: &Store, tenant: TenantId, job: JobId, control: &str) -> String {
    match control {
        "pause" => answer(store.pause_job(tenant, job).await.unwrap()),
        "resume" => answer(store.resume_job(tenant, job).await.unwrap()),
        "cancel" => answer(store.cancel_job(tenant, job).await.unwrap()),
        "priority" => answer(store.set_priority(tenant, job, 5).await.unwrap()),
        _ => match store.retry_job(tenant, job, &once(job)).await {
            Ok(created) => {
                assert_eq!(created.into_inner().retry_of, Some(job));
                "new".to_owned()
            }
            Err(StoreError::Conflict { .. }) => "x".to_owned(),
            Err(error) => panic!("{error}"),
        },
    }
}

#[tokio::test]
async fn every_control_has_its_answer_in_every_state() {
    let database = TestDatabase::create().await.unwrap();
    let store = &database.store;
    let tenant = fixtures::tenant(store, "acme").await.unwrap();
    let mut found = Vec::new();
    for (state, row) in STATES.iter().zip(TABLE) {
        for (control, wanted) in CONTROLS.iter().zip(row.split('|').map(str::trim)) {
            let job = job_in(store, tenant, state).await;
            let before = store.get_job(tenant, job).await.unwrap();
            let got = apply(store, tenant, job, control).await;
            let after = store.get_job(tenant, job).await.unwrap();
            if got == "=" || got == "x" || got == "new" {
                assert_eq!(before, after, "{control} on {state}");
            }
            if got != wanted {
                found.push(format!("{control} on {state}: {got}, not {wanted}"));
            }
            // Out of the way of the next one's claims.
            sqlx::query("truncate jobs cascade").execute(store.pool()).await.unwrap();
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[tokio::test]
async fn a_pause_during_a_validation_holds_the_job_before_its_training() {
    let database = TestDatabase::create().await.unwrap();
    let store = &database.store;
    let tenant = fixtures::tenant(store, "acme").await.unwrap();
    let job = job_in(store, tenant, "validating, pause asked for").await;
    // The validation ends before the worker has heard of it.
    let key = sqlx::query_as::<_, (uuid::Uuid, i64)>("select task_id, epoch from task_lease");
    let (task, epoch) = key.fetch_one(store.pool()).await.unwrap();
    let key = crate::LeaseKey { task: finetuned_protocol::ids::TaskId(task), epoch };
    let validated = fixtures::validated(&store.get_job(tenant, job).await.unwrap()).unwrap();
    store.finish_validation(&key, &validated).await.unwrap();
    let now = store.get_job(tenant, job).await.unwrap();
    assert_eq!(told(&now), "queued p");
    let worker = fixtures::worker(store).await.unwrap();
    assert!(store.claim(&worker, TaskKind::ALL).await.unwrap().is_none());
    store.resume_job(tenant, job).await.unwrap();
    let training = store.claim(&worker, TaskKind::ALL).await.unwrap().unwrap();
    store.release(&training.key, Release::Shutdown).await.unwrap();
}
