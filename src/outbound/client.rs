//! A client for addresses that someone else chose.

use std::{
    error::Error as StdError,
    net::{IpAddr, SocketAddr},
    sync::{Arc, OnceLock},
    time::Duration,
};

use reqwest::{
    Client, Method, RequestBuilder, Url,
    dns::{Addrs, Name, Resolve, Resolving},
    redirect,
};
use tokio::time::timeout;

use crate::{Allowed, address::is_public};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Why nothing was sent, or no answer came. The words say nothing of what lies behind an address.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OutboundError {
    /// Not a URL that can be called.
    #[error("the URL {0}")]
    Url(&'static str),
    /// The name or address is not on the public internet, and no operator allowed it.
    #[error("the address is private, link-local or otherwise not public, and the operator's list does not allow it")]
    Refused,
    /// No answer came within the time given.
    #[error("no answer came in time")]
    Timeout,
    /// The name has no address, nobody listens there, or TLS could not be agreed on.
    #[error("no connection could be made")]
    Connect(#[source] reqwest::Error),
    /// The connection broke.
    #[error("the connection broke off")]
    Broken(#[source] reqwest::Error),
    /// This process cannot make calls at all.
    #[error("no HTTP client could be set up")]
    Setup(#[source] reqwest::Error),
}

impl From<reqwest::Error> for OutboundError {
    fn from(error: reqwest::Error) -> Self {
        let mut cause: Option<&(dyn StdError + 'static)> = Some(&error);
        while let Some(inner) = cause {
            if inner.is::<NotPublic>() {
                return Self::Refused;
            }
            cause = inner.source();
        }
        match () {
            () if error.is_timeout() => Self::Timeout,
            () if error.is_connect() => Self::Connect(error),
            () => Self::Broken(error),
        }
    }
}

/// Calls nobody but the public internet and what the operator allows; follows no redirect, uses no proxy.
#[derive(Debug, Clone)]
pub struct Outbound {
    allowed: Arc<[Allowed]>,
    client: Arc<OnceLock<Client>>,
}

impl Outbound {
    pub fn new(allowed: Vec<Allowed>) -> Self {
        Self { allowed: allowed.into(), client: Arc::default() }
    }

    /// Whether a URL may be called, as far as its text tells. What its name leads to is seen anew at every call.
    ///
    /// # Errors
    /// [`OutboundError::Url`], [`OutboundError::Refused`].
    pub fn check(&self, url: &str) -> Result<Url, OutboundError> {
        let url = Url::parse(url).map_err(|_| OutboundError::Url("is not one"))?;
        let host = url.host_str().ok_or(OutboundError::Url("has no host"))?;
        let literal = host.trim_matches(['[', ']']).parse::<IpAddr>().ok();
        let by_operator = match literal {
            Some(address) => Allowed::has_address(&self.allowed, address),
            None => Allowed::has_host(&self.allowed, host),
        };
        if !by_operator && literal.is_some_and(|address| !is_public(address)) {
            return Err(OutboundError::Refused);
        }
        match url.scheme() {
            "https" => {}
            "http" if by_operator => {}
            "http" => {
                return Err(OutboundError::Url("must begin with https:// unless the operator's list has its host"));
            }
            _ => return Err(OutboundError::Url("must begin with https://")),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(OutboundError::Url("must not hold a user or a password"));
        }
        Ok(url)
    }

    /// Begins a request that ends within `deadline`.
    ///
    /// # Errors
    /// As [`Self::check`], and [`OutboundError::Setup`].
    pub fn request(&self, method: Method, url: &str, deadline: Duration) -> Result<RequestBuilder, OutboundError> {
        let url = self.check(url)?;
        Ok(self.client()?.request(method, url).timeout(deadline))
    }

    /// Whether a URL may be called, by where its name leads now. A name that leads nowhere is nobody's fault here.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub async fn look_up(&self, url: &str) -> Result<(), OutboundError> {
        let url = self.check(url)?;
        let host = url.host_str().unwrap_or_default();
        if host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok() {
            return Ok(());
        }
        match timeout(CONNECT_TIMEOUT, resolved(host, &self.allowed)).await {
            Ok(Err(error)) if error.is::<NotPublic>() => Err(OutboundError::Refused),
            _ => Ok(()),
        }
    }

    fn client(&self) -> Result<&Client, OutboundError> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let built = Client::builder()
            .dns_resolver(Arc::new(PublicOnly { allowed: Arc::clone(&self.allowed) }))
            .redirect(redirect::Policy::none())
            // A proxy would resolve names itself, past the filter.
            .no_proxy()
            .connect_timeout(CONNECT_TIMEOUT)
            .user_agent(concat!("finetuned/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(OutboundError::Setup)?;
        Ok(self.client.get_or_init(|| built))
    }
}

/// A name led to no address that may be called.
#[derive(Debug, thiserror::Error)]
#[error("the name leads to no public address")]
struct NotPublic;

/// Looks at addresses when a name is resolved, which is when the connection's address is decided: a name that was
/// harmless at an earlier look may lead elsewhere by now.
struct PublicOnly {
    allowed: Arc<[Allowed]>,
}

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        let allowed = Arc::clone(&self.allowed);
        Box::pin(async move {
            let kept = resolved(name.as_str(), &allowed).await?;
            Ok(Box::new(kept.into_iter()) as Addrs)
        })
    }
}

/// The addresses of a name that may be called.
async fn resolved(host: &str, allowed: &[Allowed]) -> Result<Vec<SocketAddr>, Box<dyn StdError + Send + Sync>> {
    let found: Vec<SocketAddr> = tokio::net::lookup_host((host, 0)).await?.collect();
    let by_name = Allowed::has_host(allowed, host);
    let may = |address: &SocketAddr| by_name || is_public(address.ip()) || Allowed::has_address(allowed, address.ip());
    let kept: Vec<SocketAddr> = found.into_iter().filter(may).collect();
    if kept.is_empty() { Err(NotPublic.into()) } else { Ok(kept) }
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
