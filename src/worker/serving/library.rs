//! Adapters and trained models on this worker's disk, fetched when first asked for.

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use finetuned_protocol::serving::{CHECKPOINT_FILE, CHECKPOINT_TENSORS};
use finetuned_store::{ServedWeights, Store, StoreError, StoredFile};
use tokio::sync::{Mutex, OnceCell};

use crate::{error::AttemptError, layout::plain_name};

/// Folders that stay; those that were not asked for longest, and that nobody uses, go first.
const MOST: usize = 128;

/// A folder that stays for as long as somebody holds it.
pub type Shelved = Arc<OnceCell<PathBuf>>;

pub struct Library {
    store: Store,
    root: PathBuf,
    shelves: Mutex<Shelves>,
}

#[derive(Default)]
struct Shelves {
    by_key: HashMap<String, (u64, Shelved)>,
    asked: u64,
}

impl Library {
    pub fn new(store: Store, root: PathBuf) -> Self {
        Self { store, root, shelves: Mutex::default() }
    }

    /// The folder with an adapter's or a model's files.
    ///
    /// # Errors
    /// Bytes that cannot be fetched or written.
    pub async fn folder(&self, key: &str, weights: &ServedWeights) -> Result<Shelved, AttemptError> {
        let shelved = self.shelf(key).await;
        shelved.get_or_try_init(|| self.fetch(key, weights)).await?;
        Ok(shelved)
    }

    async fn shelf(&self, key: &str) -> Shelved {
        let mut shelves = self.shelves.lock().await;
        shelves.asked += 1;
        let asked = shelves.asked;
        let (last, shelved) = shelves.by_key.entry(key.to_owned()).or_default();
        *last = asked;
        let shelved = Arc::clone(shelved);
        while shelves.by_key.len() > MOST {
            let unused = shelves.by_key.iter().filter(|(_, (_, shelved))| Arc::strong_count(shelved) == 1);
            let Some(oldest) = unused.min_by_key(|(_, (last, _))| *last).map(|(key, _)| key.clone()) else { break };
            shelves.by_key.remove(&oldest);
            if let Err(error) = fs::remove_dir_all(self.root.join(&oldest)) {
                tracing::warn!(key = oldest, %error, "could not remove an adapter's folder");
            }
        }
        shelved
    }

    async fn fetch(&self, key: &str, weights: &ServedWeights) -> Result<PathBuf, AttemptError> {
        let place = self.root.join(plain_name(key)?);
        let doing = "making a folder for an adapter";
        if place.exists() {
            fs::remove_dir_all(&place).map_err(AttemptError::io(doing))?;
        }
        fs::create_dir_all(&place).map_err(AttemptError::io(doing))?;
        match weights {
            ServedWeights::Base => {}
            ServedWeights::Adapter { files, .. } | ServedWeights::Whole { files, .. } => {
                for file in files {
                    self.fetch_file(file, &place).await?;
                }
            }
            ServedWeights::Checkpoint { files, meaning, .. } => {
                // The optimiser's state is of no use here.
                for file in files.iter().filter(|file| file.name == CHECKPOINT_TENSORS) {
                    self.fetch_file(file, &place).await?;
                }
                let text = serde_json::to_vec(meaning).map_err(io::Error::from);
                let written = text.and_then(|text| fs::write(place.join(CHECKPOINT_FILE), text));
                written.map_err(AttemptError::io("writing what a checkpoint means"))?;
            }
        }
        Ok(place)
    }

    async fn fetch_file(&self, file: &StoredFile, place: &Path) -> Result<(), AttemptError> {
        let path = place.join(plain_name(&file.name)?);
        let fetched: Result<(), StoreError> = self.store.fetch_blob(&file.content, &path).await;
        fetched.map_err(AttemptError::store("fetching an adapter"))
    }
}
