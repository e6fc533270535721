//! The service seen from outside: what any client could do over HTTP, and nothing else.

mod transfer;
pub mod types;
pub mod watch;

use std::time::{Duration, Instant};

use anyhow::Context;
use finetuned_protocol::ids::{JobId, RatingTaskId};
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url, header};
use secrecy::{ExposeSecret, SecretString};
use serde::de::DeserializeOwned;
use serde_json::Value;
use uuid::Uuid;

use crate::{args::ClientArgs, rate::Next};
use types::{ApiError, Artifact, ErrorBody, Event, FileObject, Job, Page};

/// The most that an answer without a body of bytes may take.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);
/// How long a service that is away, such as one whose Postgres restarts, is asked again.
const PATIENCE: Duration = Duration::from_secs(120);
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// The longest silence within a transfer.
const SILENCE_DEADLINE: Duration = Duration::from_secs(120);

/// A client of one service.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    base: Url,
    api_key: Option<SecretString>,
    patience: Duration,
}

impl Client {
    /// # Errors
    /// A URL that is none, or is not of HTTP.
    pub fn new(args: &ClientArgs) -> anyhow::Result<Self> {
        let mut base = Url::parse(&args.url)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
            .with_context(|| format!("`{}` is not an HTTP address; write one like http://127.0.0.1:8787", args.url))?;
        // People paste the base URL that SDKs want, which ends in /v1.
        let path = base.path().trim_end_matches('/').trim_end_matches("/v1").trim_end_matches('/').to_owned();
        base.set_path(&path);
        let http = reqwest::Client::builder()
            .user_agent(concat!("finetuned/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_DEADLINE)
            .read_timeout(SILENCE_DEADLINE)
            .build()
            .context("while setting up HTTP")?;
        Ok(Self { http, base, api_key: args.api_key.clone(), patience: PATIENCE })
    }

    /// The address of the service, without a slash at its end.
    pub fn base_url(&self) -> String {
        self.base.as_str().trim_end_matches('/').to_owned()
    }

    /// Whether requests carry a key.
    pub fn has_key(&self) -> bool {
        self.api_key.is_some()
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base_url()));
        match &self.api_key {
            Some(key) => request.bearer_auth(key.expose_secret()),
            None => request,
        }
    }

