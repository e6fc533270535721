//! Webhooks through the built program and the official package.

use anyhow::Result;
use finetuned_tests::{Service, ServiceOptions, python, rows};
use serde_json::Value;

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_are_managed_and_deliveries_verified_with_the_official_package() -> Result<()> {
    let environment = vec![("FINETUNED_ALLOW_OUTBOUND".to_owned(), "127.0.0.1".to_owned())];
    let service =
        Service::start_with(ServiceOptions { environment, without_worker: true, ..Default::default() }).await?;
    service.add_tiny_model()?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("rows.jsonl");
    std::fs::write(&file, rows::chat(24))?;
    let output = python::run("webhooks.py", &[&service.client.url, "tiny-chat", &file.to_string_lossy()]).await?;
    let seen: Value = serde_json::from_str(output.trim())?;
    assert_eq!(seen["received"], 6);
    // What no log may hold.
    let log = service.server.log_text();
    assert!(log.contains("webhook.attempted"), "{log}");
    for secret in seen["secrets"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        assert!(!log.contains(&secret["whsec_".len()..]));
    }
    Ok(())
}
