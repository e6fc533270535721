//! Room on disks is reserved by claims: what does not fit waits with a reason, and starts by itself once it does.
#![allow(clippy::unwrap_used)]

use finetuned_protocol::{
    ids::{JobId, TenantId, WorkerId},
    spec::DiskEstimate,
    status::TaskKind,
};
use serde_json::json;

use crate::{
    DiskRoom, Lease, NewCheckpoint, Release, Store, StoredFile, Validated, WorkerFacts,
    testing::{TestDatabase, fixtures},
};

const ALL: &[TaskKind] = TaskKind::ALL;

struct Scene {
    _database: TestDatabase,
    store: Store,
    tenant: TenantId,
    workers: Vec<WorkerFacts>,
}

impl Scene {
    /// Two workers of one host, with this room each.
    async fn with(room: DiskRoom) -> Self {
        let database = TestDatabase::create().await.unwrap();
        let store = database.store.clone();
        let tenant = fixtures::tenant(&store, "acme").await.unwrap();
        let first = WorkerFacts { disk: room, ..fixtures::worker(&store).await.unwrap() };
        let second = WorkerFacts { id: WorkerId::generate(), ..first.clone() };
        for worker in [&first, &second] {
            store.register_worker(worker).await.unwrap();
        }
        Self { _database: database, store, tenant, workers: vec![first, second] }
    }

    /// A job that waits for its training, which needs this room beside its dataset.
    async fn job(&self, disk: DiskEstimate) -> JobId {
        let job = fixtures::job(&self.store, self.tenant).await.unwrap();
        let worker = fixtures::worker(&self.store).await.unwrap();
        let lease = self.store.claim(&worker, &[TaskKind::Validate]).await.unwrap().unwrap();
        let validated = fixtures::validated(&job).unwrap();
        let validated =
            Validated { estimate: finetuned_protocol::spec::Estimate { disk, ..validated.estimate }, ..validated };
        self.store.finish_validation(&lease.key, &validated).await.unwrap();
        self.store.worker_gone(worker.id).await.unwrap();
        job.id
    }

    async fn claim(&self, worker: usize) -> Option<Lease> {
        self.store.claim(&self.workers[worker], ALL).await.unwrap()
    }

    async fn reason(&self, job: JobId) -> Option<String> {
        self.store.get_job(self.tenant, job).await.unwrap().waiting_reason
    }
}

fn room(work_bytes: u64, stored_bytes: u64, is_shared: bool) -> DiskRoom {
    DiskRoom { work_bytes, stored_bytes, is_shared }
}

#[tokio::test]
async fn what_does_not_fit_beside_what_is_reserved_waits_and_then_starts() {
    let scene = Scene::with(room(1000, 5000, false)).await;
    let need = DiskEstimate { work_bytes: 600, stored_bytes: 100 };
    let (first, second) = (scene.job(need).await, scene.job(need).await);
    assert_eq!(scene.reason(first).await, None);
    let lease = scene.claim(0).await.unwrap();
    assert_eq!(lease.job.id, first);
    assert!(scene.claim(1).await.is_none(), "the host's other worker sees what is reserved");
    let reason = scene.reason(second).await.unwrap();
    assert!(reason.contains("disk space"), "{reason}");
    scene.store.release(&lease.key, Release::Shutdown).await.unwrap();
    assert_eq!(scene.reason(second).await, None);
    assert_eq!(scene.claim(1).await.unwrap().job.id, first, "in its old place");
}

#[tokio::test]
async fn the_store_is_every_hosts_and_an_attempts_folder_is_its_own_hosts() {
    let mut scene = Scene::with(room(1000, 1000, false)).await;
    scene.workers[1].host = "another".to_owned();
    scene.store.register_worker(&scene.workers[1]).await.unwrap();
    scene.job(DiskEstimate { work_bytes: 900, stored_bytes: 600 }).await;
    scene.claim(0).await.unwrap();
    let wide = scene.job(DiskEstimate { work_bytes: 900, stored_bytes: 600 }).await;
    assert!(scene.claim(1).await.is_none(), "the store is promised already");
    scene.store.cancel_job(scene.tenant, wide).await.unwrap();
    scene.job(DiskEstimate { work_bytes: 900, stored_bytes: 300 }).await;
    assert!(scene.claim(1).await.is_some());
}

#[tokio::test]
async fn where_one_disk_holds_both_their_sum_counts() {
    for (is_shared, fits) in [(true, false), (false, true)] {
        let scene = Scene::with(room(1000, 1000, is_shared)).await;
        scene.job(DiskEstimate { work_bytes: 600, stored_bytes: 600 }).await;
        assert_eq!(scene.claim(0).await.is_some(), fits, "shared: {is_shared}");
    }
}

#[tokio::test]
async fn a_dataset_counts_and_a_stored_checkpoint_need_not_be_reserved_again() {
    let scene = Scene::with(room(700, 1000, false)).await;
    // With its dataset of a few dozen bytes it is too much.
    let large = scene.job(DiskEstimate { work_bytes: 690, stored_bytes: 0 }).await;
    assert!(scene.claim(0).await.is_none());
    scene.store.cancel_job(scene.tenant, large).await.unwrap();
    scene.job(DiskEstimate { work_bytes: 0, stored_bytes: 800 }).await;
    let lease = scene.claim(0).await.unwrap();
    scene.job(DiskEstimate { work_bytes: 0, stored_bytes: 300 }).await;
    assert!(scene.claim(1).await.is_none());
    let content = scene.store.put_bytes(scene.tenant, bytes::Bytes::from(vec![0; 200])).await.unwrap();
    let files = vec![StoredFile { name: "weights".to_owned(), content }];
    scene.store.publish_checkpoint(&lease.key, &NewCheckpoint { step: 1, metrics: json!({}), files }).await.unwrap();
    // 600 are left of the reservation; the disk itself would have 200 less, which the worker sees for itself.
    assert!(scene.claim(1).await.is_some());
}

#[tokio::test]
async fn two_workers_that_claim_at_once_do_not_both_get_the_last_room() {
    for _ in 0..5 {
        let scene = Scene::with(room(1000, 1000, true)).await;
        let need = DiskEstimate { work_bytes: 500, stored_bytes: 100 };
        scene.job(need).await;
        scene.job(need).await;
        let (a, b) = tokio::join!(scene.claim(0), scene.claim(1));
        assert_eq!(usize::from(a.is_some()) + usize::from(b.is_some()), 1);
    }
}
