//! A request that comes twice makes one object.

use futures::future::join_all;
use serde_json::{Value, json};

use super::service::{BASE_MODEL, Form, GOOD_ROWS, Service};

fn ids(list: &Value) -> usize {
    list["data"].as_array().map_or(0, Vec::len)
}

#[tokio::test]
async fn fifty_equal_creates_at_once_make_one_job() {
    let service = Service::start().await;
    let request = json!({"model": BASE_MODEL, "training_file": service.training_file().await});
    let keyed = service.header("idempotency-key", "k-1");
    let answers = join_all((0..50).map(|_| keyed.create_job(request.clone()))).await;
    let fresh = answers.iter().filter(|answer| answer.header("idempotent-replayed").is_empty()).count();
    let bodies: Vec<Value> = answers.into_iter().map(super::service::Answer::ok).collect();
    assert!(bodies.iter().all(|body| *body == bodies[0]), "{bodies:#?}");
    assert_eq!((fresh, ids(&service.get("/v1/fine_tuning/jobs?limit=100").await.ok())), (1, 1));
}

#[tokio::test]
async fn a_replayed_answer_equals_the_first_whatever_became_of_the_job() {
    let service = Service::start().await;
    let request = json!({"model": BASE_MODEL, "training_file": service.training_file().await});
    let keyed = service.header("idempotency-key", "k-1");
    let first = keyed.create_job(request.clone()).await.ok();
    let id = first["id"].as_str().unwrap_or_default();
    assert_eq!(service.post(&format!("/v1/fine_tuning/jobs/{id}/cancel")).await.ok()["status"], "cancelled");
    let again = keyed.create_job(request).await;
    assert_eq!(again.header("idempotent-replayed"), "true");
    assert_eq!(again.ok(), first);
}

#[tokio::test]
async fn another_request_under_the_same_key_is_refused() {
    let service = Service::start().await;
    let file = service.training_file().await;
    let keyed = service.header("idempotency-key", "k-1");
    keyed.create_job(json!({"model": BASE_MODEL, "training_file": file})).await.ok();
    let other = keyed.create_job(json!({"model": BASE_MODEL, "training_file": file, "n_epochs": 2})).await;
    assert_eq!(other.refusal(), (422, "idempotency-key", "idempotency_key_reused"));
    // Fields in another order and defaults spelled out as `null` are the same request.
    let same = keyed.create_job(json!({"suffix": null, "training_file": file, "model": BASE_MODEL})).await;
    assert_eq!(same.header("idempotent-replayed"), "true");
}

#[tokio::test]
async fn without_a_key_only_a_retry_is_a_repetition() {
    let service = Service::start().await;
    let request = json!({"model": BASE_MODEL, "training_file": service.training_file().await});
    let first = service.header("x-stainless-retry-count", "0").create_job(request.clone()).await.ok();
    let retry = service.header("x-stainless-retry-count", "1").create_job(request.clone()).await.ok();
    assert_eq!(retry["id"], first["id"]);
    let meant = service.header("x-stainless-retry-count", "0").create_job(request).await.ok();
    assert_ne!(meant["id"], first["id"]);
    assert_eq!(ids(&service.get("/v1/fine_tuning/jobs").await.ok()), 2);
}

#[tokio::test]
async fn uploads_are_known_by_their_bytes() {
    let service = Service::start().await;
    let keyed = service.header("idempotency-key", "k-1");
    let form = |rows: &str| Form::new().text("purpose", "fine-tune").file("rows.jsonl", rows.as_bytes());
    let first = keyed.post_form(form(GOOD_ROWS)).await.ok();
    // Another order of the fields is the same upload; other bytes are not.
    let swapped = Form::new().file("rows.jsonl", GOOD_ROWS.as_bytes()).text("purpose", "fine-tune");
    let again = keyed.post_form(swapped).await;
    assert_eq!(again.header("idempotent-replayed"), "true");
    assert_eq!(again.ok(), first);
    let other = keyed.post_form(form(&GOOD_ROWS.repeat(2))).await;
    assert_eq!(other.refusal(), (422, "idempotency-key", "idempotency_key_reused"));
    let retry = service.header("x-stainless-retry-count", "2").post_form(form("{}")).await.ok();
    let retried = service.header("x-stainless-retry-count", "3").post_form(form("{}")).await.ok();
    assert_eq!(retry["id"], retried["id"]);
    assert_eq!(ids(&service.get("/v1/files").await.ok()), 2);
}

#[tokio::test]
async fn keys_of_an_impossible_form_are_refused() {
    let service = Service::start().await;
    let long = "k".repeat(256);
    for key in ["", " ", long.as_str()] {
        let answer = service.header("idempotency-key", key).create_job(json!({})).await;
        assert_eq!(answer.refusal(), (400, "idempotency-key", "invalid_value"), "{key:?}");
    }
}
