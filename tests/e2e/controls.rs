//! Cancel, pause and resume take effect at once and say so.

use std::time::{Duration, Instant};

use anyhow::Result;
use finetuned_tests::{Service, rows};
use serde_json::{Value, json};

const JOB: Duration = Duration::from_secs(120);

fn long() -> Value {
    json!({"max_steps": 100_000, "answers": {"rows": 0}, "checkpoint_every": 100_000, "evaluate_every": 100_000})
}

fn is_training(job: &Value) -> bool {
    job["progress"]["step"].as_u64() > Some(0)
}

async fn no_engine_within(service: &Service, limit: Duration) -> Result<()> {
    let start = Instant::now();
    while !service.engines()?.is_empty() {
        anyhow::ensure!(start.elapsed() < limit, "an engine still runs {limit:?} later");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_job_stops_and_stays_cancelled() -> Result<()> {
    let service = Service::start().await?;
    service.add_tiny_model()?;
    let id = service.tiny_job(&rows::alpaca(40), long()).await?;
    service.client.wait_for(&id, JOB, is_training).await?;
    let cancel = format!("/v1/fine_tuning/jobs/{id}/cancel");
    assert_eq!(service.client.control(&cancel).await?.success()?["status"], "cancelled");
    no_engine_within(&service, Duration::from_secs(10)).await?;
    assert_eq!(service.client.control(&cancel).await?.success()?["status"], "cancelled");
    assert_eq!(service.client.job(&id).await?["status"], "cancelled");

    let finished = service.tiny_job(&rows::alpaca(40), json!({"max_steps": 2, "answers": {"rows": 0}})).await?;
    service.client.wait_for_success(&finished, JOB).await?;
    let answer = service.client.control(&format!("/v1/fine_tuning/jobs/{finished}/cancel")).await?;
    assert_eq!(answer.headers["x-should-retry"], "false");
    assert_eq!(answer.refusal(400)?["code"], "invalid_state");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_job_goes_on_where_it_stopped() -> Result<()> {
    let service = Service::start().await?;
    service.add_tiny_model()?;
    let id = service.tiny_job(&rows::alpaca(40), long()).await?;
    service.client.wait_for(&id, JOB, is_training).await?;
    service.client.control(&format!("/v1/fine_tuning/jobs/{id}/pause")).await?.success()?;
    let paused = service.client.wait_for(&id, Duration::from_secs(30), |job| job["paused"] == true).await?;
    assert_eq!(paused["status"], "queued");
    no_engine_within(&service, Duration::from_secs(10)).await?;
    let checkpoints = service.client.get(&format!("/v1/fine_tuning/jobs/{id}/checkpoints")).await?.success()?;
    let stopped_at = checkpoints["data"][0]["step_number"].as_u64().unwrap();
    assert!(stopped_at > 0, "{checkpoints:#}");

    service.client.control(&format!("/v1/fine_tuning/jobs/{id}/resume")).await?.success()?;
    let resumed = service.client.wait_for(&id, JOB, |job| job["status"] == "running" && is_training(job)).await?;
    assert!(resumed["progress"]["step"].as_u64().unwrap() >= stopped_at, "{resumed:#}");
    service.client.control(&format!("/v1/fine_tuning/jobs/{id}/cancel")).await?.success()?;
    Ok(())
}
