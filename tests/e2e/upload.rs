//! A large upload leaves the server's memory as it is.

use std::time::{Duration, Instant};

use anyhow::Result;
use finetuned_tests::{Service, ServiceOptions};
use reqwest::{Body, Method, multipart};

const FILE_BYTES: u64 = 2_000_000_000;
const ROWS_A_PIECE: u64 = 512;
const RESIDENT_BYTES: u64 = 100 << 20;
const UPLOAD: Duration = Duration::from_secs(240);

/// Different Alpaca rows of about a kilobyte each, as many as make `FILE_BYTES`.
fn pieces() -> impl Iterator<Item = Result<Vec<u8>, std::io::Error>> {
    let filler = "words of an answer ".repeat(48);
    let mut sent = 0;
    (0..).map_while(move |piece: u64| {
        if sent >= FILE_BYTES {
            return None;
        }
        let mut text = String::with_capacity(1 << 20);
        for row in piece * ROWS_A_PIECE..(piece + 1) * ROWS_A_PIECE {
            text += &format!("{{\"instruction\": \"What is number {row}?\", \"output\": \"{row} {filler}\"}}\n");
        }
        sent += text.len() as u64;
        Some(Ok(text.into_bytes()))
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn two_gigabytes_pass_through_a_hundred_megabytes() -> Result<()> {
    let service = Service::start_with(ServiceOptions { without_worker: true, ..Default::default() }).await?;
    let part = multipart::Part::stream(Body::wrap_stream(futures::stream::iter(pieces()))).file_name("large.jsonl");
    let form = multipart::Form::new().text("purpose", "fine-tune").part("file", part);
    let request = service.client.request(Method::POST, "/v1/files").timeout(UPLOAD).multipart(form);
    let start = Instant::now();
    let upload = tokio::spawn({
        let client = service.client.clone();
        async move { client.send(request).await?.success() }
    });
    let mut most = 0;
    while !upload.is_finished() {
        most = most.max(service.server.resident_bytes()?);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let file = upload.await??;
    let (bytes, seconds) = (file["bytes"].as_u64().unwrap_or(0), start.elapsed().as_secs_f64());
    println!("{bytes} bytes in {seconds:.0} s; at most {} MB resident", most >> 20);
    assert!(bytes >= FILE_BYTES && file["status"] == "processed", "{file:#}");
    assert!(most <= RESIDENT_BYTES, "{} MB resident", most >> 20);
    Ok(())
}
