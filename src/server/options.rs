//! How a server is to behave.

use std::{net::SocketAddr, time::Duration};

use finetuned_outbound::{Allowed, Judges};

/// Who may call without an API key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Anonymous {
    /// The tenant `default`, as long as the database holds no key and the server listens on loopback.
    AllowedOnLoopback,
    Refused,
}

/// Settings of one server.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// The address that is listened on; decides whether [`Anonymous::AllowedOnLoopback`] holds.
    pub listen: SocketAddr,
    pub anonymous: Anonymous,
    /// Largest file that may be uploaded.
    pub max_upload_bytes: u64,
    /// Longest time until an answer begins, uploads excepted.
    pub request_timeout: Duration,
    /// Longest pause within an upload.
    pub upload_idle_timeout: Duration,
    /// Uploads taken in at once; each holds a linter's thread and memory. More wait, for [`Self::request_timeout`].
    pub max_uploads: usize,
    /// What webhooks and judges may be beyond the public internet.
    pub allow_outbound: Vec<Allowed>,
    /// Judges that jobs may name.
    pub judges: Judges,
    /// Longest time that open requests are given at the end.
    pub shutdown_grace: Duration,
}

impl ServerOptions {
    pub fn new(listen: SocketAddr) -> Self {
        Self {
            listen,
            anonymous: Anonymous::AllowedOnLoopback,
            max_upload_bytes: 8 << 30,
            request_timeout: Duration::from_secs(30),
            upload_idle_timeout: Duration::from_secs(60),
            max_uploads: 4,
            allow_outbound: Vec::new(),
            judges: Judges::default(),
            shutdown_grace: Duration::from_secs(10),
        }
    }

    /// Whether a caller without a key may be the tenant `default`, as far as the server alone can tell.
    pub fn allows_anonymous(&self) -> bool {
        self.anonymous == Anonymous::AllowedOnLoopback && self.listen.ip().is_loopback()
    }
}
