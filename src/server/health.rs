//! `/healthz`, `/readyz`, `/metrics` and `/openapi.json`: for machines that watch the service; no key is asked for.

use std::{sync::OnceLock, time::Duration};

use axum::{
    Json,
    extract::State,
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    http::error::{ApiError, ErrorResponse},
    router,
    state::App,
    telemetry,
};

const PING_TIMEOUT: Duration = Duration::from_secs(3);

#[derive(Debug, Serialize, ToSchema)]
pub struct Health {
    /// Always `ok`.
    pub status: &'static str,
    pub version: &'static str,
}

const OK: Health = Health { status: "ok", version: env!("CARGO_PKG_VERSION") };

/// Whether the process lives.
#[utoipa::path(get, path = "/healthz", tag = "operation", responses((status = 200, body = Health)))]
pub async fn healthz() -> Json<Health> {
    Json(OK)
}

/// Whether requests can be served: the database answers.
#[utoipa::path(
    get, path = "/readyz", tag = "operation",
    responses((status = 200, body = Health), (status = 503, body = ErrorResponse)),
)]
pub async fn readyz(State(app): State<App>) -> Result<Json<Health>, ApiError> {
    tokio::time::timeout(PING_TIMEOUT, app.store.ping()).await.map_err(ApiError::unavailable)??;
    Ok(Json(OK))
}

/// Figures in Prometheus' text format.
#[utoipa::path(
    get, path = "/metrics", tag = "operation",
    responses((status = 200, body = String, content_type = "text/plain")),
)]
pub async fn prometheus() -> Response {
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], telemetry::handle().render()).into_response()
}

/// This document.
#[utoipa::path(
    get, path = "/openapi.json", tag = "operation",
    responses((status = 200, body = Object, content_type = "application/json")),
)]
pub async fn openapi_json() -> Result<Response, ApiError> {
    static TEXT: OnceLock<String> = OnceLock::new();
    let text = match TEXT.get() {
        Some(text) => text,
        None => {
            let text = router::openapi().to_json().map_err(ApiError::internal)?;
            TEXT.get_or_init(|| text)
        }
    };
    Ok(([(CONTENT_TYPE, "application/json")], text.as_str()).into_response())
}
