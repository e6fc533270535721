//! Further evaluations on a real Postgres.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use finetuned_protocol::{
    engine::{AnsweredRow, Answerer, Phase},
    error::{ErrorCode, JobError},
    evaluation_run::EvaluationRunRequest,
    ids::{EvaluationRunId, JobId, TenantId},
    status::{EvaluationRunStatus, JobStatus, TaskKind},
};

use crate::{
    Created, EvaluationRun, Idempotency, JobProgress, Release, Released, Report, Store, StoreError, Suspension,
    WorkerFacts, fingerprint,
    testing::{TestDatabase, fixtures},
};

struct Scene {
    _database: TestDatabase,
    store: Store,
    tenant: TenantId,
    worker: WorkerFacts,
    job: JobId,
}

impl Scene {
    /// A succeeded job.
    async fn new() -> Self {
        let database = TestDatabase::create().await.unwrap();
        let store = database.store.clone();
        let tenant = fixtures::tenant(&store, "acme").await.unwrap();
        let worker = fixtures::worker(&store).await.unwrap();
        let lease = fixtures::training(&store, tenant, &worker).await.unwrap();
        store.finish_training(&lease.key, &fixtures::trained(&store, tenant).await.unwrap()).await.unwrap();
        Self { _database: database, store, tenant, worker, job: lease.job.id }
    }

    async fn ask(&self, key: &str) -> Result<Created<EvaluationRun>, StoreError> {
        let job = self.store.get_job(self.tenant, self.job).await.unwrap();
        let settings = EvaluationRunRequest::default().resolve(&job.effective.unwrap()).unwrap();
        let idempotency = Idempotency {
            caller: None,
            route: "evaluate",
            client_key: Some(key.to_owned()),
            retry_count: 0,
            fingerprint: fingerprint(&[b"x"]),
            received: std::time::Instant::now(),
        };
        self.store.create_evaluation_run(self.tenant, self.job, &settings, &idempotency).await
    }

    async fn run(&self, id: EvaluationRunId) -> EvaluationRun {
        self.store.evaluation_run(self.tenant, self.job, id).await.unwrap()
    }
}

fn answer(line: u64, by: Answerer, text: &str) -> AnsweredRow {
    AnsweredRow { by, line, prompt: "Who?".into(), reference: "the owl".into(), text: text.into(), ended: true }
}

#[tokio::test]
async fn a_run_goes_from_its_queue_to_a_report_and_its_job_stays_as_it_is() {
    let scene = Scene::new().await;
    let (store, tenant, job) = (&scene.store, scene.tenant, scene.job);
    let before = store.get_job(tenant, job).await.unwrap();
    let run = scene.ask("a").await.unwrap();
    assert!(run.is_new() && !scene.ask("a").await.unwrap().is_new());
    let run = run.into_inner();
    assert_eq!((run.status, &run.report), (EvaluationRunStatus::Queued, &None));
    let lease = store.claim(&scene.worker, &[TaskKind::Evaluate]).await.unwrap().unwrap();
    assert_eq!((lease.kind, lease.job.id, lease.key.task.0), (TaskKind::Evaluate, job, run.id.0));
    let progress = JobProgress {
        phase: Phase::AnsweringBase,
        done: 1,
        total: 2,
        step: 0,
        total_steps: 0,
        remaining_seconds: None,
    };
    let answers = vec![answer(2, Answerer::Base, "a\0b"), answer(2, Answerer::Tuned, "the owl")];
    let report = Report { last_line: 1, answers, progress: Some(progress.clone()), ..Report::default() };
    store.report(&lease.key, &report).await.unwrap();
    let running = scene.run(run.id).await;
    assert_eq!((running.status, running.progress), (EvaluationRunStatus::Running, Some(progress)));
    let given = store.answers_of_job(tenant, job, Some(run.id)).await.unwrap();
    assert_eq!(given, [answer(2, Answerer::Base, "a\u{fffd}b"), answer(2, Answerer::Tuned, "the owl")]);
    assert_eq!(store.get_job(tenant, job).await.unwrap(), before, "a run is none of its job's business");
    let evaluation = before.evaluation.clone().unwrap();
    store.finish_evaluation(&lease.key, &evaluation).await.unwrap();
    store.finish_evaluation(&lease.key, &evaluation).await.unwrap();
    let done = scene.run(run.id).await;
    assert_eq!((done.status, done.report, done.progress), (EvaluationRunStatus::Succeeded, Some(evaluation), None));
    assert_eq!(store.answers_so_far(lease.key.task).await.unwrap(), [], "the report has them");
    assert_eq!(store.get_job(tenant, job).await.unwrap(), before);
}

