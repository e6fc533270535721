//! One request from its model's name to its answers.

use std::{
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use finetuned_protocol::{
    precision::BasePrecision,
    serving::{
        AdapterPlace, AnswerCommand, MOST_CHOICES, Refusal, RefusalKind, ServeCommand, ServingLine, ServingRequest,
    },
};
use finetuned_store::{ServedModel, ServedWeights, Store, StoreError};
use tokio::{
    sync::{
        OwnedRwLockReadGuard, RwLock,
        mpsc::{UnboundedReceiver, unbounded_channel},
    },
    time::{sleep, timeout},
};

use super::{
    DeviceSharing, Training,
    library::{Library, Shelved},
    resident::{Resident, ResidentModel},
};
use crate::{WorkerOptions, folder::AttemptFolder};

/// Longest wait for the answers of another base model to end.
const TURN: Duration = Duration::from_secs(120);
/// A model that nobody asked for so long leaves memory.
const IDLE: Duration = Duration::from_secs(600);

/// Takes requests.
pub struct Desk {
    store: Store,
    options: Arc<WorkerOptions>,
    sharing: DeviceSharing,
    training: Training,
    library: Library,
    /// Requests hold it to read for as long as they are answered; another base model takes it to write. It is fair, so that
    /// neither of two base models waits for ever.
    resident: Arc<RwLock<Option<Resident>>>,
    last_used: Arc<Mutex<Instant>>,
    folder: AttemptFolder,
}

/// A request under way. Dropping it cancels what is not answered yet.
pub struct Ticket {
    pub lines: UnboundedReceiver<ServingLine>,
    ids: Vec<u64>,
    resident: OwnedRwLockReadGuard<Option<Resident>>,
    last_used: Arc<Mutex<Instant>>,
    _adapter: Option<Shelved>,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(resident) = self.resident.as_ref() {
            for &id in &self.ids {
                resident.leave(id);
            }
        }
        *self.last_used.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }
}

impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Desk").field("sharing", &self.sharing).finish_non_exhaustive()
    }
}

impl Desk {
    pub fn new(
        store: Store,
        options: Arc<WorkerOptions>,
        sharing: DeviceSharing,
        training: Training,
        folder: AttemptFolder,
    ) -> Self {
        let library = Library::new(store.clone(), folder.join("models"));
        let last_used = Arc::new(Mutex::new(Instant::now()));
        Self { store, options, sharing, training, library, resident: Arc::default(), last_used, folder }
    }

    fn must_yield(&self) -> bool {
        self.sharing == DeviceSharing::TrainingFirst && self.training.is_on()
    }

    /// Begins to answer.
    ///
    /// # Errors
    /// Why not.
    pub async fn take(&self, request: ServingRequest) -> Result<Ticket, Refusal> {
        if self.must_yield() {
            let message = "the device is training, and is not shared with requests; try again when the job has ended";
            return Err(Refusal::new(RefusalKind::DeviceBusy, message));
        }
        if !(1..=MOST_CHOICES).contains(&request.choices) {
            return Err(Refusal::invalid("n", format!("`n` must be from 1 to {MOST_CHOICES}")));
        }
        let served = self.store.served_model(request.tenant, &request.model).await;
        let served = served.map_err(|error| not_served(&request.model, error))?;
        let (model, adapter) = self.place(&served).await?;
        let resident = self.resident(model).await?;
        Ok(self.ask(request, resident, adapter))
    }

