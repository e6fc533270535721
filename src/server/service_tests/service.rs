//! A service for one test.

use axum::{
    Router,
    body::Body,
    http::{HeaderMap, Method, Request, header},
};
use bytes::Bytes;
use finetuned_protocol::spec::{LinearModule, ModelFacts};
use finetuned_store::{NewBaseModel, testing::TestDatabase};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::conformance;
use crate::{ServerOptions, router::router, state::App};

pub const BASE_MODEL: &str = "HuggingFaceTB/SmolLM2-135M-Instruct";
pub const GOOD_ROWS: &str = concat!(
    r#"{"instruction": "Name a colour.", "input": "", "output": "Red."}"#,
    "\n",
    r#"{"instruction": "Name a fruit.", "input": "", "output": "Apple."}"#,
    "\n",
);

pub struct Service {
    pub database: TestDatabase,
    pub app: App,
    pub router: Router,
}

/// An answer that was read whole.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub bytes: Bytes,
    pub body: Value,
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The body of a success.
    pub fn ok(self) -> Value {
        assert_eq!(self.status, 200, "{}", self.body);
        self.body
    }

    /// Status, `param` and `code` of an error.
    pub fn refusal(&self) -> (u16, &str, &str) {
        let error = &self.body["error"];
        (self.status, error["param"].as_str().unwrap_or("-"), error["code"].as_str().unwrap_or("-"))
    }

    pub fn message(&self) -> &str {
        self.body["error"]["message"].as_str().unwrap_or_default()
    }
}

pub fn facts() -> ModelFacts {
    let module = |name: &str| LinearModule { name: name.into(), in_features: 576, out_features: 576 };
    ModelFacts {
        architecture: "llama".into(),
        parameters: 134_515_008,
        layers: 30,
        hidden_size: 576,
        vocab_size: 49_152,
        context_length: 8192,
        linear_modules: ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
            .map(module)
            .into(),
        fixed_modules: Vec::new(),
        has_chat_template: true,
    }
}

impl Service {
    pub async fn start() -> Self {
        Self::with(|_| ()).await
    }

    pub async fn with(change: impl FnOnce(&mut ServerOptions)) -> Self {
        let database = TestDatabase::create().await.expect("a test database");
        let model = NewBaseModel {
            name: BASE_MODEL.into(),
            path: "/nowhere".into(),
            source: None,
            license: Some("Apache-2.0".into()),
            facts: facts(),
            sha256: "0".repeat(64),
        };
        database.store.register_base_model(&model).await.expect("a base model");
        let mut options = ServerOptions::new(([127, 0, 0, 1], 0).into());
        change(&mut options);
        let app = App::new(database.store.clone(), options, CancellationToken::new());
        Self { database, router: router(app.clone()), app }
    }

    /// The same service with a header on every request.
    pub fn header(&self, name: &str, value: &str) -> Caller<'_> {
        Caller { service: self, headers: vec![(name.into(), value.into())] }
    }

    fn plain(&self) -> Caller<'_> {
        Caller { service: self, headers: Vec::new() }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.plain().get(path).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.plain().send(Method::DELETE, path, None, Body::empty()).await
    }

    pub async fn post(&self, path: &str) -> Answer {
        self.plain().send(Method::POST, path, Some("application/json"), Body::empty()).await
    }

    pub async fn create_job(&self, request: Value) -> Answer {
        self.plain().create_job(request).await
    }

    pub async fn estimate(&self, request: Value) -> Answer {
        let body = Body::from(request.to_string());
        self.plain().send(Method::POST, "/v1/fine_tuning/jobs/estimate", Some("application/json"), body).await
    }

    pub async fn upload(&self, purpose: &str, content: &[u8]) -> Answer {
        self.plain().upload(purpose, content).await
    }

    /// The id of a good training file.
    pub async fn training_file(&self) -> String {
        let file = self.upload("fine-tune", GOOD_ROWS.as_bytes()).await.ok();
        assert_eq!(file["status"], "processed", "{file}");
        file["id"].as_str().unwrap_or_default().to_owned()
    }

    /// A job that waits for its validation.
    pub async fn job(&self) -> Value {
        let file = self.training_file().await;
        self.create_job(json!({"model": BASE_MODEL, "training_file": file})).await.ok()
    }
}

