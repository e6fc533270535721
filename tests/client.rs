//! A plain HTTP client of the service, with a deadline on every call.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use reqwest::{Method, StatusCode, multipart};
use serde_json::Value;

/// Longest time a single call may take.
const CALL: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(100);

/// A status and the JSON that came with it.
pub struct Answer {
    pub status: StatusCode,
    pub headers: reqwest::header::HeaderMap,
    pub body: Value,
}

impl Answer {
    /// The body of an answer that must be a success.
    pub fn success(self) -> Result<Value> {
        ensure!(self.status.is_success(), "answered {}: {}", self.status, self.body);
        Ok(self.body)
    }

    /// The `error` object of an answer that must be a refusal with `status`.
    pub fn refusal(self, status: u16) -> Result<Value> {
        ensure!(self.status.as_u16() == status, "answered {}, not {status}: {}", self.status, self.body);
        Ok(self.body["error"].clone())
    }
}

#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    pub url: String,
    key: Option<String>,
}

impl Client {
    pub fn new(url: impl Into<String>) -> Result<Self> {
        let http = reqwest::Client::builder().timeout(CALL).no_proxy().build()?;
        Ok(Self { http, url: url.into(), key: None })
    }

    pub fn with_key(&self, key: impl Into<String>) -> Self {
        Self { key: Some(key.into()), ..self.clone() }
    }

    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.url));
        match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }

    pub async fn send(&self, request: reqwest::RequestBuilder) -> Result<Answer> {
        let response = request.send().await?;
        let (status, headers) = (response.status(), response.headers().clone());
        let text = response.text().await?;
        let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
        Ok(Answer { status, headers, body })
    }

    pub async fn get(&self, path: &str) -> Result<Answer> {
        self.send(self.request(Method::GET, path)).await
    }

    pub async fn delete(&self, path: &str) -> Result<Answer> {
        self.send(self.request(Method::DELETE, path)).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Result<Answer> {
        self.send(self.request(Method::POST, path).json(body)).await
    }

    /// POST without a body, as the SDKs do for a job's controls.
    pub async fn control(&self, path: &str) -> Result<Answer> {
        self.send(self.request(Method::POST, path).header("content-length", "0")).await
    }

    pub async fn bytes(&self, path: &str) -> Result<Vec<u8>> {
        let response = self.request(Method::GET, path).send().await?.error_for_status()?;
        Ok(response.bytes().await?.to_vec())
    }

    /// Uploads a training file and returns the file object.
    pub async fn upload(&self, filename: &str, bytes: impl Into<Vec<u8>>) -> Result<Value> {
        self.upload_for("fine-tune", filename, bytes).await
    }

    /// Uploads a file of any purpose and returns the file object.
    pub async fn upload_for(&self, purpose: &str, filename: &str, bytes: impl Into<Vec<u8>>) -> Result<Value> {
        let part = multipart::Part::bytes(bytes.into()).file_name(filename.to_owned());
        let form = multipart::Form::new().text("purpose", purpose.to_owned()).part("file", part);
        self.send(self.request(Method::POST, "/v1/files").multipart(form)).await?.success()
    }

    pub async fn create_job(&self, body: &Value) -> Result<Value> {
        self.post("/v1/fine_tuning/jobs", body).await?.success()
    }

    pub async fn job(&self, id: &str) -> Result<Value> {
        self.get(&format!("/v1/fine_tuning/jobs/{id}")).await?.success()
    }

    /// Polls a job until `done` says so.
    pub async fn wait_for(&self, id: &str, within: Duration, done: impl Fn(&Value) -> bool) -> Result<Value> {
        let start = Instant::now();
        loop {
            let job = self.job(id).await?;
            if done(&job) {
                return Ok(job);
            }
            ensure!(start.elapsed() < within, "still waiting after {within:?}; the job is {job:#}");
            tokio::time::sleep(POLL).await;
        }
    }

    /// Polls a job until it is terminal, and expects it to have succeeded.
    pub async fn wait_for_success(&self, id: &str, within: Duration) -> Result<Value> {
        let terminal = |job: &Value| matches!(job["status"].as_str(), Some("succeeded" | "failed" | "cancelled"));
        let job = self.wait_for(id, within, terminal).await?;
        if job["status"] != "succeeded" {
            bail!("the job did not succeed: {job:#}");
        }
        Ok(job)
    }

    /// Bytes of the exported adapter's weights.
    pub async fn adapter_weights(&self, job: &str) -> Result<Vec<u8>> {
        self.bytes(&format!("/v1/fine_tuning/jobs/{job}/artifacts/adapter_model.safetensors"))
            .await
            .context("downloading the adapter")
    }
}
