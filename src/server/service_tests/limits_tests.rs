//! What no honest request needs is refused, and every answer tells browsers to keep their hands off.

use axum::{body::Body, http::Method};

use super::service::Service;

#[tokio::test]
async fn long_heads_and_large_bodies_are_refused() {
    let service = Service::start().await;
    let long = format!("/v1/files?after={}", "x".repeat(40_000));
    assert_eq!(service.get(&long).await.refusal(), (414, "-", "uri_too_long"));
    let wide = service.header("x-long", &"x".repeat(40_000)).get("/v1/files").await;
    assert_eq!(wide.refusal(), (431, "-", "headers_too_large"));
    for path in ["/v1/fine_tuning/jobs", "/v1/webhook_endpoints"] {
        let plain = service.header("x", "y");
        let large = Body::from(format!("\"{}\"", "x".repeat(2 << 20)));
        let answer = plain.send(Method::POST, path, Some("application/json"), large).await;
        assert_eq!(answer.status, 413, "{path}: {}", answer.body);
    }
}

#[tokio::test]
async fn browsers_are_told_to_keep_their_hands_off() {
    let service = Service::start().await;
    let origin = service.header("origin", "https://evil.example");
    for path in ["/healthz", "/v1/files", "/v1/nothing"] {
        let answer = origin.get(path).await;
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(answer.header("x-frame-options"), "DENY", "{path}");
        assert_eq!(answer.header("referrer-policy"), "no-referrer", "{path}");
        assert_eq!(answer.header("cache-control"), "no-store", "{path}");
        assert!(answer.header("content-security-policy").contains("default-src 'none'"), "{path}");
        assert_eq!(answer.header("access-control-allow-origin"), "", "{path}");
    }
    let preflight = origin.send(Method::OPTIONS, "/v1/files", None, Body::empty()).await;
    assert_eq!((preflight.status, preflight.header("access-control-allow-origin")), (405, ""));
}
