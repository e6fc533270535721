//! What handlers share.

use std::sync::Arc;

use finetuned_outbound::Outbound;
use finetuned_store::Store;
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::{
    http::{error::ApiError, rate::Rates},
    jobs::{adapter::Digests, hub::Hub},
    options::ServerOptions,
    tokenizers::Tokenizers,
    uploads::Completions,
};

/// Cheap to clone; one a server.
#[derive(Clone)]
pub struct App {
    pub store: Store,
    pub options: Arc<ServerOptions>,
    pub digests: Arc<Digests>,
    pub hub: Arc<Hub>,
    /// Cancelled when the server is to end: streams end then.
    pub closing: CancellationToken,
    pub tokenizers: Arc<Tokenizers>,
    /// For calls to addresses that clients name.
    pub outbound: Outbound,
    pub completions: Arc<Completions>,
    pub rates: Arc<Rates>,
    uploads: Arc<Semaphore>,
}

impl App {
    pub fn new(store: Store, options: ServerOptions, closing: CancellationToken) -> Self {
        let uploads = Arc::new(Semaphore::new(options.max_uploads));
        let hub = Hub::new(store.clone());
        let outbound = Outbound::new(options.allow_outbound.clone());
        let tokenizers = Arc::default();
        let options = Arc::new(options);
        Self {
            store,
            options,
            digests: Arc::default(),
            hub,
            closing,
            tokenizers,
            outbound,
            completions: Arc::default(),
            rates: Arc::default(),
            uploads,
        }
    }

    /// A place among the uploads that are taken in at once.
    ///
    /// # Errors
    /// None became free within the time of a request; the client is told to come back.
    pub async fn upload_place(&self) -> Result<SemaphorePermit<'_>, ApiError> {
        match timeout(self.options.request_timeout, self.uploads.acquire()).await {
            Ok(place) => place.map_err(ApiError::internal),
            Err(_) => Err(ApiError::busy(format!(
                "{} other uploads are being taken in; try again soon",
                self.options.max_uploads
            ))),
        }
    }
}
