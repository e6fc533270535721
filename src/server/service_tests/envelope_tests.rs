//! What every answer has, whatever was asked.

use std::{sync::Arc, time::Duration};

use axum::{Router, body::Body, http::Method, middleware, response::IntoResponse, routing::get};
use tower::ServiceExt;
use tower_http::catch_panic::CatchPanicLayer;

use super::service::Service;
use crate::http::context;

#[tokio::test]
async fn unknown_routes_and_methods_are_errors_like_others() {
    let service = Service::start().await;
    let unknown = service.get("/v1/nothing?x=1").await;
    assert_eq!(unknown.refusal(), (404, "-", "unknown_url"));
    assert!(!unknown.message().contains("x=1"), "{}", unknown.message());
    let wrong = service.header("x", "y").send(Method::PUT, "/v1/files", None, Body::empty()).await;
    assert_eq!(wrong.refusal(), (405, "-", "method_not_allowed"));
    assert!(wrong.header("allow").contains("POST"), "{:?}", wrong.headers);
    assert_eq!(service.get("/v1/files/not-an-id").await.refusal(), (404, "-", "not_found"));
    assert_eq!(service.get("/v1/files/%FF").await.refusal(), (404, "-", "not_found"));
    assert_eq!(service.get("/v1/models?limit=3").await.refusal(), (400, "limit", "unknown_parameter"));
}

#[tokio::test]
async fn request_ids_are_ours() {
    let service = Service::start().await;
    let answer = service.header("x-request-id", "forged\tid").get("/healthz").await;
    assert!(answer.header("x-request-id").starts_with("req_"), "{}", answer.header("x-request-id"));
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
}

#[tokio::test]
async fn a_head_request_has_no_body() {
    let service = Service::start().await;
    let answer = service.header("x", "y").send(Method::HEAD, "/healthz", None, Body::empty()).await;
    assert_eq!((answer.status, answer.bytes.len()), (200, 0));
}

#[tokio::test]
async fn a_panic_and_a_late_handler_are_answered() {
    async fn panics() -> &'static str {
        panic!("a secret thought")
    }
    async fn sleeps() -> &'static str {
        tokio::time::sleep(Duration::from_secs(600)).await;
        "late"
    }
    let router: Router = Router::new()
        .route("/panics", get(panics))
        .route("/sleeps", get(sleeps))
        .layer(middleware::from_fn_with_state(Duration::from_millis(50), context::deadline))
        .layer(CatchPanicLayer::custom(context::panicked))
        .layer(middleware::from_fn(context::observe));
    for (path, status) in [("/panics", 500), ("/sleeps", 503)] {
        let request = axum::http::Request::get(path).body(Body::empty()).expect("a request");
        let answer = router.clone().oneshot(request).await.expect("infallible").into_response();
        assert_eq!(answer.status().as_u16(), status, "{path}");
        assert!(answer.headers().contains_key("x-request-id"));
        let body = axum::body::to_bytes(answer.into_body(), 1 << 16).await.expect("a body");
        assert!(!String::from_utf8_lossy(&body).contains("secret"), "{path}");
    }
}

#[tokio::test]
async fn while_the_database_is_away_clients_are_told_to_come_back() {
    let service = Service::start().await;
    service.database.store.close().await;
    for path in ["/readyz", "/v1/files", "/v1/fine_tuning/jobs", "/v1/models"] {
        let answer = service.get(path).await;
        assert_eq!(answer.refusal(), (503, "-", "unavailable"), "{path}");
        assert_eq!((answer.header("retry-after"), answer.header("x-should-retry")), ("5", "true"), "{path}");
        assert!(!answer.message().contains("pool"), "{}", answer.message());
    }
    assert_eq!(service.get("/healthz").await.status, 200);
    assert_eq!(service.upload("batch", b"x").await.status, 503);
}

#[tokio::test]
async fn health_and_figures() {
    let service = Service::start().await;
    assert_eq!(service.get("/readyz").await.ok()["status"], "ok");
    service.upload("batch", b"x").await.ok();
    let job = service.job().await;
    service.get(&format!("/v1/fine_tuning/jobs/{}", job["id"].as_str().unwrap_or_default())).await.ok();
    let figures = service.get("/metrics").await;
    let text = String::from_utf8_lossy(&figures.bytes);
    for part in [
        "finetuned_http_requests_total{route=\"/v1/fine_tuning/jobs/{fine_tuning_job_id}\",method=\"GET\",status=\"200\"}",
        "finetuned_http_request_seconds_bucket{route=\"/v1/files\",method=\"POST\"",
        "finetuned_uploads_total{status=\"processed\"}",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    let document = service.get("/openapi.json").await.ok();
    assert_eq!(document["info"]["title"], "finetuned");
}

/// What the log says of a request with secrets in it.
#[tokio::test]
async fn secrets_are_marked_so_that_no_log_prints_them() {
    async fn echo(headers: axum::http::HeaderMap) -> String {
        format!("{headers:?}")
    }
    let router: Router = Router::new().route("/", get(echo)).layer(middleware::from_fn(context::observe));
    let request = axum::http::Request::get("/").header("authorization", "Bearer hunter2").header("api-key", "hunter2");
    let answer = Arc::new(router).as_ref().clone().oneshot(request.body(Body::empty()).expect("a request")).await;
    let body = axum::body::to_bytes(answer.expect("infallible").into_body(), 1 << 16).await.expect("a body");
    let text = String::from_utf8_lossy(&body);
    assert!(text.contains("Sensitive") && !text.contains("hunter2"), "{text}");
}
