//! What a worker says of itself, kept fresh: models come and go, and so does free memory.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use finetuned_protocol::{engine::DeviceRequest, ids::WorkerId};
use finetuned_store::{DiskRoom, Store, StoreError, WorkerFacts};
use serde_json::json;

use crate::{WorkerOptions, disk, host};

/// Facts younger than this are fresh: claims come often, models seldom.
const FRESH: Duration = Duration::from_millis(500);

/// The facts of one worker process, shared by its slots.
#[derive(Debug, Clone)]
pub struct Facts {
    store: Store,
    options: Arc<WorkerOptions>,
    id: WorkerId,
    known: Arc<Mutex<Option<Known>>>,
}

#[derive(Debug, Clone)]
struct Known {
    at: Instant,
    /// As the database has them.
    registered: WorkerFacts,
    /// The same with the room that there was at last, since it is promised to tasks.
    now: WorkerFacts,
}

impl Facts {
    pub fn new(store: Store, options: Arc<WorkerOptions>) -> Self {
        Self { store, options, id: WorkerId::generate(), known: Arc::default() }
    }

    pub fn id(&self) -> WorkerId {
        self.id
    }

    /// Facts as they are now, registered where they changed.
    ///
    /// # Errors
    /// The store's.
    pub async fn fresh(&self) -> Result<WorkerFacts, StoreError> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(known) = known.as_ref().filter(|known| known.at.elapsed() < FRESH) {
            return Ok(known.now.clone());
        }
        let gathered = self.gather().await?;
        let registered = match known.map(|known| known.registered) {
            Some(registered) if is_much_the_same(&registered, &gathered) => registered,
            _ => {
                self.store.register_worker(&gathered).await?;
                tracing::info!(worker = %self.id, models = gathered.models.len(), "registered");
                gathered.clone()
            }
        };
        let now = WorkerFacts { disk: gathered.disk, ..registered.clone() };
        let known = Known { at: Instant::now(), registered, now: now.clone() };
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(known);
        Ok(now)
    }

    /// Says that this worker lives; one that the database forgot registers anew.
    ///
    /// # Errors
    /// The store's.
    pub async fn say_alive(&self) -> Result<(), StoreError> {
        match self.store.worker_seen(self.id).await {
            Err(StoreError::NotFound { .. }) => {
                *self.known.lock().unwrap_or_else(PoisonError::into_inner) = None;
                self.fresh().await.map(|_| ())
            }
            other => other,
        }
    }

    async fn gather(&self) -> Result<WorkerFacts, StoreError> {
        let models = self.store.base_models().await?;
        let present = models.into_iter().filter(|model| model.path.exists()).map(|model| model.sha256);
        Ok(WorkerFacts {
            id: self.id,
            host: host::name(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            devices: json!(devices(self.options.device)),
            threads: self.options.threads,
            instruction_set: host::instruction_set().to_owned(),
            free_memory_bytes: host::free_memory_bytes(),
            disk: self.disk_room().await,
            models: present.collect(),
        })
    }

    /// Room on disks; one that cannot be looked at keeps no task away, which will say what is wrong with it.
    async fn disk_room(&self) -> DiskRoom {
        let (work, stored) = (self.options.work_dir.clone(), self.store.blobs_folder().to_owned());
        let room = tokio::task::spawn_blocking(move || disk::room(&work, &stored)).await;
        match room.map_err(std::io::Error::other).flatten() {
            Ok(room) => room,
            Err(error) => {
                tracing::warn!(%error, "the room on this host's disks is not known");
                DiskRoom { work_bytes: u64::MAX, stored_bytes: u64::MAX, is_shared: false }
            }
        }
    }
}

/// Whether another registration would tell nobody anything: memory and room always change a little.
fn is_much_the_same(known: &WorkerFacts, now: &WorkerFacts) -> bool {
    let like = |known: u64, now: u64| known.abs_diff(now) <= known / 8;
    known.models == now.models
        && like(known.free_memory_bytes, now.free_memory_bytes)
        && like(known.disk.work_bytes, now.disk.work_bytes)
        && like(known.disk.stored_bytes, now.disk.stored_bytes)
}

/// Devices that the engine may be given, as far as the worker can see without libtorch.
fn devices(request: DeviceRequest) -> Vec<String> {
    match request {
        DeviceRequest::Cpu => vec!["cpu".to_owned()],
        DeviceRequest::Cuda => host::cuda_devices(),
        DeviceRequest::Auto => host::cuda_devices().into_iter().chain(["cpu".to_owned()]).collect(),
    }
}