    /// The files of a model on this host, and those of its adapter.
    async fn place(&self, served: &ServedModel) -> Result<(ResidentModel, Option<(AdapterPlace, Shelved)>), Refusal> {
        let base = ResidentModel { path: served.base.path.clone(), precision: served.precision };
        let (key, is_whole) = match &served.weights {
            ServedWeights::Base => return Ok((base, None)),
            ServedWeights::Adapter { key, .. } | ServedWeights::Checkpoint { key, .. } => (key, false),
            ServedWeights::Whole { key, .. } => (key, true),
        };
        let shelved = self.library.folder(key, &served.weights).await.map_err(internal("fetching an adapter"))?;
        let folder: PathBuf = shelved.get().cloned().unwrap_or_default();
        if is_whole {
            return Ok((ResidentModel { path: folder, precision: BasePrecision::Auto }, None));
        }
        Ok((base, Some((AdapterPlace { key: key.clone(), folder }, shelved))))
    }

    /// The engine that holds `model`, which is started where another one runs, or none.
    async fn resident(&self, model: ResidentModel) -> Result<OwnedRwLockReadGuard<Option<Resident>>, Refusal> {
        let is_it = |resident: &Option<Resident>| {
            resident.as_ref().is_some_and(|resident| resident.model == model && !resident.has_ended())
        };
        let turn = async {
            let resident = Arc::clone(&self.resident).read_owned().await;
            if is_it(&resident) {
                return Ok(resident);
            }
            drop(resident);
            let mut resident = Arc::clone(&self.resident).write_owned().await;
            if !is_it(&resident) {
                // Two models may not fit into memory.
                *resident = None;
                let started = Resident::start(&self.options, self.folder.path(), model.clone()).await;
                *resident = Some(started.map_err(internal("starting an engine"))?);
            }
            Ok(resident.downgrade())
        };
        timeout(TURN, turn).await.unwrap_or_else(|_| {
            let message = "requests to another base model are being answered; try again soon";
            Err(Refusal::new(RefusalKind::Overloaded, message))
        })
    }

    fn ask(
        &self,
        request: ServingRequest,
        resident: OwnedRwLockReadGuard<Option<Resident>>,
        adapter: Option<(AdapterPlace, Shelved)>,
    ) -> Ticket {
        let (sender, lines) = unbounded_channel();
        let (place, shelved) = adapter.unzip();
        let ServingRequest { tenant, prompt, settings, choices, model: _ } = request;
        let ids = resident.as_ref().map_or_else(Vec::new, |resident| {
            let one = |choice: u64| {
                let mut settings = settings.clone();
                settings.seed = settings.seed.wrapping_add(choice);
                let (adapter, prompt) = (place.clone(), prompt.clone());
                resident.ask(choice, &sender, |id| {
                    ServeCommand::Answer(Box::new(AnswerCommand { id, tenant, adapter, prompt, settings }))
                })
            };
            (0..u64::from(choices)).map(one).collect()
        });
        Ticket { lines, ids, resident, last_used: Arc::clone(&self.last_used), _adapter: shelved }
    }

    /// Ends an engine that nobody asks, or that must make room for training once nobody waits for it.
    pub async fn look_after(&self, every: Duration) {
        loop {
            sleep(every).await;
            let Ok(mut resident) = self.resident.try_write() else { continue };
            let unused = self.last_used.lock().unwrap_or_else(PoisonError::into_inner).elapsed() > IDLE;
            let unwanted =
                |resident: &Resident| resident.has_ended() || resident.is_idle() && (unused || self.must_yield());
            if resident.as_ref().is_some_and(unwanted) {
                *resident = None;
            }
        }
    }
}

fn not_served(name: &str, error: StoreError) -> Refusal {
    match error {
        StoreError::NotFound { .. } => Refusal {
            param: Some("model".to_owned()),
            ..Refusal::new(RefusalKind::ModelNotFound, format!("no model is called `{name}`"))
        },
        StoreError::Conflict { message } => Refusal::invalid("model", message),
        error => internal("looking up a model")(error),
    }
}

fn internal<E: std::fmt::Display>(doing: &'static str) -> impl FnOnce(E) -> Refusal {
    move |error| {
        tracing::error!(%error, doing, "a request cannot be answered");
        Refusal::new(RefusalKind::Internal, "the worker cannot answer this request; its log says why")
    }
}
