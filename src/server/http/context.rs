//! What surrounds every request: its id, its log line, its figures, its deadline, and an answer even after a panic.

use std::{any::Any, time::Duration};

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderName, HeaderValue, Method, Uri},
    middleware::Next,
    response::{IntoResponse, Response},
};
use tokio::time::{Instant, timeout};
use tracing::Instrument;
use uuid::Uuid;

use super::{
    error::{ApiError, Cause, Code},
    limits::secure,
};
use crate::telemetry;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The id of a request, for those who write of it.
#[derive(Debug, Clone)]
pub struct RequestId(pub String);

/// Gives the request an id of ours (a client's would let it write into our log), and tells log and metrics of its end.
pub async fn observe(mut request: Request, next: Next) -> Response {
    let id = format!("req_{}", Uuid::now_v7().simple());
    let method = request.method().clone();
    // The template, not the path: paths hold ids, and their number has no bound.
    let route = request.extensions().get::<MatchedPath>().map_or("unmatched", |path| path.as_str()).to_owned();
    request.headers_mut().remove(&REQUEST_ID);
    mark_secrets(&mut request);
    request.extensions_mut().insert(RequestId(id.clone()));
    let span = tracing::info_span!("request", id = %id, %method, %route);
    let started = Instant::now();
    let mut response = next.run(request).instrument(span.clone()).await;
    let elapsed = started.elapsed();
    span.in_scope(|| log(&response, elapsed));
    telemetry::request_done(&method, &route, response.status(), elapsed);
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(&id) {
        headers.insert(REQUEST_ID, value);
    }
    secure(headers);
    response
}

/// Whatever prints headers from here on prints these as `Sensitive`.
fn mark_secrets(request: &mut Request) {
    for name in ["authorization", "api-key", "cookie"] {
        if let Some(value) = request.headers_mut().get_mut(name) {
            value.set_sensitive(true);
        }
    }
}

fn log(response: &Response, elapsed: Duration) {
    let status = response.status().as_u16();
    let elapsed_ms = elapsed.as_millis() as u64;
    match response.extensions().get::<Cause>() {
        Some(cause) if response.status().is_server_error() => {
            tracing::error!(status, elapsed_ms, %cause, "request failed");
        }
        Some(cause) => tracing::info!(status, elapsed_ms, %cause, "request refused"),
        None => tracing::info!(status, elapsed_ms, "request answered"),
    }
}

/// Cuts off a handler that takes longer than `limit` to begin its answer. Not for uploads, whose length has no bound.
pub async fn deadline(State(limit): State<Duration>, request: Request, next: Next) -> Response {
    match timeout(limit, next.run(request)).await {
        Ok(response) => response,
        Err(elapsed) => ApiError::unavailable(elapsed).into_response(),
    }
}

/// The answer after a panic: like every other fault of ours.
pub fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let text = panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_else(|| "of an unknown kind".to_owned());
    ApiError::internal(format!("panic: {text}")).into_response()
}

/// For a path that no route has.
pub async fn unknown_url(method: Method, uri: Uri) -> ApiError {
    let path = uri.path();
    ApiError::new(Code::UnknownUrl, format!("unknown URL {method} {path}; GET /openapi.json lists what there is"))
}

/// For a route that does not know the method.
pub async fn method_not_allowed(method: Method, uri: Uri) -> ApiError {
    let path = uri.path();
    ApiError::new(
        Code::MethodNotAllowed,
        format!("{path} does not know {method}; GET /openapi.json lists what it does"),
    )
}
