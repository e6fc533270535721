//! Limits of a tenant as its clients meet them.

use finetuned_store::{KeyGrant, Quotas};
use secrecy::ExposeSecret;
use serde_json::json;

use super::service::{BASE_MODEL, GOOD_ROWS, Service};

async fn limited(service: &Service, quotas: Quotas) -> String {
    let key = service.database.store.create_key("acme", "a key", &KeyGrant::default()).await.expect("a key");
    service.database.store.set_quotas("acme", quotas).await.expect("limits");
    key.secret.expose_secret().to_owned()
}

#[tokio::test]
async fn one_job_too_many_is_told_what_would_help() {
    let service = Service::start().await;
    let key = limited(&service, Quotas { open_jobs: Some(1), ..Quotas::default() }).await;
    let client = service.header("api-key", &key);
    let file = client.upload("fine-tune", GOOD_ROWS.as_bytes()).await.ok();
    let request = json!({"model": BASE_MODEL, "training_file": file["id"]});
    let first = client.create_job(request.clone()).await.ok();
    let refused = client.create_job(request.clone()).await;
    assert_eq!(refused.refusal(), (429, "-", "quota_exceeded"));
    assert!(refused.message().contains("1 of 1") && refused.message().contains("cancel"), "{}", refused.message());
    assert_eq!((refused.header("retry-after"), refused.header("x-should-retry")), ("60", "false"));
    // The same request again is not one more job.
    let again = service.header("api-key", &key);
    assert_eq!(again.get("/v1/fine_tuning/jobs").await.ok()["data"].as_array().map(Vec::len), Some(1));
    let id = first["id"].as_str().unwrap_or_default();
    let path = format!("/v1/fine_tuning/jobs/{id}/cancel");
    client.send(axum::http::Method::POST, &path, None, axum::body::Body::empty()).await.ok();
    client.create_job(request).await.ok();
}

#[tokio::test]
async fn stored_bytes_end_at_their_limit() {
    let service = Service::start().await;
    let key = limited(&service, Quotas { stored_bytes: Some(20), ..Quotas::default() }).await;
    let client = service.header("api-key", &key);
    client.upload("batch", b"0123456789").await.ok();
    let refused = client.upload("batch", b"0123456789a").await;
    assert_eq!(refused.refusal(), (429, "-", "quota_exceeded"));
    assert!(refused.message().contains("DELETE /v1/files"), "{}", refused.message());
    client.upload("batch", b"9876543210").await.ok();
    assert_eq!(client.upload("batch", b"x").await.refusal(), (429, "-", "quota_exceeded"));
}

#[tokio::test]
async fn a_rush_is_told_to_slow_down() {
    let service = Service::start().await;
    let key = limited(&service, Quotas { requests_per_second: Some(3), ..Quotas::default() }).await;
    let client = service.header("api-key", &key);
    let mut refused = None;
    for _ in 0..30 {
        let answer = client.get("/v1/files").await;
        if answer.status != 200 {
            refused = Some(answer);
            break;
        }
    }
    let refused = refused.expect("thirty requests at once were all answered");
    assert_eq!(refused.refusal(), (429, "-", "rate_limit_exceeded"));
    assert_eq!((refused.header("retry-after"), refused.header("x-should-retry")), ("1", "true"));
    let other = service.database.store.create_key("globex", "a key", &KeyGrant::default()).await.expect("a key");
    for _ in 0..30 {
        assert_eq!(service.header("api-key", other.secret.expose_secret()).get("/v1/files").await.status, 200);
    }
}

#[tokio::test]
async fn a_used_up_month_says_when_the_next_begins() {
    let service = Service::start().await;
    let key = limited(&service, Quotas { trained_tokens_a_month: Some(0), ..Quotas::default() }).await;
    let client = service.header("api-key", &key);
    let file = client.upload("fine-tune", GOOD_ROWS.as_bytes()).await.ok();
    let refused = client.create_job(json!({"model": BASE_MODEL, "training_file": file["id"]})).await;
    assert_eq!(refused.refusal(), (429, "-", "quota_exceeded"));
    assert!(
        refused.message().contains("0 of 0 tokens") && refused.message().contains("hours"),
        "{}",
        refused.message()
    );
    let seconds: u64 = refused.header("retry-after").parse().expect("seconds");
    assert!((1..=31 * 24 * 3600).contains(&seconds), "{seconds}");
    let limits = client.get("/v1/organization/limits").await.ok();
    assert_eq!(limits["trained_tokens_this_month"], json!({"used": 0, "limit": 0}));
    assert_eq!(limits["open_jobs"], json!({"used": 0, "limit": null}));
    assert_eq!(limits["stored_bytes"]["used"], GOOD_ROWS.len());
}
