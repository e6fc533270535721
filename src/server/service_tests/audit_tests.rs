//! Every change leaves a line, and reading leaves none.

use axum::{body::Body, http::Method};
use finetuned_store::KeyGrant;
use secrecy::ExposeSecret;
use serde_json::Value;

use super::service::{GOOD_ROWS, Service};

#[tokio::test]
async fn changes_are_written_with_who_and_what_became_of_them() {
    let service = Service::start().await;
    let key = service.database.store.create_key("acme", "a key", &KeyGrant::default()).await.expect("a key");
    let other = service.database.store.create_key("globex", "a key", &KeyGrant::default()).await.expect("a key");
    let client = service.header("api-key", key.secret.expose_secret());
    let uploaded = client.upload("fine-tune", GOOD_ROWS.as_bytes()).await;
    let request = uploaded.header("x-request-id").to_owned();
    let file = uploaded.ok()["id"].as_str().unwrap_or_default().to_owned();
    client.get(&format!("/v1/files/{file}")).await.ok();
    client.send(Method::DELETE, "/v1/files/file-1", None, Body::empty()).await;
    let log = client.get("/v1/organization/audit_logs").await.ok();
    let lines: Vec<(&str, &str, u64)> = log["data"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|entry| {
            let text = |name: &str| entry[name].as_str().unwrap_or_default();
            assert_eq!(text("api_key_id"), key.id.to_string());
            assert!(entry["finished_at"].as_i64() >= entry["effective_at"].as_i64());
            (text("method"), text("path"), entry["status"].as_u64().unwrap_or_default())
        })
        .collect();
    assert_eq!(lines, [("DELETE", "/v1/files/file-1", 404), ("POST", "/v1/files", 200)]);
    assert_eq!(log["data"][1]["request_id"], request);
    let theirs = service.header("api-key", other.secret.expose_secret());
    assert_eq!(theirs.get("/v1/organization/audit_logs").await.ok()["data"], Value::Array(Vec::new()));
    let first = log["data"][0]["id"].as_str().unwrap_or_default();
    let rest = client.get(&format!("/v1/organization/audit_logs?after={first}&limit=1")).await.ok();
    assert_eq!((rest["data"][0]["method"].as_str(), rest["has_more"].as_bool()), (Some("POST"), Some(false)));
    let foreign = theirs.get(&format!("/v1/organization/audit_logs?after={first}")).await;
    assert_eq!(foreign.refusal(), (400, "after", "invalid_value"));
}

#[tokio::test]
async fn refusals_of_scope_are_written_too_but_strangers_are_not() {
    let service = Service::start().await;
    let grant = KeyGrant { scopes: vec![finetuned_protocol::access::Scope::Read], expires_after: None };
    let reader = service.database.store.create_key("acme", "reader", &grant).await.expect("a key");
    let admin = service.database.store.create_key("acme", "admin", &KeyGrant::default()).await.expect("a key");
    let refused = service.header("api-key", reader.secret.expose_secret()).upload("batch", b"x").await;
    assert_eq!(refused.status, 403);
    service.header("api-key", "ft-wrong").upload("batch", b"x").await;
    let log = service.header("api-key", admin.secret.expose_secret()).get("/v1/organization/audit_logs").await.ok();
    assert_eq!(log["data"].as_array().map(Vec::len), Some(1), "{log}");
    assert_eq!(
        (log["data"][0]["status"].as_u64(), log["data"][0]["api_key_id"].as_str()),
        (Some(403), Some(reader.id.to_string().as_str()))
    );
}