    /// Reads an answer; a refusal becomes an [`ApiError`].
    async fn answer(&self, response: reqwest::Result<Response>) -> anyhow::Result<Response> {
        let response = response.map_err(|error| self.unreachable(error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let request_id = header_text(&response, "x-request-id");
        let retry_after_seconds =
            header_text(&response, header::RETRY_AFTER.as_str()).and_then(|text| text.parse().ok());
        let body = response.text().await.unwrap_or_default();
        let error = serde_json::from_str::<ErrorBody>(&body).map(|body| body.error).ok();
        Err(ApiError { status, error, request_id, retry_after_seconds }.into())
    }

    fn unreachable(&self, error: reqwest::Error) -> anyhow::Error {
        let base = self.base_url();
        if error.is_connect() {
            return anyhow::Error::new(error).context(format!(
                "nothing answers at {base}; start the service with `finetuned serve`, or name its address with --url"
            ));
        }
        anyhow::Error::new(error).context(format!("while talking to {base}"))
    }

    /// Sends what is safe to send twice until the service answers or the patience ends.
    async fn send_again(&self, make: impl Fn() -> RequestBuilder) -> anyhow::Result<Response> {
        let started = Instant::now();
        let mut pause = Duration::from_millis(200);
        loop {
            let error = match self.answer(make().timeout(ANSWER_DEADLINE).send().await).await {
                Ok(response) => return Ok(response),
                Err(error) => error,
            };
            let wait = wait_before_next(&error, pause);
            match wait {
                Some(wait) if started.elapsed() + wait < self.patience => tokio::time::sleep(wait).await,
                _ => return Err(error),
            }
            pause = (pause * 2).min(Duration::from_secs(5));
        }
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        let response = self.send_again(|| self.request(Method::GET, path)).await?;
        response.json().await.with_context(|| format!("while reading the answer of GET {path}"))
    }

    /// One POST by intent: sent again with the same idempotency key, it does its work once.
    async fn post<T: DeserializeOwned>(&self, path: &str, body: Option<&Value>) -> anyhow::Result<T> {
        let key = Uuid::new_v4().to_string();
        let response = self.send_again(|| {
            let request = self.request(Method::POST, path).header("idempotency-key", &key);
            match body {
                Some(body) => request.json(body),
                None => request.header(header::CONTENT_LENGTH, 0),
            }
        });
        response.await?.json().await.with_context(|| format!("while reading the answer of POST {path}"))
    }

    /// Sends `body` and hears server-sent events until `[DONE]`.
    ///
    /// # Errors
    /// A refusal, a connection that breaks, or what `hear` says.
    pub async fn stream(
        &self,
        path: &str,
        body: &Value,
        hear: &mut dyn FnMut(&str) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut response = self.answer(self.request(Method::POST, path).json(body).send().await).await?;
        let mut buffer = Vec::new();
        while let Some(bytes) = response.chunk().await.context("while reading the answer")? {
            buffer.extend_from_slice(&bytes);
            while let Some(end) = buffer.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = buffer.drain(..=end).collect();
                match String::from_utf8_lossy(&line).trim_end().strip_prefix("data: ") {
                    Some("[DONE]") => return Ok(()),
                    Some(event) => hear(event)?,
                    None => {}
                }
            }
        }
        anyhow::bail!("the answer ended early")
    }

    /// Whether the service says that it can work.
    pub async fn is_ready(&self) -> bool {
        let request = self.request(Method::GET, "/readyz").timeout(Duration::from_secs(2));
        request.send().await.is_ok_and(|response| response.status() == StatusCode::OK)
    }

    pub async fn models(&self) -> anyhow::Result<Page<types::Model>> {
        self.get("/v1/models").await
    }

    pub async fn files(&self, limit: u32) -> anyhow::Result<Page<FileObject>> {
        self.get(&format!("/v1/files?limit={limit}")).await
    }

    /// Findings of a file's rows, as the service words them.
    pub async fn lint(&self, id: &str) -> anyhow::Result<types::Lint> {
        self.get(&format!("/v1/files/{}/lint", segment(id))).await
    }

    pub async fn create_job(&self, body: &Value) -> anyhow::Result<Job> {
        self.post("/v1/fine_tuning/jobs", Some(body)).await
    }

    pub async fn job(&self, id: JobId) -> anyhow::Result<Job> {
        self.get(&format!("/v1/fine_tuning/jobs/{id}")).await
    }

    pub async fn jobs(&self, limit: u32) -> anyhow::Result<Page<Job>> {
        self.get(&format!("/v1/fine_tuning/jobs?limit={limit}")).await
    }

    pub async fn cancel_job(&self, id: JobId) -> anyhow::Result<Job> {
        self.post(&format!("/v1/fine_tuning/jobs/{id}/cancel"), None).await
    }

    /// Events of a job, newest first.
    pub async fn events(&self, id: JobId, after: Option<&str>) -> anyhow::Result<Page<Event>> {
        let after = after.map(|after| format!("&after={}", segment(after))).unwrap_or_default();
        self.get(&format!("/v1/fine_tuning/jobs/{id}/events?limit=100{after}")).await
    }

    /// The item that the caller is to rate.
    pub async fn next_to_rate(&self, task: RatingTaskId) -> anyhow::Result<Next> {
        self.post(&format!("/v1/rating_tasks/{task}/next"), None).await
    }

    /// Says what the caller thinks of an item.
    pub async fn rate(&self, task: RatingTaskId, rating: &Value) -> anyhow::Result<()> {
        self.post::<Value>(&format!("/v1/rating_tasks/{task}/ratings"), Some(rating)).await.map(drop)
    }

    pub async fn artifacts(&self, id: JobId) -> anyhow::Result<Page<Artifact>> {
        self.get(&format!("/v1/fine_tuning/jobs/{id}/artifacts")).await
    }
}

/// How long to wait before a request is sent again, where that can help.
fn wait_before_next(error: &anyhow::Error, pause: Duration) -> Option<Duration> {
    if let Some(error) = error.downcast_ref::<ApiError>() {
        let away = matches!(error.status.as_u16(), 429 | 502 | 503 | 504);
        return away.then(|| error.retry_after_seconds.map_or(pause, Duration::from_secs));
    }
    // A refused connection is told at once when nothing ever answered; `watch` asks again by itself.
    let error = error.downcast_ref::<reqwest::Error>()?;
    (!error.is_connect() && (error.is_timeout() || error.is_request())).then_some(pause)
}

fn header_text(response: &Response, name: &str) -> Option<String> {
    response.headers().get(name)?.to_str().ok().map(str::to_owned)
}

/// `text` as one segment of a path.
fn segment(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:~".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
