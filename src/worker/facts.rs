//! What a worker says of itself, kept fresh: models come and go, and so does free memory.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use finetuned_protocol::{engine::DeviceRequest, ids::WorkerId};
use finetuned_store::{Store, StoreError, WorkerFacts};
use serde_json::json;

use crate::{WorkerOptions, host};

/// Facts younger than this are fresh: claims come often, models seldom.
const FRESH: Duration = Duration::from_millis(500);

/// The facts of one worker process, shared by its slots.
#[derive(Debug, Clone)]
pub struct Facts {
    store: Store,
    options: Arc<WorkerOptions>,
    id: WorkerId,
    known: Arc<Mutex<Option<(Instant, WorkerFacts)>>>,
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
        if let Some((_, facts)) = known.as_ref().filter(|(when, _)| when.elapsed() < FRESH) {
            return Ok(facts.clone());
        }
        let facts = match (self.gather().await?, known) {
            (now, Some((_, known))) if is_much_the_same(&known, &now) => known,
            (now, _) => {
                self.store.register_worker(&now).await?;
                tracing::info!(worker = %self.id, models = now.models.len(), "registered");
                now
            }
        };
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), facts.clone()));
        Ok(facts)
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
            models: present.collect(),
        })
    }
}

/// Whether another registration would tell nobody anything: free memory always changes a little.
fn is_much_the_same(known: &WorkerFacts, now: &WorkerFacts) -> bool {
    let change = known.free_memory_bytes.abs_diff(now.free_memory_bytes);
    known.models == now.models && change <= known.free_memory_bytes / 8
}

/// Devices that the engine may be given, as far as the worker can see without libtorch.
fn devices(request: DeviceRequest) -> Vec<String> {
    match request {
        DeviceRequest::Cpu => vec!["cpu".to_owned()],
        DeviceRequest::Cuda => host::cuda_devices(),
        DeviceRequest::Auto => host::cuda_devices().into_iter().chain(["cpu".to_owned()]).collect(),
    }
}
