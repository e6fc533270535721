//! A killed worker loses nothing: its task is claimed again and the adapter's bytes are those of an undisturbed run.

use std::time::{Duration, Instant};

use anyhow::Result;
use finetuned_tests::{Service, ServiceOptions, rows};
use serde_json::{Value, json};

/// Expiry (20 s) plus two scans (2 s each) and a second to start: the longest a dead worker's task may wait.
const TAKEN_BACK: Duration = Duration::from_secs(25);
const JOB: Duration = Duration::from_secs(180);

fn settings() -> Value {
    json!({
        "max_steps": 1500, "batch_size": 8, "checkpoint_every": 100, "evaluate_every": 500,
        "lora": {"dropout": 0.1}, "answers": {"rows": 2, "max_new_tokens": 4},
    })
}

fn step(job: &Value) -> u64 {
    job["progress"]["step"].as_u64().unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_worker_is_replaced_and_the_bytes_stay_the_same() -> Result<()> {
    let mut service = Service::start_with(ServiceOptions { without_worker: true, ..Default::default() }).await?;
    service.add_tiny_model()?;
    let first = service.start_worker(&[])?;
    let rows = rows::alpaca(64);

    let undisturbed = service.tiny_job(&rows, settings()).await?;
    service.client.wait_for_success(&undisturbed, JOB).await?;
    let expected = service.client.adapter_weights(&undisturbed).await?;

    let killed = service.tiny_job(&rows, settings()).await?;
    service.client.wait_for(&killed, JOB, |job| step(job) > 300).await?;
    let second = service.start_worker(&[])?;
    service.workers[first].kill()?;
    let death = Instant::now();

    let waited = loop {
        let waited = death.elapsed();
        if service.workers[second].log_text().contains("claimed") {
            break waited;
        }
        assert!(waited <= TAKEN_BACK, "not claimed again after {waited:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    println!("claimed again {waited:?} after SIGKILL");
    let job = service.client.wait_for_success(&killed, JOB).await?;
    assert!(service.engines()?.is_empty(), "an engine was left behind");
    assert!(
        service.client.adapter_weights(&killed).await? == expected,
        "the adapter differs from the undisturbed run's"
    );
    assert_eq!(job["evaluation"]["tuned"], service.client.job(&undisturbed).await?["evaluation"]["tuned"]);
    Ok(())
}
