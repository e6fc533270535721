//! The worker on a real Postgres, with a script in the engine's place.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod away;
mod controls;
mod evaluation;
mod judging;
mod proxy;
mod training;
mod validation;

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use finetuned_outbound::{Judges, Outbound};
use finetuned_protocol::{
    engine::DeviceRequest,
    ids::{FileId, JobId, TenantId},
    status::{JobStatus, TaskKind},
};
use finetuned_store::{
    Event, Job, NewBaseModel, Store, Timings, WorkerFacts,
    testing::{TestDatabase, fixtures},
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{JudgeOptions, WorkerError, WorkerOptions, WorkerTimings, run, testing::fake_engine};

/// Times of the lease protocol, about a tenth of the shipped ones.
const LEASES: Timings = Timings {
    heartbeat: Duration::from_millis(300),
    expiry: Duration::from_millis(1500),
    scan: Duration::from_millis(200),
};

struct Scene {
    database: TestDatabase,
    tenant: TenantId,
    folder: tempfile::TempDir,
}

/// A running worker; ending it is ending the scene's `run`.
struct Running {
    shutdown: CancellationToken,
    ended: JoinHandle<Result<(), WorkerError>>,
}

impl Running {
    async fn end(self) {
        self.shutdown.cancel();
        tokio::time::timeout(Duration::from_secs(30), self.ended).await.unwrap().unwrap().unwrap();
    }
}

impl Scene {
    /// A database with a tenant, and an engine that runs `script`. The script's own folder stays between attempts.
    async fn new(script: &str) -> Self {
        let database = TestDatabase::with(|options| options.timings = LEASES).await.unwrap();
        let tenant = fixtures::tenant(&database.store, "acme").await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let script = format!("own = os.path.dirname(sys.argv[0])\n{script}");
        fake_engine(folder.path(), &script);
        fs::write(folder.path().join("model"), "weights").unwrap();
        let scene = Self { database, tenant, folder };
        scene.register_model("model").await;
        scene
    }

    fn store(&self) -> &Store {
        &self.database.store
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    async fn register_model(&self, file: &str) {
        let model = NewBaseModel {
            name: fixtures::MODEL.to_owned(),
            path: self.path(file),
            source: None,
            license: None,
            facts: fixtures::model_facts(),
            sha256: fixtures::MODEL_SHA256.to_owned(),
        };
        self.store().register_base_model(&model).await.unwrap();
    }

    /// A job that waits for its validation, made from a file that is stored.
    async fn job_of(&self, file: FileId) -> Job {
        let job = fixtures::new_job(file).unwrap();
        self.store().create_job(self.tenant, job, None).await.unwrap().into_inner()
    }

    /// A job that waits for its training.
    async fn validated_job(&self) -> Job {
        let file = fixtures::file(self.store(), self.tenant).await.unwrap();
        let job = self.job_of(file).await;
        let worker: WorkerFacts = fixtures::worker(self.store()).await.unwrap();
        let lease = self.store().claim(&worker, &[TaskKind::Validate]).await.unwrap().unwrap();
        self.store().finish_validation(&lease.key, &fixtures::validated(&job).unwrap()).await.unwrap();
        self.store().worker_gone(worker.id).await.unwrap();
        job
    }

    fn options(&self, kind: TaskKind) -> WorkerOptions {
        let timings = WorkerTimings {
            poll: Duration::from_millis(200),
            report: Duration::from_millis(50),
            tail: Duration::from_millis(20),
            keepalive: Duration::from_millis(300),
            watchdog_least: Duration::from_secs(3),
            stop_grace: Duration::from_secs(5),
            ..WorkerTimings::default()
        };
        WorkerOptions {
            engine_program: self.path("fake-engine"),
            work_dir: self.path("attempts"),
            threads: 1,
            device: DeviceRequest::Cpu,
            dictionary: None,
            encoder: None,
            judging: JudgeOptions { judges: Judges::default(), outbound: Outbound::new(Vec::new()) },
            kinds: vec![kind],
            timings,
            serving: None,
        }
    }

    fn start(&self, kind: TaskKind) -> Running {
        self.start_on(self.store().clone(), self.options(kind))
    }

    fn start_on(&self, store: Store, options: WorkerOptions) -> Running {
        let shutdown = CancellationToken::new();
        let ended = tokio::spawn(run(store, options, shutdown.clone()));
        Running { shutdown, ended }
    }

    async fn get(&self, job: JobId) -> Job {
        self.store().get_job(self.tenant, job).await.unwrap()
    }

    /// Waits until the job is as `wanted` says.
    async fn until(&self, job: JobId, wanted: impl Fn(&Job) -> bool) -> Job {
        let start = Instant::now();
        loop {
            let job = self.get(job).await;
            if wanted(&job) {
                return job;
            }
            if start.elapsed() > Duration::from_secs(30) {
                let events: Vec<String> = self.messages(job.id).await;
                panic!("the job stays {:?}, paused {}, {:?}: {events:#?}", job.status, job.paused, job.error);
            }
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }

    async fn until_status(&self, job: JobId, status: JobStatus) -> Job {
        self.until(job, |job| job.status == status).await
    }

    /// Waits for a file that the script writes beside itself.
    async fn until_file(&self, name: &str) -> String {
        let start = Instant::now();
        loop {
            let text = fs::read_to_string(self.path(name)).unwrap_or_default();
            if !text.trim().is_empty() {
                return text.trim().to_owned();
            }
            assert!(start.elapsed() < Duration::from_secs(20), "{name} was not written");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn events(&self, job: JobId) -> Vec<Event> {
        let events = self.store().events_since(self.tenant, job, 0, 1000).await.unwrap();
        let numbers: Vec<u64> = events.iter().map(|event| event.sequence).collect();
        assert_eq!(numbers, (1..=events.len() as u64).collect::<Vec<_>>(), "events without gap or duplicate");
        events
    }

    async fn messages(&self, job: JobId) -> Vec<String> {
        self.events(job).await.into_iter().map(|event| event.message).collect()
    }

    /// What is left of attempts.
    fn leftovers(&self) -> usize {
        fs::read_dir(self.path("attempts")).map_or(0, Iterator::count)
    }
}

/// A script whose every attempt trains three steps, from where its checkpoint stands.
const TRAINS: &str = r#"
place = os.path.join(folder, "checkpoints")
done = max([int(name[5:]) for name in os.listdir(place)], default=0) if os.path.isdir(place) else 0
started(total_steps=3, resumed=done)
evaluated(0)
for number in range(done + 1, 4):
    step(number, loss=4.0 - number)
    checkpoint(number, text=f"weights of {number}")
evaluated(3)
exported()
finished()
"#;
