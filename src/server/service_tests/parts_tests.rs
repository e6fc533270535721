//! Files that come in parts.

use std::time::Duration;

use axum::{body::Body, http::Method};
use md5::{Digest, Md5};
use serde_json::{Value, json};

use super::service::{Answer, BASE_MODEL, Form, GOOD_ROWS, Service};

async fn post(service: &Service, path: &str, body: Value) -> Answer {
    let body = Body::from(body.to_string());
    service.header("x", "y").send(Method::POST, path, Some("application/json"), body).await
}

fn announced(bytes: usize) -> Value {
    json!({"filename": "rows.jsonl", "purpose": "fine-tune", "bytes": bytes, "mime_type": "text/jsonl"})
}

/// The path of a new upload.
async fn begin(service: &Service, request: Value) -> String {
    let upload = post(service, "/v1/uploads", request).await.ok();
    assert_eq!((&upload["object"], &upload["status"]), (&json!("upload"), &json!("pending")));
    format!("/v1/uploads/{}", upload["id"].as_str().unwrap())
}

async fn part(service: &Service, upload: &str, content: &[u8]) -> Answer {
    let Form { bytes } = Form::new().data(content).end();
    let path = format!("{upload}/parts");
    service.header("x", "y").send(Method::POST, &path, Some(Form::CONTENT_TYPE), Body::from(bytes)).await
}

fn id(answer: &Value) -> Value {
    answer["id"].clone()
}

