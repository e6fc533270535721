//! Finds a worker that answers, and reads what it says.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use finetuned_protocol::serving::{ANSWER_PATH, Refusal, RefusalKind, ServingEvent, ServingLine, ServingRequest};
use finetuned_store::{ServingEndpoint, StoreError};
use futures::{StreamExt, stream::BoxStream};
use secrecy::ExposeSecret;
use sha2::{Digest, Sha256};
use tokio::time::timeout;

use crate::{
    http::error::{ApiError, Code},
    state::App,
};

const CONNECT: Duration = Duration::from_secs(3);
/// Until a request's first word: a model may have to be loaded, or others be answered before.
const FIRST_WORD: Duration = Duration::from_secs(900);
/// For a whole answer.
const WHOLE: Duration = Duration::from_secs(3600);
/// Between two words of one that is being answered.
const NEXT_WORD: Duration = Duration::from_secs(120);
/// Longest line of a worker.
const MOST_LINE_BYTES: usize = 16 << 20;

/// Calls workers. Their addresses come from the database, not from clients, and lie on the operator's own network.
#[derive(Debug, Clone)]
pub struct WorkerClient(reqwest::Client);

impl Default for WorkerClient {
    fn default() -> Self {
        let client = reqwest::Client::builder().connect_timeout(CONNECT).no_proxy().build();
        Self(client.unwrap_or_default())
    }
}

/// What workers say of one request.
pub struct Lines {
    body: BoxStream<'static, reqwest::Result<Bytes>>,
    buffer: BytesMut,
    patience: Duration,
}

/// A request that a worker has accepted: what it said so far, and what is to come.
pub struct Accepted {
    pub first: ServingLine,
    pub lines: Lines,
}

/// Has a worker begin with a request.
///
/// # Errors
/// No model of this name, no worker, or the worker's refusal.
pub async fn ask(app: &App, request: &ServingRequest) -> Result<Accepted, ApiError> {
    let served = app.store.served_model(request.tenant, &request.model).await.map_err(|error| match error {
        StoreError::NotFound { .. } => unknown(&request.model),
        StoreError::Conflict { message } => ApiError::invalid("model", message),
        error => error.into(),
    })?;
    let mut endpoints = app.store.serving_endpoints(&served.base.sha256).await?;
    // The same worker for the same base model, as long as it lives, so that the model is in its memory already.
    endpoints.sort_by_cached_key(|endpoint| rank(endpoint, &served.base.sha256));
    for endpoint in &endpoints {
        match call(&app.workers, endpoint, request).await {
            Ok(mut lines) => {
                let first = lines.next().await.ok_or_else(|| ApiError::internal("a worker hung up at once"))?;
                return match first.event {
                    ServingEvent::Refused(refusal) => Err(refused(refusal)),
                    _ => Ok(Accepted { first, lines: Lines { patience: NEXT_WORD, ..lines } }),
                };
            }
            Err(error) => tracing::warn!(worker = %endpoint.worker, %error, "a worker does not answer; trying another"),
        }
    }
    Err(ApiError::busy(format!(
        "no running worker answers for `{}` just now; `finetuned worker` or `finetuned serve` with the base model `{}` \
         does, unless it is started with `--serving off`",
        request.model, served.base.name
    )))
}

/// Rendezvous hashing (Thaler & Ravishankar 1998).
fn rank(endpoint: &ServingEndpoint, model: &str) -> [u8; 32] {
    Sha256::new().chain_update(endpoint.worker.0.as_bytes()).chain_update(model).finalize().into()
}

async fn call(
    client: &WorkerClient,
    endpoint: &ServingEndpoint,
    request: &ServingRequest,
) -> Result<Lines, reqwest::Error> {
    let url = format!("{}{ANSWER_PATH}", endpoint.url);
    let sending = client.0.post(url).bearer_auth(endpoint.secret.expose_secret()).timeout(WHOLE).json(request).send();
    let response = sending.await?.error_for_status()?;
    Ok(Lines { body: response.bytes_stream().boxed(), buffer: BytesMut::new(), patience: FIRST_WORD })
}

impl Lines {
    /// The next line; `None` where the worker hung up, or says nothing for too long.
    pub async fn next(&mut self) -> Option<ServingLine> {
        loop {
            if let Some(end) = self.buffer.iter().position(|&byte| byte == b'\n') {
                let line = self.buffer.split_to(end + 1);
                return serde_json::from_slice(&line)
                    .inspect_err(|error| tracing::error!(%error, "a worker says what is no line of ours"))
                    .ok();
            }
            match timeout(self.patience, self.body.next()).await {
                Ok(Some(Ok(bytes))) if self.buffer.len() + bytes.len() <= MOST_LINE_BYTES => {
                    self.buffer.extend_from_slice(&bytes);
                }
                Ok(None) if !self.buffer.is_empty() => self.buffer.extend_from_slice(b"\n"),
                Ok(None) => return None,
                Ok(Some(_)) | Err(_) => {
                    tracing::warn!("a worker broke off while it answered");
                    return None;
                }
            }
        }
    }
}

/// A worker's refusal as a client reads it.
pub fn refused(refusal: Refusal) -> ApiError {
    let Refusal { kind, param, message } = refusal;
    let code = match kind {
        RefusalKind::Invalid => Code::InvalidValue,
        RefusalKind::ContextLength => Code::ContextLengthExceeded,
        RefusalKind::ModelNotFound => Code::ModelNotFound,
        RefusalKind::DeviceBusy | RefusalKind::Overloaded => Code::ServerBusy,
        RefusalKind::Internal => return ApiError::internal(message),
    };
    let error = ApiError::new(code, message);
    match param {
        Some(param) => error.param(param),
        None => error,
    }
}

fn unknown(name: &str) -> ApiError {
    let message = format!("no model is called `{name}`; GET /v1/models lists what there is");
    ApiError::new(Code::ModelNotFound, message).param("model")
}
