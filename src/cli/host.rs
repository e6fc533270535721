//! The service's own state, opened without HTTP: its data folder, its Postgres, its store.

use std::path::PathBuf;

use anyhow::Context;
use finetuned_store::{
    Store, StoreOptions, Timings,
    embedded::{EmbeddedOptions, Postgres},
};

use crate::{args::StoreArgs, paths};

/// An opened store, and the Postgres of our own where it uses one.
pub struct Host {
    pub store: Store,
    pub data_dir: PathBuf,
    /// Where attempts at tasks have their folders.
    pub work_dir: PathBuf,
    /// Factor of all times after which silence is taken for death.
    pub time_scale: f64,
    /// The spelling dictionary, where the runtime folder has one.
    pub dictionary: Option<PathBuf>,
    /// The text encoder, where the runtime folder has one.
    pub encoder: Option<PathBuf>,
    postgres: Option<Postgres>,
}

impl Host {
    /// Opens the data folder: starts or joins its Postgres unless a database is named, and brings the schema up to date.
    ///
    /// # Errors
    /// What is missing or refuses, and what to do.
    pub async fn open(args: &StoreArgs) -> anyhow::Result<Self> {
        let data_dir = paths::data_dir(args)?;
        let blobs = paths::private_dir(&data_dir, "blobs")?;
        let work_dir = paths::private_dir(&data_dir, "work")?;
        let dictionary = paths::dictionary(args.runtime_dir.as_deref());
        let encoder = paths::encoder(args.runtime_dir.as_deref());
        let (url, postgres) = match &args.database_url {
            Some(url) => (url.clone(), None),
            None => {
                let runtime_dir = paths::runtime_dir(args.runtime_dir.as_deref())?.join("postgres");
                let options = EmbeddedOptions { data_dir: data_dir.clone(), runtime_dir };
                let postgres = Postgres::start(options).await.context("while starting the service's own Postgres")?;
                (postgres.url(), Some(postgres))
            }
        };
        let timings = Timings::default().scaled(args.time_scale);
        match connect(StoreOptions { timings, ..StoreOptions::new(url, blobs) }).await {
            Ok(store) => {
                Ok(Self { store, data_dir, work_dir, time_scale: args.time_scale, dictionary, encoder, postgres })
            }
            Err(error) => {
                leave(postgres).await;
                Err(error)
            }
        }
    }

    /// Closes the store, and stops the Postgres of our own where no other process uses it.
    pub async fn close(self) {
        self.store.close().await;
        leave(self.postgres).await;
    }
}

async fn connect(options: StoreOptions) -> anyhow::Result<Store> {
    let store = Store::connect(options).await.context("while opening the store")?;
    store.migrate().await.context("while bringing the database's schema up to date")?;
    Ok(store)
}

async fn leave(postgres: Option<Postgres>) {
    if let Some(postgres) = postgres {
        match postgres.stop().await {
            Ok(stopped) => tracing::debug!(stopped, "left Postgres"),
            Err(error) => tracing::warn!(%error, "Postgres could not be stopped; the next start takes it over"),
        }
    }
}
