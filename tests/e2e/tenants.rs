//! Tenants see only their own.

use anyhow::{Context, Result};
use finetuned_tests::{Service, ServiceOptions, rows};
use serde_json::json;

fn secret(output: &str) -> Result<&str> {
    output.split_whitespace().find(|word| word.starts_with("ft-")).context("no key was shown")
}

#[tokio::test(flavor = "multi_thread")]
async fn anothers_objects_are_not_found() -> Result<()> {
    let service = Service::start_with(ServiceOptions { without_worker: true, ..Default::default() }).await?;
    service.add_tiny_model()?;
    let mine_output = service.run(&["keys", "create", "--tenant", "mine", "laptop"])?;
    let theirs_output = service.run(&["keys", "create", "--tenant", "theirs", "laptop"])?;
    // From the first key on, nobody is let in without one.
    service.client.get("/v1/files").await?.refusal(401)?;
    service.client.with_key("ft-wrong").get("/v1/files").await?.refusal(401)?;

    let (mine, theirs) =
        (service.client.with_key(secret(&mine_output)?), service.client.with_key(secret(&theirs_output)?));
    let file = mine.upload("rows.jsonl", rows::alpaca(10)).await?;
    let job = mine.create_job(&json!({"model": "tiny-chat", "training_file": file["id"]})).await?;
    let (file, job) = (file["id"].as_str().unwrap_or_default(), job["id"].as_str().unwrap_or_default());
    for path in [
        format!("/v1/files/{file}"),
        format!("/v1/files/{file}/content"),
        format!("/v1/files/{file}/lint"),
        format!("/v1/fine_tuning/jobs/{job}"),
        format!("/v1/fine_tuning/jobs/{job}/events"),
        format!("/v1/fine_tuning/jobs/{job}/checkpoints"),
        format!("/v1/fine_tuning/jobs/{job}/metrics"),
        format!("/v1/fine_tuning/jobs/{job}/artifacts"),
        format!("/v1/fine_tuning/jobs/{job}/adapter"),
    ] {
        theirs.get(&path).await?.refusal(404).with_context(|| path.clone())?;
    }
    theirs.control(&format!("/v1/fine_tuning/jobs/{job}/cancel")).await?.refusal(404)?;
    theirs.delete(&format!("/v1/files/{file}")).await?.refusal(404)?;
    theirs.post("/v1/fine_tuning/jobs", &json!({"model": "tiny-chat", "training_file": file})).await?.refusal(400)?;
    for list in ["/v1/files", "/v1/fine_tuning/jobs"] {
        assert_eq!(theirs.get(list).await?.success()?["data"], json!([]));
    }
    assert_eq!(mine.get(&format!("/v1/fine_tuning/jobs/{job}")).await?.success()?["id"], job);

    let listed = service.run(&["keys", "list"])?;
    assert!(
        listed.contains("mine") && listed.contains("theirs") && !listed.contains(secret(&mine_output)?),
        "{listed}"
    );
    let of_mine = listed.lines().find(|line| line.contains("mine")).context("the key is not listed")?;
    let id = of_mine.split_whitespace().next().context("no key id is listed")?;
    service.run(&["keys", "revoke", id])?;
    mine.get("/v1/files").await?.refusal(401)?;
    // What no log may hold.
    assert!(!service.server.log_text().contains(secret(&mine_output)?));
    Ok(())
}
