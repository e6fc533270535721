//! Stands between a store and its Postgres, and can be cut.

use std::path::PathBuf;

use finetuned_store::{Store, StoreOptions};
use secrecy::{ExposeSecret, SecretString};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::task::AbortOnDropHandle;

use super::{LEASES, Scene};

const SOCKET: &str = ".s.PGSQL.5432";

pub struct Proxy {
    folder: tempfile::TempDir,
    real: PathBuf,
    serving: Option<AbortOnDropHandle<()>>,
}

impl Proxy {
    /// A store that reaches the scene's database through the proxy.
    pub async fn new(scene: &Scene) -> (Self, Store) {
        let url = scene.database.url.expose_secret().to_owned();
        let (start, host) = url.split_once("host=").unwrap();
        let (host, rest) =
            host.split_once('&').map_or((host, String::new()), |(host, rest)| (host, format!("&{rest}")));
        let real = PathBuf::from(host.replace("%2F", "/")).join(SOCKET);
        assert!(real.exists(), "{}", real.display());
        let folder = tempfile::tempdir().unwrap();
        let url = format!("{start}host={}{rest}", folder.path().display());
        let mut proxy = Self { folder, real, serving: None };
        proxy.mend();
        let mut options = StoreOptions::new(SecretString::from(url), &scene.database.blobs_dir);
        options.timings = LEASES;
        (proxy, Store::connect(options).await.unwrap())
    }

    /// Breaks every connection and takes no new one.
    pub fn cut(&mut self) {
        self.serving = None;
        let _ = std::fs::remove_file(self.folder.path().join(SOCKET));
    }

    pub fn mend(&mut self) {
        let listener = UnixListener::bind(self.folder.path().join(SOCKET)).unwrap();
        let real = self.real.clone();
        self.serving = Some(AbortOnDropHandle::new(tokio::spawn(async move {
            // Ends with this task, and all connections with it.
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (mut near, _) = listener.accept().await.unwrap();
                let mut far = UnixStream::connect(&real).await.unwrap();
                connections.spawn(async move { tokio::io::copy_bidirectional(&mut near, &mut far).await });
            }
        })));
    }
}