/// A client with its headers.
#[derive(Clone)]
pub struct Caller<'a> {
    service: &'a Service,
    headers: Vec<(String, String)>,
}

impl Caller<'_> {
    /// With another header.
    pub fn and(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, None, Body::empty()).await
    }

    pub async fn post(&self, path: &str) -> Answer {
        self.send(Method::POST, path, None, Body::empty()).await
    }

    pub async fn create_job(&self, request: Value) -> Answer {
        let body = Body::from(request.to_string());
        self.send(Method::POST, "/v1/fine_tuning/jobs", Some("application/json"), body).await
    }

    pub async fn upload(&self, purpose: &str, content: &[u8]) -> Answer {
        let form = Form::new().text("purpose", purpose).file("rows.jsonl", content);
        self.post_form(form).await
    }

    pub async fn post_form(&self, form: Form) -> Answer {
        let Form { bytes } = form.end();
        self.send(Method::POST, "/v1/files", Some(Form::CONTENT_TYPE), Body::from(bytes)).await
    }

    pub async fn send(&self, method: Method, path: &str, content_type: Option<&str>, body: Body) -> Answer {
        let mut request = Request::builder().method(&method).uri(path);
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        if let Some(content_type) = content_type {
            request = request.header(header::CONTENT_TYPE, content_type);
        }
        let request = request.body(body).expect("a request");
        let response = self.service.router.clone().oneshot(request).await.expect("infallible");
        let (parts, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, usize::MAX).await.expect("a whole answer");
        let is_json = parts.headers.get(header::CONTENT_TYPE).is_some_and(|value| value == "application/json");
        let is_json = is_json && !bytes.is_empty();
        let body = if is_json { serde_json::from_slice(&bytes).expect("JSON") } else { Value::Null };
        let status = parts.status.as_u16();
        assert!(parts.headers.contains_key("x-request-id"), "{method} {path} answered without a request id");
        if is_json {
            let plain = path.split('?').next().unwrap_or_default();
            conformance::check(method.as_str(), plain, status, &body);
        }
        Answer { status, headers: parts.headers, bytes, body }
    }
}

/// A multipart form, written out by hand so that tests can cut it anywhere.
#[derive(Clone, Default)]
pub struct Form {
    pub bytes: Vec<u8>,
}

impl Form {
    pub const CONTENT_TYPE: &'static str = "multipart/form-data; boundary=XBOUNDARYX";

    pub fn new() -> Self {
        Self::default()
    }

    pub fn text(mut self, name: &str, value: &str) -> Self {
        let part = format!("--XBOUNDARYX\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
        self.bytes.extend_from_slice(part.as_bytes());
        self
    }

    pub fn file(self, filename: &str, content: &[u8]) -> Self {
        self.content("file", filename, content)
    }

    /// A part of an upload, as the SDKs send it.
    pub fn data(self, content: &[u8]) -> Self {
        self.content("data", "upload", content)
    }

    fn content(mut self, name: &str, filename: &str, content: &[u8]) -> Self {
        let head = format!(
            "--XBOUNDARYX\r\ncontent-disposition: form-data; name=\"{name}\"; filename=\"{filename}\"\r\n\
             content-type: application/octet-stream\r\n\r\n"
        );
        self.bytes.extend_from_slice(head.as_bytes());
        self.bytes.extend_from_slice(content);
        self.bytes.extend_from_slice(b"\r\n");
        self
    }

    pub fn end(mut self) -> Self {
        self.bytes.extend_from_slice(b"--XBOUNDARYX--\r\n");
        self
    }
}
