//! Every code that a job's `error` may have, provoked: what a client reads then. `engine_crashed` and `engine_stuck` are
//! in `lossless.rs`, `out_of_disk_space` in `disk.rs`.

use std::{os::unix::fs::PermissionsExt, path::Path, time::Duration};

use anyhow::{Context, Result};
use finetuned_tests::{Service, ServiceOptions, programs::fixture, rows};
use serde_json::{Value, json};

const JOB: Duration = Duration::from_secs(120);

/// The `error` of a job that must fail, after a look at what every error has.
async fn error_of(service: &Service, id: &str) -> Result<Value> {
    let is_over = |job: &Value| matches!(job["status"].as_str(), Some("succeeded" | "failed" | "cancelled"));
    let job = service.client.wait_for(id, JOB, is_over).await?;
    assert_eq!(job["status"], "failed", "{job:#}");
    let error = job["error"].clone();
    for field in ["code", "message", "hint", "blame"] {
        assert!(error[field].as_str().is_some_and(|text| !text.is_empty()), "no {field} in {error:#}");
    }
    assert_eq!(error["attempt"], 1, "{error:#}");
    Ok(error)
}

fn copy_model(to: &Path, change: impl Fn(&str, &mut Vec<u8>)) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(fixture("tiny-chat"))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let mut bytes = std::fs::read(entry.path())?;
        change(&name, &mut bytes);
        std::fs::write(to.join(name), bytes)?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn files_models_and_numbers_that_cannot_be_used_are_told_by_code() -> Result<()> {
    let service = Service::start().await?;
    service.add_tiny_model()?;
    let rows = rows::alpaca(20);

    let id = service.tiny_job(&rows, json!({"max_seq_len": 8})).await?;
    let error = error_of(&service, &id).await?;
    assert_eq!(
        (&error["code"], &error["blame"], &error["param"]),
        (&json!("invalid_training_file"), &json!("user"), &json!("training_file")),
        "{error:#}"
    );

    // A template that refuses one row of the validation file.
    let bad = rows::chat(4)
        + "{\"messages\": [{\"role\": \"user\", \"content\": \"forbidden\"}, {\"role\": \"assistant\", \"content\": \"no\"}]}\n";
    let file = service.client.upload("valid.jsonl", bad).await?;
    let template = "{% for message in messages %}{% if message.content == 'forbidden' %}{{ raise_exception('forbidden') }}{% endif %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
    let id = service.tiny_job(&rows::chat(20), json!({"validation_file": file["id"], "template": template})).await?;
    let error = error_of(&service, &id).await?;
    assert_eq!(
        (&error["code"], &error["param"]),
        (&json!("invalid_validation_file"), &json!("validation_file")),
        "{error:#}"
    );
    assert_eq!(error["details"][0]["line"], 5, "{error:#}");

    // Weights that became nonsense after the model was added: not a number, then cut short.
    let nan = service.data_dir().join("nan");
    copy_model(&nan, |name, bytes| {
        if name.ends_with(".safetensors") {
            let end = bytes.len();
            bytes[end - 4096..].iter_mut().for_each(|byte| *byte = 0xff);
        }
    })?;
    service.run(&["models", "add", &nan.to_string_lossy(), "--name", "nan"])?;
    let id = service.tiny_job(&rows, json!({"model": "nan", "max_steps": 5, "answers": {"rows": 0}})).await?;
    let error = error_of(&service, &id).await?;
    assert_eq!((&error["code"], &error["blame"]), (&json!("non_finite"), &json!("user")), "{error:#}");

    let cut = service.data_dir().join("cut");
    copy_model(&cut, |_, _| {})?;
    service.run(&["models", "add", &cut.to_string_lossy(), "--name", "cut"])?;
    copy_model(&cut, |name, bytes| {
        if name.ends_with(".safetensors") {
            bytes.truncate(bytes.len() - 100);
        }
    })?;
    let id = service.tiny_job(&rows, json!({"model": "cut", "max_steps": 5, "answers": {"rows": 0}})).await?;
    let error = error_of(&service, &id).await?;
    assert_eq!((&error["code"], &error["blame"]), (&json!("invalid_model"), &json!("system")), "{error:#}");
    Ok(())
}

/// What only a rare engine says, said by one of paper: the worker and the API pass it on unchanged.
#[tokio::test(flavor = "multi_thread")]
async fn what_an_engine_says_reaches_the_client() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let engine = folder.path().join("engine.sh");
    let said = folder.path().join("said");
    let script = format!("#!/bin/sh\necho 'the last words' >&2\ncp {} \"$2/events.jsonl\"\nexit 10\n", said.display());
    std::fs::write(&engine, script)?;
    std::fs::set_permissions(&engine, std::fs::Permissions::from_mode(0o755))?;
    let environment = vec![("FINETUNED_ENGINE".to_owned(), engine.to_string_lossy().into_owned())];
    let service = Service::start_with(ServiceOptions { environment, ..Default::default() }).await?;
    service.add_tiny_model()?;
    for (code, blame) in [
        ("out_of_memory", "capacity"),
        ("export_mismatch", "system"),
        ("internal_error", "system"),
        ("invalid_settings", "user"),
    ] {
        let error = json!({"code": code, "message": format!("provoked {code}"), "param": null});
        let line = json!({"line": 1, "time": 1.0, "type": "failed", "step": 7, "error": error});
        std::fs::write(&said, format!("{line}\n"))?;
        let id = service.tiny_job(&rows::alpaca(20), json!({"max_steps": 5})).await?;
        let error = error_of(&service, &id).await?;
        assert_eq!(
            (&error["code"], &error["blame"], &error["step"]),
            (&json!(code), &json!(blame), &json!(7)),
            "{error:#}"
        );
        let logs = service.client.get(&format!("/v1/fine_tuning/jobs/{id}/logs")).await?.success()?;
        let last = logs["data"][0]["lines"].as_array().context("no lines")?.last().cloned();
        assert_eq!(last, Some(json!("the last words")), "{logs:#}");
    }
    Ok(())
}
