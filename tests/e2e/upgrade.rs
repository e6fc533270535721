//! An upgrade rehearsed: on the first release's database the present service starts and finishes what waits there; and a
//! worker that finds a database newer than itself finishes its task and declines the next.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use finetuned_tests::{Service, ServiceOptions, postgres, programs::fixture, rows};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const JOB: Duration = Duration::from_secs(180);
/// The key in the dump.
const SECRET: &str = "ft-0123456789abcccccccccccccccccccccccccccccccccccccccccccccccccccc";
const SUCCEEDED: &str = "ftjob-0000106b000070008000000000000001";
const QUEUED: &str = "ftjob-0000106b000070008000000000000002";
const VALIDATING: &str = "ftjob-0000106b000070008000000000000003";
const ADAPTER: &[u8] = b"weights of the first release";

/// Puts the first release's database in the place of the service's own, and its bytes into the store. The server is down.
fn go_back(service: &Service, model_sha256: &str) -> Result<()> {
    let dataset = rows::alpaca(40);
    let blobs: [(&str, &[u8]); 3] = [
        ("0000b10b000070008000000000000001", dataset.as_bytes()),
        ("0000b10b000070008000000000000002", ADAPTER),
        ("0000b10b000070008000000000000003", b"step,train_loss\n1,5.5\n"),
    ];
    for (name, bytes) in blobs {
        let folder = service.data_dir().join("blobs").join(&name[30..]);
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join(name), bytes)?;
    }
    let dump = std::fs::read_to_string(fixture("releases/schema-1.sql"))?
        .replace("@MODEL_PATH@", &fixture("tiny-chat").to_string_lossy())
        .replace("@MODEL_SHA256@", model_sha256)
        .replace("@ROWS_SHA256@", &hex::encode(Sha256::digest(dataset.as_bytes())))
        .replace("@ROWS_BYTES@", &dataset.len().to_string());
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), dump)?;
    postgres::query(service, "drop schema public cascade; create schema public")?;
    postgres::run_file(service, file.path())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_releases_database_is_brought_up_to_date_and_its_jobs_are_finished() -> Result<()> {
    let mut service = Service::start_with(ServiceOptions { without_worker: true, ..Default::default() }).await?;
    service.add_tiny_model()?;
    let model_sha256 = postgres::query(&service, "select sha256 from base_models where name = 'tiny-chat'")?;
    service.server.kill()?;
    go_back(&service, &model_sha256)?;
    assert_eq!(postgres::query(&service, "select version from schema_marker")?, "1");

    service.restart_server().await?;
    ensure!(service.client.get("/v1/models").await?.status == 401, "the key of the dump must be asked for");
    let client = service.client.with_key(SECRET);
    let done = client.job(SUCCEEDED).await?;
    assert_eq!((&done["status"], &done["evaluation"]["tuned"]["loss"]), (&json!("succeeded"), &json!(2.5)));
    assert_eq!(done["effective"]["lora"]["r"], 4);
    assert_eq!(client.adapter_weights(SUCCEEDED).await?, ADAPTER);
    let results = done["result_files"][0].as_str().context("no results")?;
    assert!(client.bytes(&format!("/v1/files/{results}/content")).await?.starts_with(b"step,"));
    for id in [QUEUED, VALIDATING] {
        assert_eq!(client.job(id).await?["waiting_reason"], "no worker is running");
    }
    service.start_worker(&[])?;
    for id in [QUEUED, VALIDATING] {
        let job = client.wait_for_success(id, JOB).await?;
        let loss = |model: &str| job["evaluation"][model]["loss"].as_f64().unwrap_or(f64::NAN);
        assert!(loss("tuned") < loss("base"), "{job:#}");
        let events = client.get(&format!("/v1/fine_tuning/jobs/{id}/events?limit=100")).await?.success()?;
        let mut numbers: Vec<u64> =
            events["data"].as_array().into_iter().flatten().filter_map(|event| event["sequence"].as_u64()).collect();
        numbers.reverse();
        assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>(), "they go on from those of the dump");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_older_than_the_database_finishes_its_task_and_declines_the_next() -> Result<()> {
    let mut service = Service::start_with(ServiceOptions { without_worker: true, ..Default::default() }).await?;
    service.add_tiny_model()?;
    service.start_worker(&[])?;
    let settings = json!({"max_steps": 1500, "checkpoint_every": 100, "answers": {"rows": 0}});
    let first = service.tiny_job(&rows::alpaca(40), settings.clone()).await?;
    let runs = |job: &Value| job["progress"]["step"].as_u64() > Some(100);
    service.client.wait_for(&first, JOB, runs).await?;
    // As a newer release's migration would.
    postgres::query(&service, "update schema_marker set version = 9999")?;
    let running = service.client.job(&first).await?;
    ensure!(running["status"] == "running", "the job ended before the schema was newer");
    service.client.wait_for_success(&first, JOB).await?;

    let second = service.tiny_job(&rows::alpaca(41), settings).await?;
    let declined = |job: &Value| job["waiting_reason"].as_str().is_some_and(|reason| reason.contains("older"));
    service.client.wait_for(&second, JOB, declined).await?;
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(service.client.job(&second).await?["status"], "validating_files");
    let log = service.workers[0].log_text();
    let said = log.lines().filter(|line| line.contains("claims nothing more until it is updated")).count();
    assert!((1..=3).contains(&said), "once for each of three kinds of task, and not at every look: {log}");

    // A program as old as that does not start on the database either, and says why.
    postgres::query(
        &service,
        "insert into _sqlx_migrations (version, description, success, checksum, execution_time)
         values (9999, 'of a newer release', true, '', 0)",
    )?;
    service.server.stop()?;
    let refused = service.restart_server().await.err().context("a server started on a newer database")?;
    let refused = format!("{refused:#}");
    assert!(refused.contains("schema version 9999") && refused.contains("newer `finetuned`"), "{refused}");
    Ok(())
}
