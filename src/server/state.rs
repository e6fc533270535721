//! What handlers share.

use std::sync::Arc;

use finetuned_store::Store;

use crate::{jobs::adapter::Digests, options::ServerOptions};

/// Cheap to clone; one a server.
#[derive(Clone)]
pub struct App {
    pub store: Store,
    pub options: Arc<ServerOptions>,
    pub digests: Arc<Digests>,
}

impl App {
    pub fn new(store: Store, options: ServerOptions) -> Self {
        Self { store, options: Arc::new(options), digests: Arc::default() }
    }
}
