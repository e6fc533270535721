//! Uploads that come in pieces, out of order, too long, or not to their end.

use std::time::Duration;

use axum::{body::Body, http::Method};
use bytes::Bytes;
use futures::stream;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_util::sync::CancellationToken;

use super::service::{Form, GOOD_ROWS, Service};
use crate::serve;

#[tokio::test]
async fn fields_may_come_in_any_order_and_in_any_pieces() {
    let service = Service::start().await;
    let form = Form::new().file("rows.jsonl", GOOD_ROWS.as_bytes()).text("purpose", "fine-tune").end();
    for size in [1, 7, 1 << 20] {
        let pieces: Vec<Result<Bytes, std::io::Error>> =
            form.bytes.chunks(size).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
        let body = Body::from_stream(stream::iter(pieces));
        let caller = service.header("x", "y");
        let file = caller.send(Method::POST, "/v1/files", Some(Form::CONTENT_TYPE), body).await.ok();
        assert_eq!((file["status"].as_str(), &file["lint"]["rows"]), (Some("processed"), &2.into()), "{size}: {file}");
    }
}

#[tokio::test]
async fn forms_that_are_refused() {
    let service = Service::start().await;
    let rows = GOOD_ROWS.as_bytes();
    for (form, refusal) in [
        (Form::new().text("purpose", "fine-tune"), (400, "file", "missing_required_parameter")),
        (Form::new().file("a", rows), (400, "purpose", "missing_required_parameter")),
        (Form::new().file("a", rows).text("purpose", "training"), (400, "purpose", "invalid_value")),
        (Form::new().text("purpose", "batch").text("purpose", "batch"), (400, "purpose", "invalid_value")),
        (Form::new().text("purpose", "batch").file("a", b"").file("b", b""), (400, "file", "invalid_value")),
        (Form::new().text("porpoise", "batch"), (400, "porpoise", "unknown_parameter")),
        (Form::new().text("purpose", &"x".repeat(5000)), (400, "purpose", "invalid_value")),
        (Form::new().text("purpose", "batch").file(&"n".repeat(600), b""), (400, "file", "invalid_value")),
    ] {
        let answer = service.header("x", "y").post_form(form).await;
        assert_eq!(answer.refusal(), refusal, "{}", answer.body);
    }
    let json =
        service.header("x", "y").send(Method::POST, "/v1/files", Some("application/json"), Body::from("{}")).await;
    assert_eq!(json.refusal(), (400, "content-type", "invalid_body"));
    assert_eq!(service.get("/v1/files").await.ok()["data"], serde_json::json!([]));
}

#[tokio::test]
async fn a_body_that_ends_early_leaves_nothing() {
    let service = Service::start().await;
    let form = Form::new().text("purpose", "fine-tune").file("rows.jsonl", GOOD_ROWS.as_bytes()).end();
    for cut in [10, 150, form.bytes.len() - 40, form.bytes.len() - 8] {
        let body = Body::from(form.bytes[..cut].to_vec());
        let caller = service.header("x", "y");
        let answer = caller.send(Method::POST, "/v1/files", Some(Form::CONTENT_TYPE), body).await;
        assert_eq!(answer.refusal(), (400, "-", "invalid_body"), "cut at {cut}: {}", answer.body);
    }
    assert_eq!(service.get("/v1/files").await.ok()["data"], serde_json::json!([]));
}

#[tokio::test]
async fn a_file_beyond_the_limit_is_refused() {
    let service = Service::with(|options| options.max_upload_bytes = 1000).await;
    let fits = service.upload("user_data", &[b'a'; 1000]).await;
    assert_eq!(fits.status, 200);
    let refused = service.upload("user_data", &[b'a'; 1001]).await;
    assert_eq!(refused.refusal(), (413, "file", "body_too_large"));
    assert!(refused.message().contains("1000 bytes"), "{}", refused.message());
    assert_eq!(refused.header("x-should-retry"), "false");
}

#[tokio::test]
async fn a_file_of_many_pieces_comes_back_whole() {
    let service = Service::start().await;
    let content: Vec<u8> = (0..9_000_000_u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let file = service.upload("user_data", &content).await.ok();
    assert_eq!((&file["bytes"], &file["status"]), (&content.len().into(), &"processed".into()));
    let path = format!("/v1/files/{}/content", file["id"].as_str().unwrap_or_default());
    assert!(service.get(&path).await.bytes == content);
}

#[tokio::test]
async fn endless_headers_of_a_part_are_cut_off() {
    let service = Service::start().await;
    let piece = || Ok::<_, std::io::Error>(Bytes::from(vec![b'h'; 1 << 20]));
    let endless =
        stream::iter(std::iter::once(Ok(Bytes::from("--XBOUNDARYX\r\n"))).chain((0..64).map(move |_| piece())));
    let caller = service.header("x", "y");
    let body = Body::from_stream(endless);
    let answer = caller.send(Method::POST, "/v1/files", Some(Form::CONTENT_TYPE), body).await;
    assert_eq!(answer.refusal(), (400, "-", "invalid_body"));
}

/// A server on a port of its own.
async fn listening(service: &Service) -> (std::net::SocketAddr, CancellationToken) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("its address");
    let shutdown = CancellationToken::new();
    let options = (*service.app.options).clone();
    tokio::spawn(serve(service.database.store.clone(), options, listener, shutdown.clone()));
    (address, shutdown)
}

