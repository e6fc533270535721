//! Who may call, and what a caller sees of others.

use axum::{body::Body, http::Method};
use finetuned_store::KeyGrant;
use secrecy::ExposeSecret;
use serde_json::json;

use super::service::{BASE_MODEL, GOOD_ROWS, Service};

async fn key(service: &Service, tenant: &str) -> String {
    let key = service.database.store.create_key(tenant, "a key", &KeyGrant::default()).await.expect("a key");
    key.secret.expose_secret().to_owned()
}

#[tokio::test]
async fn without_any_key_there_is_the_tenant_default_on_loopback_only() {
    let service = Service::start().await;
    assert_eq!(service.get("/v1/models").await.status, 200);
    // SDKs refuse to start without a key.
    assert_eq!(service.header("authorization", "Bearer anything").get("/v1/models").await.status, 200);
    let public = Service::with(|options| options.listen = ([0, 0, 0, 0], 8080).into()).await;
    assert_eq!(public.get("/v1/models").await.refusal(), (401, "-", "invalid_api_key"));
    let wrong = public.header("authorization", "Bearer anything").get("/v1/models").await;
    assert_eq!(wrong.refusal(), (401, "-", "invalid_api_key"));
}

#[tokio::test]
async fn with_keys_only_keys_open() {
    let service = Service::start().await;
    let secret = key(&service, "acme").await;
    for (name, value, status) in [
        ("authorization", format!("Bearer {secret}"), 200),
        ("authorization", format!("bearer {secret}"), 200),
        ("api-key", secret.clone(), 200),
        ("authorization", format!("Basic {secret}"), 401),
        ("authorization", format!("Bearer {secret}x"), 401),
        ("authorization", "Bearer ".into(), 401),
        ("x", "y".into(), 401),
    ] {
        let answer = service.header(name, &value).get("/v1/models").await;
        assert_eq!(answer.status, status, "{name}: {}", value.replace(&secret, "KEY"));
        assert_eq!(answer.header("www-authenticate"), if status == 401 { "Bearer" } else { "" });
    }
}

#[tokio::test]
async fn a_revoked_key_opens_nothing_and_the_service_does_not_fall_open() {
    let service = Service::start().await;
    let made = service.database.store.create_key("acme", "a key", &KeyGrant::default()).await.expect("a key");
    service.database.store.revoke_key(made.id).await.expect("revoked");
    let with = service.header("api-key", made.secret.expose_secret()).get("/v1/models").await;
    assert_eq!((with.status, service.get("/v1/models").await.status), (401, 401));
}

#[tokio::test]
async fn anothers_object_is_a_404() {
    let service = Service::start().await;
    let (mine, theirs) = (key(&service, "acme").await, key(&service, "globex").await);
    let (mine, theirs) = (service.header("api-key", &mine), service.header("api-key", &theirs));
    let file = mine.upload("fine-tune", GOOD_ROWS.as_bytes()).await.ok();
    let file = file["id"].as_str().unwrap_or_default();
    let job = mine.create_job(json!({"model": BASE_MODEL, "training_file": file})).await.ok();
    let job = job["id"].as_str().unwrap_or_default();
    for (method, path) in [
        (Method::GET, format!("/v1/files/{file}")),
        (Method::GET, format!("/v1/files/{file}/content")),
        (Method::GET, format!("/v1/files/{file}/lint")),
        (Method::DELETE, format!("/v1/files/{file}")),
        (Method::GET, format!("/v1/fine_tuning/jobs/{job}")),
        (Method::POST, format!("/v1/fine_tuning/jobs/{job}/cancel")),
        (Method::POST, format!("/v1/fine_tuning/jobs/{job}/pause")),
        (Method::POST, format!("/v1/fine_tuning/jobs/{job}/resume")),
        (Method::GET, format!("/v1/fine_tuning/jobs/{job}/events")),
        (Method::GET, format!("/v1/fine_tuning/jobs/{job}/checkpoints")),
        (Method::GET, format!("/v1/fine_tuning/jobs/{job}/metrics")),
        (Method::GET, format!("/v1/fine_tuning/jobs/{job}/artifacts")),
        (Method::GET, format!("/v1/fine_tuning/jobs/{job}/artifacts/adapter_config.json")),
        (Method::GET, format!("/v1/fine_tuning/jobs/{job}/adapter")),
    ] {
        let refused = theirs.send(method.clone(), &path, None, Body::empty()).await;
        assert_eq!(refused.refusal(), (404, "-", "not_found"), "{method} {path}");
    }
    let refused = theirs.create_job(json!({"model": BASE_MODEL, "training_file": file})).await;
    assert_eq!(refused.refusal(), (400, "training_file", "invalid_training_file"));
    for path in ["/v1/files", "/v1/fine_tuning/jobs"] {
        assert_eq!(theirs.get(path).await.ok()["data"], json!([]), "{path}");
        let foreign = theirs.get(&format!("{path}?after={}", if path == "/v1/files" { file } else { job })).await;
        assert_eq!(foreign.refusal(), (400, "after", "invalid_value"), "{path}");
    }
    assert_eq!(mine.get(&format!("/v1/fine_tuning/jobs/{job}")).await.ok()["status"], "validating_files");
}

#[tokio::test]
async fn without_keys_pages_of_other_sites_are_not_served() {
    let service = Service::start().await;
    for (name, value, status) in [
        ("host", "localhost:8000", 200),
        ("host", "127.0.0.1", 200),
        ("host", "[::1]:8000", 200),
        ("host", "[::1]", 200),
        ("host", "rebound.example:8000", 401),
        ("host", "192.168.0.1", 401),
        ("sec-fetch-site", "cross-site", 401),
        ("sec-fetch-site", "same-origin", 200),
        ("sec-fetch-site", "none", 200),
    ] {
        assert_eq!(service.header(name, value).get("/v1/models").await.status, status, "{name}: {value}");
    }
    let secret = key(&service, "acme").await;
    let answer =
        service.header("authorization", &format!("Bearer {secret}")).get("http://service.example/v1/models").await;
    assert_eq!(answer.status, 200);
}
