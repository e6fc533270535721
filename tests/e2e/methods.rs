//! Every method from a request to its files, and on from there.

use std::time::Duration;

use anyhow::{Context, Result};
use finetuned_tests::{Service, rows};
use serde_json::{Value, json};

const JOB: Duration = Duration::from_secs(120);

async fn service() -> Result<Service> {
    let service = Service::start().await?;
    service.add_tiny_model()?;
    Ok(service)
}

async fn done(service: &Service, settings: Value) -> Result<Value> {
    let mut all = json!({"batch_size": 4, "max_steps": 3, "answers": {"rows": 0}});
    all.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
    let id = service.tiny_job(&rows::alpaca(20), all).await?;
    service.client.wait_for_success(&id, JOB).await.with_context(|| settings.to_string())
}

/// Names of the job's files, and one of them as JSON.
async fn files(service: &Service, job: &Value, json: &str) -> Result<(Vec<String>, Value)> {
    let path = format!("/v1/fine_tuning/jobs/{}/artifacts", job["id"].as_str().unwrap());
    let list = service.client.get(&path).await?.success()?;
    let names = list["data"].as_array().unwrap().iter().map(|file| file["name"].as_str().unwrap().to_owned());
    let text = service.client.bytes(&format!("{path}/{json}")).await?;
    Ok((names.collect(), serde_json::from_slice(&text)?))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_method_is_echoed_and_exported() -> Result<()> {
    let service = service().await?;
    for (settings, peft_type) in [
        (json!({"lora": {"use_dora": true, "layers_to_transform": [1], "rank_pattern": {"q_proj": 2}}}), "LORA"),
        (json!({"lora": {"init": "pissa", "r": 4, "loraplus_lr_ratio": 4}}), "LORA"),
        (json!({"lora": {"modules_to_save": ["lm_head"], "trainable_token_indices": [5]}}), "LORA"),
        (json!({"ia3": {}}), "IA3"),
        (json!({"prompt_tuning": {"num_virtual_tokens": 3}}), "PROMPT_TUNING"),
        (json!({"prefix_tuning": {"num_virtual_tokens": 3}}), "PREFIX_TUNING"),
    ] {
        let job = done(&service, settings.clone()).await?;
        let (method, asked) = settings.as_object().unwrap().iter().next().unwrap();
        for (field, value) in asked.as_object().unwrap() {
            let echoed = &job["effective"][method][field];
            assert!(echoed == value || echoed.as_f64() == value.as_f64(), "{settings}: {echoed}");
        }
        assert_eq!(job["parity"]["largest_reload_difference"], 0.0, "{settings}");
        let (names, config) = files(&service, &job, "adapter_config.json").await?;
        assert!(names.iter().any(|name| name == "adapter_model.safetensors"), "{names:?}");
        assert_eq!(config["peft_type"], peft_type, "{settings}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_trained_whole_is_a_base_model_again() -> Result<()> {
    let service = service().await?;
    for settings in [json!({"full": {}}), json!({"full": {"last_layers": 1}})] {
        let job = done(&service, settings.clone()).await?;
        assert_eq!(job["effective"]["full"]["last_layers"], settings["full"]["last_layers"], "{settings}");
        let (names, config) = files(&service, &job, "config.json").await?;
        for name in ["generation_config.json", "model.safetensors", "tokenizer.json"] {
            assert!(names.iter().any(|other| other == name), "{name} is missing in {names:?}");
        }
        assert_eq!((&config["model_type"], &config["dtype"]), (&json!("llama"), &json!("float32")));
        let id = job["id"].as_str().unwrap();
        let on = json!({"model": job["model"], "training_file": job["training_file"], "continue_from": id});
        let refused = service.client.post("/v1/fine_tuning/jobs", &on).await?.refusal(400)?;
        assert_eq!(refused["param"], "continue_from", "{refused}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn training_goes_on_from_a_tuned_model() -> Result<()> {
    let service = service().await?;
    let settings = json!({"lora": {"init": "pissa", "r": 4}, "optimizer": {"learning_rate": 5e-3}});
    let first = done(&service, settings).await?;
    let name = first["fine_tuned_model"].as_str().unwrap();
    let still = json!({"continue_from": name, "optimizer": {"learning_rate": 1e-12}});
    let second = done(&service, still).await?;
    assert_eq!(second["effective"]["continue_from"], first["id"]);
    assert_eq!(
        (&second["effective"]["lora"]["r"], &second["effective"]["lora"]["init"]),
        (&json!(8), &json!("default"))
    );
    let loss = |job: &Value, who: &str| job["evaluation"][who]["loss"].as_f64().unwrap();
    assert!((loss(&second, "tuned") - loss(&first, "tuned")).abs() < 1e-6, "{second:#}");
    assert!(
        (loss(&second, "base") - loss(&first, "base")).abs() < 1e-9 && loss(&first, "tuned") < loss(&first, "base")
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn training_goes_on_from_an_uploaded_adapter() -> Result<()> {
    let service = service().await?;
    let first = done(&service, json!({"lora": {"r": 4}, "optimizer": {"learning_rate": 5e-3}})).await?;
    let path = format!("/v1/fine_tuning/jobs/{}/artifacts", first["id"].as_str().unwrap());
    let mut ids = Vec::new();
    for name in ["adapter_config.json", "adapter_model.safetensors"] {
        let bytes = service.client.bytes(&format!("{path}/{name}")).await?;
        ids.push(service.client.upload_for("user_data", name, bytes).await?["id"].clone());
    }
    let from = json!({"adapter_config": ids[0], "adapter_model": ids[1]});
    let still = json!({"continue_from_files": from, "optimizer": {"learning_rate": 1e-12}});
    let second = done(&service, still).await?;
    assert_eq!(second["effective"]["lora"]["r"], json!(4));
    let loss = |job: &Value, who: &str| job["evaluation"][who]["loss"].as_f64().unwrap();
    assert!((loss(&second, "tuned") - loss(&first, "tuned")).abs() < 1e-6, "{second:#}");
    assert!(loss(&first, "tuned") < loss(&first, "base"));

    // What is no config is refused at once; tensors that do not fit end the job with their names.
    let job = |from: Value| json!({"model": first["model"], "training_file": first["training_file"], "continue_from_files": from});
    let create = async |from: Value| service.client.post("/v1/fine_tuning/jobs", &job(from)).await;
    for (from, param) in [
        (json!({"adapter_config": ids[1], "adapter_model": ids[1]}), "continue_from_files.adapter_config"),
        (json!({"adapter_config": ids[0], "adapter_model": "file-x"}), "continue_from_files.adapter_model"),
    ] {
        let error = create(from).await?.refusal(400)?;
        assert_eq!(error["param"], param, "{error}");
    }
    let mut config: Value =
        serde_json::from_slice(&service.client.bytes(&format!("{path}/adapter_config.json")).await?)?;
    config["r"] = json!(2);
    let wrong = service.client.upload_for("user_data", "adapter_config.json", config.to_string()).await?["id"].clone();
    let created = create(json!({"adapter_config": wrong, "adapter_model": ids[1]})).await?.success()?;
    let id = created["id"].as_str().unwrap();
    let failed = service.client.wait_for(id, JOB, |job| job["status"] == "failed").await?;
    let message = failed["error"]["message"].as_str().unwrap();
    assert!(message.matches("has shape").count() > 4, "{message}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn further_forms_of_the_result_are_left_where_they_are_asked_for() -> Result<()> {
    let service = service().await?;
    let asked = json!(["gguf_lora", "gguf_q8_0", "merged", "gguf_f16"]);
    let job = done(&service, json!({"lora": {"r": 4}, "export": asked})).await?;
    assert_eq!(job["effective"]["export"], json!(["merged", "gguf_f16", "gguf_q8_0", "gguf_lora"]));
    let (names, config) = files(&service, &job, "merged.config.json").await?;
    assert_eq!(config["model_type"], "llama");
    for name in ["adapter.gguf", "model-f16.gguf", "model-q8_0.gguf", "merged.model.safetensors"] {
        assert!(names.iter().any(|known| known == name), "{name} of {names:?}");
    }
    let id = job["id"].as_str().unwrap();
    let members = async |what: &str| -> Result<Vec<String>> {
        let tar = service.client.bytes(&format!("/v1/fine_tuning/jobs/{id}/{what}")).await?;
        let mut archive = tar::Archive::new(tar.as_slice());
        let names = archive.entries()?.map(|entry| Ok(entry?.path()?.display().to_string()));
        names.collect()
    };
    let adapter = members("adapter").await?;
    assert!(adapter.iter().any(|name| name == "adapter_model.safetensors"), "{adapter:?}");
    assert!(!adapter.iter().any(|name| name.contains("gguf") || name.contains("merged")), "{adapter:?}");
    let merged = members("merged").await?;
    let expected =
        ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"];
    assert!(expected.iter().all(|name| merged.iter().any(|known| known == name)), "{merged:?}");
    let refused = json!({"model": job["model"], "training_file": job["training_file"], "prefix_tuning": {}, "export": ["merged"]});
    let error = service.client.post("/v1/fine_tuning/jobs", &refused).await?.refusal(400)?;
    assert_eq!(error["param"], "export", "{error}");
    Ok(())
}