#[tokio::test]
async fn a_connection_cut_mid_upload_leaves_nothing() {
    let service = Service::start().await;
    let (address, shutdown) = listening(&service).await;
    let form = Form::new().text("purpose", "fine-tune").file("rows.jsonl", GOOD_ROWS.as_bytes()).end();
    let head = format!(
        "POST /v1/files HTTP/1.1\r\nhost: localhost\r\ncontent-type: {}\r\ncontent-length: {}\r\n\r\n",
        Form::CONTENT_TYPE,
        form.bytes.len()
    );
    for cut in [5, form.bytes.len() / 2, form.bytes.len() - 3] {
        let mut connection = TcpStream::connect(address).await.expect("a connection");
        connection.write_all(head.as_bytes()).await.expect("sent");
        connection.write_all(&form.bytes[..cut]).await.expect("sent");
        connection.flush().await.expect("sent");
        tokio::time::sleep(Duration::from_millis(50)).await;
        drop(connection);
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(service.get("/v1/files").await.ok()["data"], serde_json::json!([]));
    shutdown.cancel();
}

#[tokio::test]
async fn a_client_that_falls_silent_is_told_so() {
    let service = Service::with(|options| options.upload_idle_timeout = Duration::from_millis(200)).await;
    let (address, shutdown) = listening(&service).await;
    let mut connection = TcpStream::connect(address).await.expect("a connection");
    let head = format!(
        "POST /v1/files HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: {}\r\ncontent-length: 1000\r\n\r\n--XB",
        Form::CONTENT_TYPE
    );
    connection.write_all(head.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    let read = connection.read_to_string(&mut answer);
    tokio::time::timeout(Duration::from_secs(10), read).await.expect("an answer in time").expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("request_timeout"), "{answer}");
    shutdown.cancel();
}

#[tokio::test]
async fn the_end_of_the_server_does_not_wait_for_a_silent_client() {
    let service = Service::with(|options| options.shutdown_grace = Duration::from_millis(200)).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("its address");
    let shutdown = CancellationToken::new();
    let options = (*service.app.options).clone();
    let serving = tokio::spawn(serve(service.database.store.clone(), options, listener, shutdown.clone()));
    let mut connection = TcpStream::connect(address).await.expect("a connection");
    let head = format!(
        "POST /v1/files HTTP/1.1\r\nhost: localhost\r\ncontent-type: {}\r\ncontent-length: 1000\r\n\r\n--XB",
        Form::CONTENT_TYPE
    );
    connection.write_all(head.as_bytes()).await.expect("sent");
    tokio::time::sleep(Duration::from_millis(50)).await;
    shutdown.cancel();
    let ended = tokio::time::timeout(Duration::from_secs(5), serving).await.expect("an end in time");
    assert!(matches!(ended, Ok(Ok(()))), "{ended:?}");
}

#[test]
fn uploads_do_not_wait_for_each_others_threads() {
    // As many uploads as there are threads for files: each needs one for its bytes while it is linted.
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).max_blocking_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let service = Service::with(|options| options.max_uploads = 6).await;
        let rows = GOOD_ROWS.repeat(50_000);
        let upload = async |name: &str| {
            let form = Form::new().text("purpose", "fine-tune").file(name, rows.as_bytes());
            service.header("x", "y").post_form(form).await.ok()["lint"]["rows"].clone()
        };
        let all = futures::future::join_all(["a", "b", "c", "d", "e", "f"].map(upload));
        let rows = tokio::time::timeout(Duration::from_secs(60), all).await.expect("uploads that end");
        assert_eq!(rows, vec![serde_json::json!(100_000); 6]);
    });
}

#[tokio::test]
async fn uploads_beyond_the_places_are_asked_to_come_back() {
    let service = Service::with(|options| {
        options.max_uploads = 1;
        options.request_timeout = Duration::from_millis(300);
    })
    .await;
    let (address, shutdown) = listening(&service).await;
    let head = format!(
        "POST /v1/files HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: {}\r\ncontent-length: 1000\r\n\r\n--XB",
        Form::CONTENT_TYPE
    );
    let mut silent = TcpStream::connect(address).await.expect("a connection");
    silent.write_all(head.as_bytes()).await.expect("sent");
    tokio::time::sleep(Duration::from_millis(100)).await;
    let mut second = TcpStream::connect(address).await.expect("a connection");
    second.write_all(head.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    let read = second.read_to_string(&mut answer);
    tokio::time::timeout(Duration::from_secs(10), read).await.expect("an answer in time").expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 503") && answer.to_lowercase().contains("retry-after: 5"), "{answer}");
    assert!(answer.contains("1 other uploads"), "{answer}");
    shutdown.cancel();
}
