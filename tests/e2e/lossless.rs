//! Pauses, crashes and retries lose nothing: what comes out has the bytes of the run that nobody disturbed.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use finetuned_tests::{Service, ServiceOptions, postgres::send, rows};
use serde_json::{Value, json};

const JOB: Duration = Duration::from_secs(180);

fn settings() -> Value {
    json!({
        "max_steps": 900, "batch_size": 8, "micro_batch_size": 2, "checkpoint_every": 200, "evaluate_every": 300,
        "lora": {"dropout": 0.1}, "answers": {"rows": 2, "max_new_tokens": 4},
    })
}

fn step(job: &Value) -> u64 {
    job["progress"]["step"].as_u64().unwrap_or(0)
}

async fn quick() -> Result<Service> {
    let environment = vec![("FINETUNED_TIME_SCALE".to_owned(), "0.1".to_owned())];
    let service = Service::start_with(ServiceOptions { environment, ..Default::default() }).await?;
    service.add_tiny_model()?;
    Ok(service)
}

/// The pid of an engine that was not there before.
async fn next_engine(service: &Service, before: &[u32]) -> Result<u32> {
    let start = Instant::now();
    loop {
        if let Some(pid) = service.engines()?.into_iter().find(|pid| !before.contains(pid)) {
            return Ok(pid);
        }
        ensure!(start.elapsed() < Duration::from_secs(60), "no further engine is started");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn ended(service: &Service, id: &str) -> Result<Value> {
    let is_over = |job: &Value| matches!(job["status"].as_str(), Some("succeeded" | "failed" | "cancelled"));
    service.client.wait_for(id, JOB, is_over).await
}

#[tokio::test(flavor = "multi_thread")]
async fn pauses_and_a_retry_after_crashes_change_no_byte() -> Result<()> {
    let service = quick().await?;
    let rows = rows::alpaca(64);
    let undisturbed = service.tiny_job(&rows, settings()).await?;
    service.client.wait_for_success(&undisturbed, JOB).await?;
    let expected = service.client.adapter_weights(&undisturbed).await?;

    // Paused wherever it happens to be, three times.
    let paused = service.tiny_job(&rows, settings()).await?;
    let path = format!("/v1/fine_tuning/jobs/{paused}");
    for wanted in [90, 330, 610] {
        service.client.wait_for(&paused, JOB, |job| step(job) >= wanted).await?;
        let asked = Instant::now();
        let answer = service.client.control(&format!("{path}/pause")).await?.success()?;
        assert_eq!(answer["pause_requested"], true, "{answer:#}");
        let job = service.client.wait_for(&paused, Duration::from_secs(20), |job| job["paused"] == true).await?;
        println!("paused {:?} after it was asked for, at step {}", asked.elapsed(), step(&job));
        let newest = service.client.get(&format!("{path}/checkpoints?limit=1")).await?.success()?;
        assert_eq!(newest["data"][0]["step_number"].as_u64(), Some(step(&job)), "{newest:#}");
        assert!(job["queue_position"].is_null() && job["waiting_reason"] == "paused", "{job:#}");
        service.client.control(&format!("{path}/resume")).await?.success()?;
    }
    service.client.wait_for_success(&paused, JOB).await?;
    assert!(service.client.adapter_weights(&paused).await? == expected, "the pauses changed the adapter");

    // Three engines die without getting further; a retry goes on from the last checkpoint.
    let crashed = service.tiny_job(&rows, settings()).await?;
    service.client.wait_for(&crashed, JOB, |job| step(job) >= 250).await?;
    let mut killed = Vec::new();
    for _ in 0..3 {
        let engine = next_engine(&service, &killed).await?;
        send(engine as i32, libc::SIGABRT)?;
        killed.push(engine);
    }
    let job = ended(&service, &crashed).await?;
    let error = &job["error"];
    assert_eq!((&job["status"], &error["code"]), (&json!("failed"), &json!("engine_crashed")), "{job:#}");
    assert_eq!((&error["blame"], &error["attempt"]), (&json!("system"), &json!(3)), "{error:#}");
    assert!(error["message"].as_str().context("no message")?.contains("signal 6"), "{error:#}");
    assert!(error["step"].is_u64() && error["hint"].as_str().context("no hint")?.contains("/logs"), "{error:#}");
    let path = format!("/v1/fine_tuning/jobs/{crashed}");
    let logs = service.client.get(&format!("{path}/logs")).await?.success()?;
    let attempts: Vec<u64> =
        logs["data"].as_array().context("no logs")?.iter().filter_map(|log| log["attempt"].as_u64()).collect();
    assert_eq!(attempts, [3, 2, 1], "{logs:#}");
    let retry = service.client.control(&format!("{path}/retry")).await?.success()?;
    assert_eq!(retry["retry_of"], json!(crashed));
    let id = retry["id"].as_str().context("no id")?;
    let events = service.client.get(&format!("/v1/fine_tuning/jobs/{id}/events?limit=1000")).await?.success()?;
    assert!(events.to_string().contains("from its checkpoint of step 200"), "{events:#}");
    service.client.wait_for_success(id, JOB).await?;
    assert!(service.client.adapter_weights(id).await? == expected, "the retry's adapter is another");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_engines_get_stuck_fails_with_that_cause() -> Result<()> {
    let service = quick().await?;
    let id = service.tiny_job(&rows::alpaca(40), json!({"max_steps": 100_000, "answers": {"rows": 0}})).await?;
    service.client.wait_for(&id, JOB, |job| step(job) >= 20).await?;
    let mut stopped = Vec::new();
    for _ in 0..3 {
        let engine = next_engine(&service, &stopped).await?;
        send(engine as i32, libc::SIGSTOP)?;
        stopped.push(engine);
    }
    let job = ended(&service, &id).await?;
    assert_eq!(job["error"]["code"], "engine_stuck", "{job:#}");
    assert!(service.engines()?.is_empty(), "a stuck engine was left behind");
    Ok(())
}
