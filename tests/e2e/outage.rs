//! Postgres away for a minute under a running job: the job goes on, and the API says when to come back.

use std::time::Duration;

use anyhow::Result;
use finetuned_tests::{Service, postgres::Postgres, rows};
use serde_json::{Value, json};

/// Longer than a lease's expiry (20 s), so that the worker must hold the engine and renew afterwards.
const AWAY: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn a_job_survives_a_minute_without_postgres() -> Result<()> {
    let service = Service::start().await?;
    service.add_tiny_model()?;
    let settings = json!({"max_steps": 6000, "answers": {"rows": 0}, "checkpoint_every": 2000, "evaluate_every": 2000});
    let id = service.tiny_job(&rows::alpaca(40), settings).await?;
    let job = service.client.wait_for(&id, AWAY, |job: &Value| job["progress"]["step"].as_u64() > Some(50)).await?;

    let postgres = Postgres::of(&service)?;
    postgres.signal_all(libc::SIGSTOP)?;
    let answer = service.client.get(&format!("/v1/fine_tuning/jobs/{id}")).await;
    tokio::time::sleep(AWAY).await;
    postgres.signal_all(libc::SIGCONT)?;
    let answer = answer?;
    assert_eq!(answer.status, 503, "{}", answer.body);
    assert!(answer.headers.contains_key("retry-after"));

    let done = service.client.wait_for_success(&id, 8 * AWAY).await?;
    assert_eq!(done["started_at"], job["started_at"]);
    let claims = service.server.log_text().matches("claimed").count();
    assert_eq!(claims, 2, "a validate and a train task: the job was started again instead of going on");
    Ok(())
}
