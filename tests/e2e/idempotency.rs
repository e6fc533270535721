//! A create is done once, however often and however brokenly it is sent.

use std::{collections::BTreeSet, sync::atomic::Ordering};

use anyhow::Result;
use finetuned_tests::{
    Service, ServiceOptions,
    proxy::{self, Cut},
    python, rows,
};
use reqwest::Method;
use serde_json::json;

async fn service() -> Result<Service> {
    let service = Service::start_with(ServiceOptions { without_worker: true, ..Default::default() }).await?;
    service.add_tiny_model()?;
    Ok(service)
}

async fn count(service: &Service, path: &str) -> Result<usize> {
    Ok(service.client.get(path).await?.success()?["data"].as_array().map_or(0, Vec::len))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_official_client_creates_once_over_a_breaking_connection() -> Result<()> {
    for cut in [Cut::BeforeRequest, Cut::DuringRequest, Cut::AfterAnswer] {
        let service = service().await?;
        for (what, list) in [("file", "/v1/files"), ("job", "/v1/fine_tuning/jobs")] {
            // A job's retry is preceded by a list call of its own, so the first connections are broken for both.
            let (url, broken) = proxy::start(service.port(), cut, 1).await?;
            let id = python::run("create_once.py", &[&url, "tiny-chat", what]).await?;
            assert_eq!(broken.load(Ordering::SeqCst), 1, "{cut:?}: nothing was broken");
            assert_eq!(count(&service, list).await?, 1, "{cut:?}: {what} was created more than once");
            let listed = service.client.get(list).await?.success()?;
            assert_eq!(listed["data"][0]["id"], id.trim(), "{cut:?}");
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_equal_requests_make_one_job() -> Result<()> {
    let service = service().await?;
    let file = service.client.upload("rows.jsonl", rows::alpaca(10)).await?;
    let body = json!({"model": "tiny-chat", "training_file": file["id"]});
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let (client, body) = (service.client.clone(), body.clone());
        calls.spawn(async move {
            let request =
                client.request(Method::POST, "/v1/fine_tuning/jobs").header("idempotency-key", "once").json(&body);
            client.send(request).await?.success()
        });
    }
    let mut ids = BTreeSet::new();
    while let Some(answer) = calls.join_next().await {
        ids.insert(answer??["id"].to_string());
    }
    assert_eq!(ids.len(), 1, "{ids:?}");
    assert_eq!(count(&service, "/v1/fine_tuning/jobs").await?, 1);

    let other = json!({"model": "tiny-chat", "training_file": file["id"], "seed": 3});
    let request =
        service.client.request(Method::POST, "/v1/fine_tuning/jobs").header("idempotency-key", "once").json(&other);
    service.client.send(request).await?.refusal(422)?;
    Ok(())
}
