#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::ops::ControlFlow;

use finetuned_protocol::status::JobStatus;
use serde_json::json;
use wiremock::{
    Mock, MockServer, ResponseTemplate,
    matchers::{body_string_contains, header as has_header, header_exists, method, path, query_param_is_missing},
};

use super::{watch::Seen, *};

const JOB: &str = "ftjob-0193520a0b7c7d1e8f00000000000001";

fn client(url: &str) -> Client {
    let args = ClientArgs { url: url.to_owned(), api_key: Some(SecretString::from("ft-secret")) };
    let mut client = Client::new(&args).unwrap();
    client.patience = Duration::from_secs(2);
    client
}

fn job(status: &str) -> Value {
    json!({"id": JOB, "created_at": 1, "status": status, "model": "m", "fine_tuned_model": null, "error": null})
}

fn event(id: u32) -> Value {
    json!({"id": format!("ftevent-{id}"), "level": "info", "message": format!("event {id}"), "data": null})
}

#[test]
fn addresses_are_read_as_people_write_them() {
    for url in ["http://host:1", "http://host:1/", "http://host:1/v1", "http://host:1/v1/"] {
        assert_eq!(client(url).base_url(), "http://host:1");
    }
    assert_eq!(client("https://host/below/v1").base_url(), "https://host/below");
    for url in ["localhost:8787", "ftp://host", "", "http://"] {
        let args = ClientArgs { url: url.to_owned(), api_key: None };
        assert!(Client::new(&args).is_err(), "{url}");
    }
    assert_eq!(segment("ft:Qwen/Q 1"), "ft:Qwen%2FQ%201");
}

#[tokio::test]
async fn a_refusal_is_told_in_the_services_words() {
    let server = MockServer::start().await;
    let body = json!({"error": {"message": "`lora.r` must be between 1 and 512", "type": "invalid_request_error",
        "code": "invalid_value", "param": "lora.r", "details": [{"line": 3}]}});
    Mock::given(method("POST"))
        .respond_with(ResponseTemplate::new(400).set_body_json(body))
        .expect(1)
        .mount(&server)
        .await;
    let error = client(&server.uri()).create_job(&json!({})).await.unwrap_err().to_string();
    assert_eq!(error, "`lora.r` must be between 1 and 512 (field `lora.r`)\n  {\"line\":3}");
}

#[tokio::test]
async fn a_service_that_is_away_is_asked_again_with_one_idempotency_key() {
    let server = MockServer::start().await;
    let away = ResponseTemplate::new(503).insert_header("retry-after", "0");
    Mock::given(method("POST")).respond_with(away).up_to_n_times(2).mount(&server).await;
    let created = ResponseTemplate::new(200).set_body_json(job("validating_files"));
    Mock::given(method("POST"))
        .and(header_exists("idempotency-key"))
        .and(has_header("authorization", "Bearer ft-secret"))
        .respond_with(created)
        .mount(&server)
        .await;
    client(&server.uri()).create_job(&json!({"model": "m"})).await.unwrap();
    let requests = server.received_requests().await.unwrap();
    let keys: Vec<_> = requests.iter().map(|request| request.headers["idempotency-key"].clone()).collect();
    assert_eq!(keys.len(), 3);
    assert!(keys.iter().all(|key| *key == keys[0]));
}

#[tokio::test]
async fn nothing_there_says_what_to_start() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let error = client(&url).jobs(1).await.unwrap_err();
    assert!(format!("{error}").contains("finetuned serve"), "{error}");
}

#[tokio::test]
async fn an_upload_streams_the_file_and_counts_it() {
    let server = MockServer::start().await;
    let file = json!({"id": "file-1", "bytes": 6, "filename": "rows.jsonl", "purpose": "fine-tune", "status": "processed",
        "status_details": null});
    Mock::given(path("/v1/files"))
        .and(body_string_contains("name=\"purpose\""))
        .and(body_string_contains("filename=\"rows.jsonl\""))
        .respond_with(ResponseTemplate::new(200).set_body_json(file))
        .mount(&server)
        .await;
    let folder = tempfile::tempdir().unwrap();
    let rows = folder.path().join("rows.jsonl");
    std::fs::write(&rows, "{\"a\":1}\n").unwrap();
    let (sender, receiver) = std::sync::mpsc::channel();
    let uploaded = client(&server.uri()).upload(&rows, move |count| sender.send(count).unwrap()).await.unwrap();
    assert_eq!(uploaded.id, "file-1");
    assert_eq!(receiver.iter().sum::<u64>(), 8);
}

#[tokio::test]
async fn a_download_is_kept_only_when_its_hash_is_right() {
    let server = MockServer::start().await;
    Mock::given(path(format!("/v1/fine_tuning/jobs/{JOB}/artifacts/a.bin")))
        .respond_with(ResponseTemplate::new(200).set_body_bytes(b"abc"))
        .mount(&server)
        .await;
    let folder = tempfile::tempdir().unwrap();
    let client = client(&server.uri());
    let id = JOB.parse().unwrap();
    let right = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    let artifact = |name: &str, sha256: &str| Artifact { name: name.into(), bytes: 3, sha256: sha256.into() };
    let wrong = client.download(id, &artifact("a.bin", "00"), folder.path(), |_| ()).await.unwrap_err();
    assert!(wrong.to_string().contains("sha256"), "{wrong}");
    assert!(!folder.path().join("a.bin").exists());
    assert!(client.download(id, &artifact("../a.bin", right), folder.path(), |_| ()).await.is_err());
    client.download(id, &artifact("a.bin", right), folder.path(), |_| ()).await.unwrap();
    assert_eq!(std::fs::read(folder.path().join("a.bin")).unwrap(), b"abc");
}

#[tokio::test]
async fn a_job_is_followed_to_its_end_with_each_event_once() {
    let server = MockServer::start().await;
    let (job_path, events_path) = (format!("/v1/fine_tuning/jobs/{JOB}"), format!("/v1/fine_tuning/jobs/{JOB}/events"));
    let page = |ids: &[u32], more: bool| {
        let data: Vec<Value> = ids.iter().map(|id| event(*id)).collect();
        ResponseTemplate::new(200).set_body_json(json!({"object": "list", "data": data, "has_more": more}))
    };
    let answer = |status: &str| ResponseTemplate::new(200).set_body_json(job(status));
    Mock::given(path(&*job_path)).respond_with(answer("running")).up_to_n_times(1).mount(&server).await;
    Mock::given(path(&*job_path)).respond_with(answer("succeeded")).mount(&server).await;
    let first = Mock::given(path(&*events_path)).and(query_param_is_missing("after"));
    first.respond_with(page(&[2, 1], false)).up_to_n_times(1).mount(&server).await;
    // At the second look five events are there, three of them new, on two pages.
    let second = Mock::given(path(&*events_path)).and(query_param_is_missing("after"));
    second.respond_with(page(&[5, 4], true)).mount(&server).await;
    Mock::given(path(&*events_path)).respond_with(page(&[3, 2], true)).mount(&server).await;
    let mut told = Vec::new();
    let client = client(&server.uri());
    let last = client.watch(JOB.parse().unwrap(), |seen| {
        if let Seen::Event(event) = seen {
            told.push(event.message.clone());
        }
        ControlFlow::Continue(())
    });
    assert_eq!(last.await.unwrap().status, JobStatus::Succeeded);
    assert_eq!(told, ["event 1", "event 2", "event 3", "event 4", "event 5"]);
}