#[tokio::test]
async fn parts_make_a_file_that_is_like_any_other() {
    let service = Service::start().await;
    let rows = GOOD_ROWS.as_bytes();
    let upload = begin(&service, announced(rows.len())).await;
    // The later part comes first, and one comes twice.
    let second = id(&part(&service, &upload, &rows[40..]).await.ok());
    let first = id(&part(&service, &upload, &rows[..40]).await.ok());
    part(&service, &upload, &rows[..40]).await.ok();
    let listed = service.get(&format!("{upload}/parts")).await.ok();
    assert_eq!((&listed["data"][0]["id"], listed["data"].as_array().map(Vec::len)), (&second, Some(3)));

    let digest = hex::encode(Md5::digest(rows)).to_uppercase();
    let complete = json!({"part_ids": [first, second], "md5": digest});
    let completed = post(&service, &format!("{upload}/complete"), complete.clone()).await.ok();
    let file = &completed["file"];
    assert_eq!((&completed["status"], &file["status"]), (&json!("completed"), &json!("processed")), "{completed}");
    assert_eq!((&file["lint"]["rows"], &file["bytes"]), (&json!(2), &json!(rows.len())));
    let content = service.get(&format!("/v1/files/{}/content", file["id"].as_str().unwrap())).await;
    assert_eq!(content.bytes, rows);
    service.create_job(json!({"model": BASE_MODEL, "training_file": file["id"]})).await.ok();

    // The same again, as after a lost answer, makes nothing new; anything else is refused.
    let again = post(&service, &format!("{upload}/complete"), complete).await.ok();
    assert_eq!(again, completed);
    let other = post(&service, &format!("{upload}/complete"), json!({"part_ids": [second, first]})).await;
    assert_eq!(other.refusal(), (400, "-", "invalid_state"));
    assert_eq!(part(&service, &upload, b"x").await.refusal(), (400, "-", "invalid_state"));
    assert_eq!(post(&service, &format!("{upload}/cancel"), json!({})).await.refusal(), (400, "-", "invalid_state"));
    assert_eq!(service.get(&format!("{upload}/parts")).await.ok()["data"], json!([]));
    assert_eq!(service.get("/v1/files").await.ok()["data"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn bad_rows_are_found_as_in_any_upload() {
    let service = Service::start().await;
    let rows = b"{\"prompt\": 3}\n";
    let upload = begin(&service, announced(rows.len())).await;
    let only = id(&part(&service, &upload, rows).await.ok());
    let completed = post(&service, &format!("{upload}/complete"), json!({"part_ids": [only]})).await.ok();
    assert_eq!(completed["file"]["status"], "error", "{completed}");
    assert!(completed["file"]["status_details"].as_str().unwrap().contains("line 1"), "{completed}");
}

#[tokio::test]
async fn parts_that_are_not_the_announced_file_are_refused_and_may_be_mended() {
    let service = Service::start().await;
    let upload = begin(&service, json!({"filename": "a", "purpose": "batch", "bytes": 4, "mime_type": "x/y"})).await;
    let (ab, cd) = (id(&part(&service, &upload, b"ab").await.ok()), id(&part(&service, &upload, b"cd").await.ok()));
    let complete = format!("{upload}/complete");
    let nobody = "part_00000000000070008000000000000000";
    for (body, refusal) in [
        (json!({"part_ids": []}), (400, "part_ids", "invalid_value")),
        (json!({"part_ids": [ab]}), (400, "part_ids", "invalid_value")),
        (json!({"part_ids": [ab, cd, cd]}), (400, "part_ids", "invalid_value")),
        (json!({"part_ids": [ab, nobody]}), (400, "part_ids[1]", "invalid_value")),
        (json!({"part_ids": [ab, cd], "md5": "x"}), (400, "md5", "invalid_value")),
        (json!({"part_ids": [cd, ab], "md5": hex::encode(Md5::digest(b"abcd"))}), (400, "md5", "invalid_value")),
        (json!({}), (400, "part_ids", "missing_required_parameter")),
    ] {
        let answer = post(&service, &complete, body.clone()).await;
        assert_eq!(answer.refusal(), refusal, "{body}: {}", answer.body);
    }
    let completed = post(&service, &complete, json!({"part_ids": [cd, ab]})).await.ok();
    let path = format!("/v1/files/{}/content", completed["file"]["id"].as_str().unwrap());
    assert_eq!(service.get(&path).await.bytes, "cdab");
}

#[tokio::test]
async fn what_cannot_be_an_upload_is_refused_by_name() {
    let service = Service::with(|options| options.max_upload_bytes = 1000).await;
    for (field, value) in [
        ("filename", json!("")),
        ("purpose", json!("training")),
        ("bytes", json!(0)),
        ("bytes", json!(1001)),
        ("mime_type", json!("x".repeat(300))),
    ] {
        let mut request = announced(10);
        request[field] = value;
        assert_eq!(post(&service, "/v1/uploads", request).await.refusal(), (400, field, "invalid_value"));
    }
    for (expires, field) in [
        (json!({"anchor": "x", "seconds": 3600}), "expires_after.anchor"),
        (json!({"anchor": "created_at", "seconds": 5}), "expires_after.seconds"),
    ] {
        let mut request = announced(10);
        request["expires_after"] = expires;
        assert_eq!(post(&service, "/v1/uploads", request).await.refusal(), (400, field, "invalid_value"));
    }
    let upload = begin(&service, announced(10)).await;
    assert_eq!(part(&service, &upload, b"").await.refusal(), (400, "data", "invalid_value"));
    let form = Form::new().file("a", b"x").end();
    let path = format!("{upload}/parts");
    let caller = service.header("x", "y");
    let answer = caller.send(Method::POST, &path, Some(Form::CONTENT_TYPE), Body::from(form.bytes)).await;
    assert_eq!(answer.refusal(), (400, "file", "unknown_parameter"));
    part(&service, &upload, &[b'x'; 20]).await.ok();
    let endless = part(&service, &upload, b"x").await;
    assert_eq!(endless.refusal(), (400, "-", "invalid_state"), "{}", endless.body);
}

#[tokio::test]
async fn a_cancelled_upload_takes_no_parts_and_leaves_no_bytes() {
    let service = Service::start().await;
    let upload = begin(&service, announced(10)).await;
    part(&service, &upload, b"0123456789").await.ok();
    let cancelled = post(&service, &format!("{upload}/cancel"), json!({})).await.ok();
    assert_eq!(cancelled["status"], "cancelled");
    assert_eq!(post(&service, &format!("{upload}/cancel"), json!({})).await.ok(), cancelled, "again");
    assert_eq!(part(&service, &upload, b"x").await.refusal(), (400, "-", "invalid_state"));
    let options = finetuned_store::GcOptions { min_age: Duration::ZERO, dry_run: false };
    let collected = service.database.store.collect_garbage(options).await.unwrap();
    assert_eq!((collected.blobs, collected.bytes), (1, 10));
}

#[tokio::test]
async fn equal_bytes_are_stored_once_and_deleted_with_the_last() {
    let service = Service::start().await;
    let rows = GOOD_ROWS.as_bytes();
    let first = service.upload("fine-tune", rows).await.ok();
    let second = service.upload("fine-tune", rows).await.ok();
    assert_ne!(first["id"], second["id"]);
    let upload = begin(&service, announced(rows.len())).await;
    let only = id(&part(&service, &upload, rows).await.ok());
    let third = post(&service, &format!("{upload}/complete"), json!({"part_ids": [only]})).await.ok()["file"].clone();
    let store = &service.database.store;
    let options = finetuned_store::GcOptions { min_age: Duration::ZERO, dry_run: false };
    let part_only = store.collect_garbage(options).await.unwrap();
    assert_eq!((part_only.blobs, part_only.bytes), (1, rows.len() as u64), "only the part was stored beside");
    let path = |file: &Value| format!("/v1/files/{}", file["id"].as_str().unwrap());
    for gone in [&first, &third] {
        service.delete(&path(gone)).await.ok();
        store.collect_garbage(options).await.unwrap();
        assert_eq!(service.get(&format!("{}/content", path(&second))).await.bytes, rows);
    }
    service.delete(&path(&second)).await.ok();
    assert_eq!(store.collect_garbage(options).await.unwrap().blobs, 1);
}

#[tokio::test]
async fn a_part_that_is_sent_again_is_one_part() {
    let service = Service::start().await;
    let upload = begin(&service, announced(4)).await;
    let first = part(&service, &upload, b"abcd").await.ok();
    let Form { bytes } = Form::new().data(b"abcd").end();
    let retry = service.header("x-stainless-retry-count", "1");
    let path = format!("{upload}/parts");
    let again = retry.send(Method::POST, &path, Some(Form::CONTENT_TYPE), Body::from(bytes)).await;
    assert_eq!((again.header("idempotent-replayed"), &again.body["id"]), ("true", &first["id"]));
}