#[tokio::test]
async fn answers_outlive_the_attempt_that_gave_them() {
    let scene = Scene::new().await;
    scene.ask("a").await.unwrap();
    let lease = scene.store.claim(&scene.worker, TaskKind::ALL).await.unwrap().unwrap();
    let report = Report { last_line: 4, answers: vec![answer(2, Answerer::Base, "an owl")], ..Report::default() };
    scene.store.report(&lease.key, &report).await.unwrap();
    scene.store.report(&lease.key, &report).await.unwrap();
    scene.store.release(&lease.key, Release::Shutdown).await.unwrap();
    let again = scene.store.claim(&scene.worker, TaskKind::ALL).await.unwrap().unwrap();
    assert_eq!((again.key.task, again.attempt), (lease.key.task, 1));
    let known = scene.store.answers_so_far(again.key.task).await.unwrap();
    assert_eq!(known, [answer(2, Answerer::Base, "an owl")]);
    let late = scene.store.report(&lease.key, &Report { last_line: 5, ..report }).await;
    assert!(matches!(late, Err(StoreError::LeaseLost)), "the first attempt writes no more: {late:?}");
}

#[tokio::test]
async fn whatever_ends_a_run_its_job_stays_succeeded() {
    let scene = Scene::new().await;
    let error = JobError::new(ErrorCode::OutOfDiskSpace, "no room");
    for (number, end) in ["suspended", "failed", "crashed"].into_iter().enumerate() {
        let run = scene.ask(&number.to_string()).await.unwrap().into_inner();
        let claim = || async { scene.store.claim(&scene.worker, TaskKind::ALL).await.unwrap().unwrap().key };
        let key = claim().await;
        match end {
            "suspended" => scene.store.suspend(&key, Suspension::Because(error.clone())).await.unwrap(),
            "failed" => scene.store.fail(&key, error.clone()).await.unwrap(),
            _ => {
                let mut key = key;
                while scene.store.release(&key, Release::Crashed(error.clone())).await.unwrap() == Released::Queued {
                    key = claim().await;
                }
            }
        }
        let found = scene.run(run.id).await;
        assert_eq!((found.status, found.error), (EvaluationRunStatus::Failed, Some(error.clone())), "{end}");
        let job = scene.store.get_job(scene.tenant, scene.job).await.unwrap();
        assert_eq!((job.status, job.error, job.paused), (JobStatus::Succeeded, None, false), "{end}");
    }
}

#[tokio::test]
async fn what_cannot_be_evaluated_is_refused() {
    let scene = Scene::new().await;
    let refusal = |result: Result<Created<EvaluationRun>, StoreError>| match result {
        Err(StoreError::Conflict { message }) => message,
        other => panic!("{other:?}"),
    };
    for number in 0..4 {
        scene.ask(&number.to_string()).await.unwrap();
    }
    assert!(refusal(scene.ask("one more").await).contains("4 evaluations"));
    let needed = scene.store.remove_base_model(fixtures::MODEL).await;
    assert!(matches!(needed, Err(StoreError::Conflict { .. })), "a run waits for it: {needed:?}");
    let other = fixtures::tenant(&scene.store, "other").await.unwrap();
    let foreign = scene.store.evaluation_runs(other, scene.job).await;
    assert!(matches!(foreign, Err(StoreError::NotFound { what: "job" })), "{foreign:?}");
    let foreign = scene.store.answers_of_job(other, scene.job, None).await;
    assert!(matches!(foreign, Err(StoreError::NotFound { what: "job" })), "{foreign:?}");
    while let Some(lease) = scene.store.claim(&scene.worker, TaskKind::ALL).await.unwrap() {
        scene.store.fail(&lease.key, JobError::new(ErrorCode::InternalError, "x")).await.unwrap();
    }
    scene.store.remove_base_model(fixtures::MODEL).await.unwrap();
    assert!(refusal(scene.ask("without a model").await).contains("is gone"));
}
