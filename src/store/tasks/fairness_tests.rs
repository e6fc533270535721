//! The longest wait of a job is bounded, whatever comes in and whoever sends it: ARCHITECTURE.md states the bound.
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;

use finetuned_protocol::{
    error::{ErrorCode, JobError},
    ids::{JobId, TenantId},
    status::TaskKind,
};

use crate::{
    LeaseKey, Store,
    testing::{TestDatabase, fixtures},
};

/// Longest that a task takes, in ticks of the simulation.
const LONGEST: u64 = 8;

/// The same numbers in every run (xorshift, Marsaglia 2003).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

struct Waiting {
    tenant: usize,
    since: u64,
    priority: i32,
    /// Jobs of the same tenant that were there before or came with a higher priority and started first.
    passed_by: u64,
}

struct Simulation {
    store: Store,
    tenants: Vec<TenantId>,
    weights: Vec<f64>,
    workers: usize,
    waiting: HashMap<JobId, Waiting>,
    running: Vec<(u64, LeaseKey)>,
    random: Random,
}

impl Simulation {
    async fn new(workers: usize, weights: &[f64], seed: u64) -> (TestDatabase, Self) {
        let database = TestDatabase::create().await.unwrap();
        let store = database.store.clone();
        let mut tenants = Vec::new();
        for (number, weight) in weights.iter().enumerate() {
            tenants.push(fixtures::tenant(&store, &format!("tenant-{number}")).await.unwrap());
            sqlx::query("update tenants set weight = $1 where id = $2")
                .bind(weight)
                .bind(tenants[number].0)
                .execute(store.pool())
                .await
                .unwrap();
        }
        let (waiting, running) = (HashMap::new(), Vec::new());
        let weights = weights.to_vec();
        (database, Self { store, tenants, weights, workers, waiting, running, random: Random(seed) })
    }

    async fn arrive(&mut self, tenant: usize, now: u64) {
        let job = fixtures::job(&self.store, self.tenants[tenant]).await.unwrap().id;
        let priority = self.random.below(3) as i32 - 1;
        self.store.set_priority(self.tenants[tenant], job, priority).await.unwrap();
        self.waiting.insert(job, Waiting { tenant, since: now, priority, passed_by: 0 });
    }

    async fn finish(&mut self, now: u64) {
        let (ended, running): (Vec<_>, Vec<_>) = self.running.drain(..).partition(|(until, _)| *until <= now);
        self.running = running;
        for (_, key) in ended {
            self.store.fail(&key, JobError::new(ErrorCode::InternalError, "done")).await.unwrap();
        }
    }

    /// Lets free workers claim; gives the largest share of its bound that a started job had waited.
    async fn start(&mut self, now: u64) -> f64 {
        let worker = fixtures::worker(&self.store).await.unwrap();
        let mut worst: f64 = 0.0;
        while self.running.len() < self.workers {
            let Some(lease) = self.store.claim(&worker, TaskKind::ALL).await.unwrap() else { break };
            let started = self.waiting.remove(&lease.job.id).unwrap();
            for other in self.waiting.values_mut().filter(|other| other.tenant == started.tenant) {
                other.passed_by += 1;
                let in_order = started.priority > other.priority
                    || (started.priority == other.priority && started.since <= other.since);
                assert!(in_order, "a job passed one of its own tenant that goes before it");
            }
            worst = worst.max((now - started.since) as f64 / self.bound(&started) as f64);
            self.running.push((now + 1 + self.random.below(LONGEST), lease.key));
        }
        worst
    }

    /// r · D · (1 + ⌈(1 + Σ (⌊w_other / w⌋ + 2)) / W⌉), as ARCHITECTURE.md has it.
    fn bound(&self, job: &Waiting) -> u64 {
        let own = self.weights[job.tenant];
        let others = self.weights.iter().enumerate().filter(|(tenant, _)| *tenant != job.tenant);
        let turns: u64 = 1 + others.map(|(_, weight)| (weight / own) as u64 + 2).sum::<u64>();
        (job.passed_by + 1) * LONGEST * (1 + turns.div_ceil(self.workers as u64))
    }

    /// Random arrivals for a while, one tenant flooding; then until nothing waits.
    async fn run(&mut self, ticks: u64) -> f64 {
        let mut worst: f64 = 0.0;
        let mut now = 0;
        while now < ticks || !self.waiting.is_empty() {
            self.finish(now).await;
            if now < ticks {
                if now == 0 {
                    for _ in 0..20 {
                        self.arrive(0, now).await;
                    }
                }
                for tenant in 0..self.tenants.len() {
                    if self.random.below(6) == 0 {
                        self.arrive(tenant, now).await;
                    }
                }
            }
            worst = worst.max(self.start(now).await);
            now += 1;
        }
        worst
    }
}

#[tokio::test]
async fn no_wait_is_longer_than_its_bound() {
    for (workers, weights, seed) in
        [(1, vec![1.0, 1.0, 1.0], 7), (2, vec![1.0, 3.0, 0.5, 1.0], 11), (3, vec![2.0, 1.0, 1.0, 1.0, 1.0], 13)]
    {
        let (_database, mut simulation) = Simulation::new(workers, &weights, seed).await;
        let worst = simulation.run(30).await;
        println!("{workers} workers, weights {weights:?}: the worst wait was {worst:.2} of its bound");
        assert!(worst <= 1.0, "{worst} of the bound with {workers} workers, weights {weights:?}, seed {seed}");
        assert!(worst > 0.05, "a bound that nothing comes near says nothing: {worst}");
    }
}

#[tokio::test]
async fn a_tenant_with_one_job_behind_ten_thousand_starts_next() {
    let database = TestDatabase::create().await.unwrap();
    let store = &database.store;
    let (big, small) = (fixtures::tenant(store, "big").await.unwrap(), fixtures::tenant(store, "small").await.unwrap());
    let worker = fixtures::worker(store).await.unwrap();
    let first = fixtures::job(store, big).await.unwrap();
    let copies = "with made as (
            insert into tasks (id, tenant_id, kind, job_id, needs_model, priority)
            select gen_random_uuid(), tenant_id, kind, job_id, needs_model, 100 from tasks, generate_series(1, 10000)
            returning id, tenant_id
        )
        insert into task_lease (task_id, tenant_id) select id, tenant_id from made";
    sqlx::query(copies).execute(store.pool()).await.unwrap();
    let lease = store.claim(&worker, TaskKind::ALL).await.unwrap().unwrap();
    assert_eq!(lease.job.id, first.id);
    let late = fixtures::job(store, small).await.unwrap();
    assert_eq!(store.claim(&worker, TaskKind::ALL).await.unwrap().unwrap().job.id, late.id);
}
