//! One job under faults, and everything that must hold afterwards.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use finetuned_tests::rows;
use serde_json::Value;

use crate::{
    faults::{Fault, Random},
    stage::{Stage, settings, step},
};

pub async fn run(stage: &mut Stage, faults: &[Fault], random: &mut Random) -> Result<()> {
    let start = Instant::now();
    let id = stage.service.tiny_job(&rows::alpaca(48), settings()).await?;
    for fault in faults {
        // A checkpoint at least, then wherever the seed says.
        let wanted = 60 + random.below(250);
        let struck = wait_until(stage, &id, |job| step(job) >= wanted || job["status"] == "succeeded").await?;
        if struck["status"] == "succeeded" {
            println!("  the job was done before {fault:?}");
            break;
        }
        tokio::time::sleep(Duration::from_millis(random.below(200))).await;
        fault.strike(stage, &id, random).await.with_context(|| format!("striking with {fault:?}"))?;
        stage.replace_workers()?;
    }
    wait_until(stage, &id, |job| matches!(job["status"].as_str(), Some("succeeded" | "failed" | "cancelled"))).await?;
    check(stage, &id).await?;
    println!("  held in {:?}", start.elapsed());
    Ok(())
}

/// Polls the job through whatever outage there is.
async fn wait_until(stage: &Stage, id: &str, done: impl Fn(&Value) -> bool) -> Result<Value> {
    let start = Instant::now();
    let mut last = None;
    loop {
        match stage.service.client.job(id).await {
            Ok(job) if done(&job) => return Ok(job),
            Ok(job) => last = Some(job),
            Err(_) => {}
        }
        ensure!(start.elapsed() < stage.longest(), "still waiting; the job was last {last:#?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn check(stage: &Stage, id: &str) -> Result<()> {
    let client = &stage.service.client;
    let job = client.job(id).await?;
    ensure!(job["status"] == "succeeded", "the job did not succeed: {job:#}");
    ensure!(client.adapter_weights(id).await? == stage.adapter, "the adapter differs from the undisturbed run's");
    ensure!(stage.losses_of(id).await? == stage.losses, "a step's loss differs from the undisturbed run's");
    let events = client.get(&format!("/v1/fine_tuning/jobs/{id}/events?limit=1000")).await?.success()?;
    let mut events: Vec<Value> = events["data"].as_array().context("no events")?.clone();
    events.reverse();
    if events.len() < 1000 {
        for (event, wanted) in events.iter().zip(1_u64..) {
            ensure!(event["sequence"] == wanted, "event {wanted} is missing or double: {event}");
        }
    }
    let told = |message: &str| events.iter().filter(|event| event["message"] == message).count();
    ensure!(told("The job has successfully completed") == 1, "it was finished more than once or never");
    stage.no_engine_left().await
}
