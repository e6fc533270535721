//! Postgres away for a minute under a running job: the job goes on, and the API says when to come back.

use std::time::Duration;

use anyhow::{Context, Result};
use finetuned_tests::{Service, rows};
use serde_json::{Value, json};

/// Longer than a lease's expiry (20 s), so that the worker must hold the engine and renew afterwards.
const AWAY: Duration = Duration::from_secs(60);

/// The postmaster and every process it started.
fn postgres_pids(service: &Service) -> Result<Vec<i32>> {
    let folder = service.data_dir();
    let file = walk(&folder).into_iter().find(|path| path.ends_with("postmaster.pid")).context("no postmaster.pid")?;
    let postmaster: i32 = std::fs::read_to_string(file)?.lines().next().unwrap_or_default().trim().parse()?;
    let mut pids = vec![postmaster];
    for entry in std::fs::read_dir("/proc")? {
        let entry = entry?;
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let parent =
            stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(1)).and_then(|text| text.parse().ok());
        if parent == Some(postmaster) {
            pids.push(pid);
        }
    }
    Ok(pids)
}

fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    entries
        .flatten()
        .flat_map(|entry| if entry.path().is_dir() { walk(&entry.path()) } else { vec![entry.path()] })
        .collect()
}

fn signal(pids: &[i32], signal: i32) {
    for pid in pids {
        // SAFETY: kill(2) takes two integers; these are processes of this test's own database.
        unsafe { libc::kill(*pid, signal) };
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_survives_a_minute_without_postgres() -> Result<()> {
    let service = Service::start().await?;
    service.add_tiny_model()?;
    let settings =
        json!({"max_steps": 12_000, "answers": {"rows": 0}, "checkpoint_every": 4000, "evaluate_every": 4000});
    let id = service.tiny_job(&rows::alpaca(40), settings).await?;
    let job = service.client.wait_for(&id, AWAY, |job: &Value| job["progress"]["step"].as_u64() > Some(50)).await?;

    let pids = postgres_pids(&service)?;
    signal(&pids, libc::SIGSTOP);
    let answer = service.client.get(&format!("/v1/fine_tuning/jobs/{id}")).await;
    tokio::time::sleep(AWAY).await;
    signal(&pids, libc::SIGCONT);
    let answer = answer?;
    assert_eq!(answer.status, 503, "{}", answer.body);
    assert!(answer.headers.contains_key("retry-after"));

    let done = service.client.wait_for_success(&id, 4 * AWAY).await?;
    assert_eq!(done["started_at"], job["started_at"]);
    let claims = service.server.log_text().matches("claimed").count();
    assert_eq!(claims, 2, "a validate and a train task: the job was started again instead of going on");
    Ok(())
}
