//! A worker inside the server and one beside it share the work.

use std::time::Duration;

use anyhow::Result;
use finetuned_tests::{Service, rows};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn two_workers_share_the_queue() -> Result<()> {
    let mut service = Service::start().await?;
    service.add_tiny_model()?;
    service.start_worker(&[])?;
    let settings = json!({"max_steps": 400, "answers": {"rows": 0}});
    let mut jobs = Vec::new();
    for _ in 0..4 {
        jobs.push(service.tiny_job(&rows::alpaca(40), settings.clone()).await?);
    }
    for id in &jobs {
        service.client.wait_for_success(id, Duration::from_secs(120)).await?;
    }
    // Each claims a task at most while the other is busy, so with eight tasks both must have had some.
    let claims = [service.server.log_text(), service.workers[0].log_text()].map(|log| log.matches("claimed").count());
    assert!(claims.iter().all(|count| *count > 0), "the workers claimed {claims:?} tasks");
    assert_eq!(claims.iter().sum::<usize>(), 2 * jobs.len(), "a validate and a train task each: {claims:?}");
    Ok(())
}
