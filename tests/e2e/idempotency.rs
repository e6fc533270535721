//! A create is done once, however often and however brokenly it is sent.

use std::{collections::BTreeSet, sync::atomic::Ordering, time::Duration};

use anyhow::{Context, Result};
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
    let service = service().await?;
    let file = service.client.upload("rows.jsonl", rows::alpaca(10)).await?["id"].as_str().unwrap().to_owned();
    // The server takes a few milliseconds to create something: these fall before, into and after its commit.
    let during = [0, 2, 4, 8, 16].map(|millis| Cut::AfterRequest(Duration::from_millis(millis)));
    let cuts = [Cut::BeforeRequest, Cut::DuringRequest, Cut::AfterAnswer].into_iter().chain(during);
    let (mut files, mut jobs) = (1, 0);
    for (number, cut) in cuts.enumerate() {
        for what in ["file", "job"] {
            let (url, broken) = proxy::start(service.port(), cut, 1).await?;
            let name = format!("once-{number}");
            let id = python::run("create_once.py", &[&url, "tiny-chat", &name, what, &file]).await?;
            assert_eq!(broken.load(Ordering::SeqCst), 1, "{cut:?}: nothing was broken");
            let list = if what == "file" { "/v1/files" } else { "/v1/fine_tuning/jobs" };
            let made = if what == "file" { &mut files } else { &mut jobs };
            *made += 1;
            let listed = service.client.get(list).await?.success()?["data"].clone();
            let listed = listed.as_array().context("no list")?;
            assert_eq!(listed.len(), *made, "{cut:?}: a {what} was created more than once");
            assert!(listed.iter().any(|object| object["id"] == id.trim()), "{cut:?}: {id} is not among them");
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_equal_calls_of_the_official_client_make_one_job() -> Result<()> {
    let service = service().await?;
    let file = service.client.upload("rows.jsonl", rows::alpaca(10)).await?["id"].as_str().unwrap().to_owned();
    let ids = python::run("create_at_once.py", &[&service.client.url, "tiny-chat", &file, "50"]).await?;
    let ids: Vec<&str> = ids.split_whitespace().collect();
    assert_eq!(ids.len(), 50);
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), 1, "{ids:?}");
    assert_eq!(count(&service, "/v1/fine_tuning/jobs").await?, 1);
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
