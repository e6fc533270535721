//! Starting and stopping: fast, small, and clear about what is in the way.

use std::time::Duration;

use anyhow::Result;
use finetuned_tests::{Service, ServiceOptions};

/// A server is ready within this time on a data directory that exists.
const READY: Duration = Duration::from_secs(3);
const IDLE_BYTES: u64 = 40 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_second_start_is_fast_and_the_idle_server_small() -> Result<()> {
    let mut service = Service::start().await?;
    let status = service.server.stop()?;
    assert!(status.success(), "SIGTERM ended it with {status}");
    let took = service.restart_server().await?;
    println!("ready {took:?} after the start on an existing data directory");
    assert!(took <= READY, "ready only after {took:?}");
    tokio::time::sleep(Duration::from_secs(2)).await;
    let resident = service.server.resident_bytes()?;
    println!("idle server: {} MB resident", resident >> 20);
    assert!(resident <= IDLE_BYTES, "{} MB resident", resident >> 20);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_starts_again_on_its_data() -> Result<()> {
    let mut service = Service::start_with(ServiceOptions { without_worker: true, ..Default::default() }).await?;
    let file = service.client.upload("rows.jsonl", finetuned_tests::rows::alpaca(5)).await?;
    service.server.kill()?;
    service.restart_server().await?;
    let path = format!("/v1/files/{}", file["id"].as_str().unwrap_or_default());
    assert_eq!(service.client.get(&path).await?.success()?["status"], "processed");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_is_named() -> Result<()> {
    let service = Service::start_with(ServiceOptions { without_worker: true, ..Default::default() }).await?;
    let listen = format!("127.0.0.1:{}", service.port());
    let error = service.run(&["serve", "--no-worker", "--listen", &listen]).unwrap_err().to_string();
    assert!(error.contains(&service.port().to_string()) && error.contains("--listen"), "{error}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn other_addresses_want_a_key_first() -> Result<()> {
    let service = Service::start_with(ServiceOptions { without_worker: true, ..Default::default() }).await?;
    let error = service.run(&["serve", "--no-worker", "--listen", "0.0.0.0:0"]).unwrap_err().to_string();
    assert!(error.contains("keys create"), "{error}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_of_a_newer_version_is_refused() -> Result<()> {
    let mut service = Service::start_with(ServiceOptions { without_worker: true, ..Default::default() }).await?;
    service.server.stop()?;
    let version = service.data_dir().join("postgres/PG_VERSION");
    assert!(version.exists(), "{} is not where the cluster is", version.display());
    std::fs::write(&version, "99\n")?;
    let error = service.restart_server().await.unwrap_err().to_string();
    std::fs::write(&version, "18\n")?;
    assert!(error.contains("99") && error.contains("newer"), "{error}");
    Ok(())
}
