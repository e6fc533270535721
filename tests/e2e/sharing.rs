//! A worker inside the server and one beside it share the work.

use std::{collections::BTreeSet, time::Duration};

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
    let mut workers = BTreeSet::new();
    for id in &jobs {
        let job = service.client.wait_for_success(id, Duration::from_secs(120)).await?;
        workers.insert(job["worker"].to_string());
    }
    assert_eq!(workers.len(), 2, "only {workers:?} worked");
    Ok(())
}
