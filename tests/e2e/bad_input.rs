//! Bad input gets a clear error, and nothing is lost or half-written.

use std::time::Duration;

use anyhow::Result;
use finetuned_tests::{Service, ServiceOptions, rows};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

async fn service() -> Result<Service> {
    let service = Service::start_with(ServiceOptions { without_worker: true, ..Default::default() }).await?;
    service.add_tiny_model()?;
    Ok(service)
}

/// The refusal of a job on a file of these bytes, and the file.
async fn refused(service: &Service, bytes: &[u8]) -> Result<(Value, Value)> {
    let file = service.client.upload("rows.jsonl", bytes).await?;
    assert_eq!(file["status"], "error", "{file:#}");
    let body = json!({"model": "tiny-chat", "training_file": file["id"]});
    let error = service.client.post("/v1/fine_tuning/jobs", &body).await?.refusal(400)?;
    assert_eq!(error["param"], "training_file", "{error:#}");
    Ok((file, error))
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_files_are_kept_and_explained() -> Result<()> {
    let service = service().await?;
    let (file, _) = refused(&service, b"").await?;
    assert!(file["status_details"].as_str().unwrap_or_default().contains("empty"), "{file:#}");

    let (file, error) = refused(
        &service,
        b"{\"prompt\": \"a\", \"completion\": \"b\"}\n{\"prompt\": \"\xff\", \"completion\": \"b\"}\n",
    )
    .await?;
    assert_eq!((&error["details"][0]["line"], &error["details"][0]["rule"]), (&json!(2), &json!("not_utf8")));
    let content =
        service.client.bytes(&format!("/v1/files/{}/content", file["id"].as_str().unwrap_or_default())).await?;
    assert!(content.contains(&0xff), "the file is not downloadable for repair");

    // Every bad row, each with line, pointer, rule and reason; never only the first.
    let mut text = rows::alpaca(3);
    text += "{\"instruction\": \"a\", \"output\": \"\"}\n{\"instruction\": \"a\"}\nnot json\n";
    let (file, error) = refused(&service, text.as_bytes()).await?;
    let lines: Vec<_> =
        error["details"].as_array().unwrap().iter().map(|finding| finding["line"].as_u64().unwrap()).collect();
    assert_eq!(lines, [4, 5, 6]);
    let lint = service.client.get(&format!("/v1/files/{}/lint", file["id"].as_str().unwrap())).await?.success()?;
    for finding in lint["data"].as_array().unwrap() {
        assert!(
            finding["pointer"].is_string() && finding["rule"].is_string() && finding["reason"].is_string(),
            "{finding}"
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncated_upload_leaves_nothing() -> Result<()> {
    let service = service().await?;
    let mut stream = TcpStream::connect(("127.0.0.1", service.port())).await?;
    let head = "POST /v1/files HTTP/1.1\r\nhost: localhost\r\ncontent-type: multipart/form-data; boundary=b\r\ncontent-length: 100000\r\n\r\n\
        --b\r\ncontent-disposition: form-data; name=\"purpose\"\r\n\r\nfine-tune\r\n\
        --b\r\ncontent-disposition: form-data; name=\"file\"; filename=\"x.jsonl\"\r\n\r\n{\"prompt\": ";
    stream.write_all(head.as_bytes()).await?;
    stream.shutdown().await?;
    let mut answer = String::new();
    let _ = tokio::time::timeout(Duration::from_secs(10), stream.read_to_string(&mut answer)).await?;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert_eq!(service.client.get("/v1/files").await?.success()?["data"], json!([]));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_settings_name_the_field_and_what_is_allowed() -> Result<()> {
    let service = service().await?;
    let file = service.client.upload("rows.jsonl", rows::alpaca(10)).await?["id"].clone();
    for (extra, param, word) in [
        (json!({"model": "gpt-9"}), "model", "tiny-chat"),
        (json!({"training_file": "file-00000000000000000000000000000000"}), "training_file", "file-"),
        (json!({"rank": 8}), "rank", "unknown field"),
        (json!({"lora": {"rank": 8}}), "lora", "unknown field"),
        (json!({"lora": {"r": 100_000}}), "lora.r", "512"),
        (json!({"method": {"type": "dpo", "dpo": {}}}), "method.type", "pairs of answers"),
        (json!({"method": {"type": "reinforcement"}}), "method.type", "not built yet"),
        (json!({"max_seq_len": 100_000}), "max_seq_len", "512"),
        (json!({"lora": {"target_modules": ["wq"]}}), "lora.target_modules", "q_proj"),
        (json!({"n_epochs": 0}), "n_epochs", "between 1 and 50"),
        (json!({"seed": -1}), "seed", ""),
    ] {
        let mut body = json!({"model": "tiny-chat", "training_file": file});
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let answer = service.client.post("/v1/fine_tuning/jobs", &body).await?;
        assert!(answer.status == 400 || answer.status == 404, "{extra}: {} {}", answer.status, answer.body);
        let error = &answer.body["error"];
        assert!(error["param"].as_str().unwrap_or_default().starts_with(param), "{extra}: {error:#}");
        assert!(error["message"].as_str().unwrap_or_default().contains(word), "{extra}: {error:#}");
    }
    assert_eq!(service.client.get("/v1/fine_tuning/jobs").await?.success()?["data"], json!([]));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gguf_of_another_architecture_is_refused_by_name() -> Result<()> {
    let service = service().await?;
    let path = service.data_dir().join("mamba.gguf");
    // Version 3, no tensors, one key: general.architecture = "mamba".
    let mut bytes = b"GGUF".to_vec();
    bytes.extend(3u32.to_le_bytes());
    bytes.extend(0u64.to_le_bytes());
    bytes.extend(1u64.to_le_bytes());
    for text in ["general.architecture", "mamba"] {
        bytes.extend((text.len() as u64).to_le_bytes());
        bytes.extend(text.as_bytes());
        if text.contains('.') {
            bytes.extend(8u32.to_le_bytes());
        }
    }
    std::fs::write(&path, bytes)?;
    let error = service.run(&["models", "add", &path.to_string_lossy(), "--name", "mamba"]).unwrap_err().to_string();
    assert!(error.contains("mamba") && error.contains("llama"), "{error}");
    Ok(())
}
