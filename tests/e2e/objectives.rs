//! Every objective from a request to its figures: weighted rows, documents, token rows and preferences.

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

async fn done(service: &Service, rows: &str, settings: Value) -> Result<Value> {
    let mut all = json!({"batch_size": 4, "max_steps": 6, "optimizer": {"learning_rate": 1e-2}});
    all.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
    let id = service.tiny_job(rows, all).await?;
    service.client.wait_for_success(&id, JOB).await.with_context(|| settings.to_string())
}

fn lines(count: usize, row: impl Fn(usize) -> Value) -> String {
    (0..count).map(|index| row(index).to_string() + "\n").collect()
}

/// Pairs as OpenAI spells them, or as ShareGPT does.
fn pairs(count: usize, sharegpt: bool) -> String {
    let (good, bad) = (["red", "green", "blue"], ["no idea", "who knows", "ask again"]);
    lines(count, |i| {
        let question = format!("Which colour has number {i}?");
        if sharegpt {
            let said = |from: &str, value: &str| json!({"from": from, "value": value});
            return json!({
                "conversations": [said("human", &question)],
                "chosen": said("gpt", good[i % 3]), "rejected": said("gpt", bad[i % 3]),
            });
        }
        let answer = |text: &str| json!([{"role": "assistant", "content": text}]);
        json!({
            "input": {"messages": [{"role": "user", "content": question}]},
            "preferred_output": answer(good[i % 3]), "non_preferred_output": answer(bad[i % 3]),
        })
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn preferences_are_learned_and_their_rewards_measured() -> Result<()> {
    let service = service().await?;
    for sharegpt in [false, true] {
        let hyperparameters = json!({"beta": 0.2, "label_smoothing": 0.05, "n_epochs": "auto"});
        let method = json!({"type": "dpo", "dpo": {"hyperparameters": hyperparameters}});
        let job = done(&service, &pairs(20, sharegpt), json!({ "method": method })).await?;
        assert_eq!(job["effective"]["objective"], json!({"type": "dpo", "beta": 0.2, "label_smoothing": 0.05}));
        assert_eq!(job["method"]["dpo"]["hyperparameters"]["beta"], 0.2);
        let figure = |who: &str, name: &str| job["evaluation"][who]["preference"][name].as_f64().unwrap();
        let loss = |who: &str| job["evaluation"][who]["loss"].as_f64().unwrap();
        assert!((loss("base") - std::f64::consts::LN_2).abs() < 1e-9 && figure("base", "reward_margin") == 0.0);
        assert!(loss("tuned") < loss("base") && figure("tuned", "reward_margin") > 0.0, "{}", job["evaluation"]);
        let path = format!("/v1/fine_tuning/jobs/{}/metrics", job["id"].as_str().unwrap());
        let metrics = service.client.get(&path).await?.success()?.to_string();
        for name in ["train_reward_accuracy", "train_reward_margin", "valid_reward_accuracy", "valid_reward_margin"] {
            assert!(metrics.contains(name), "{name} is missing in {metrics}");
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_tokens_and_weighted_rows_are_learned() -> Result<()> {
    let service = service().await?;
    let documents = lines(20, |i| json!({"text": format!("Number {i}. {}", "the sun rose and set ".repeat(4))}));
    let tokens = lines(20, |i| {
        let ids: Vec<usize> = (0..12).map(|at| 10 + (7 * i + 3 * at) % 60).collect();
        let labels = ids.iter().enumerate().map(|(at, id)| if at < 4 { -100 } else { *id as i64 });
        json!({"input_ids": ids, "labels": labels.collect::<Vec<_>>()})
    });
    let weighted = lines(20, |i| {
        let turn = |role: &str, content: &str| json!({"role": role, "content": content});
        let mut first = turn("assistant", "red");
        first["weight"] = json!(i % 2);
        json!({"weight": 0.5, "messages": [turn("user", &format!("{i}?")), first, turn("user", "And?"), turn("assistant", "blue")]})
    });
    let cases = [
        (documents, json!({"max_seq_len": 32}), "text"),
        (tokens, json!({}), "tokens"),
        (weighted, json!({"answers": {"rows": 0}}), "chat"),
    ];
    for (rows, settings, format) in cases {
        let job = done(&service, &rows, settings).await?;
        assert_eq!(job["effective"]["objective"], json!({"type": "supervised"}), "{format}");
        let loss = |who: &str| job["evaluation"][who]["loss"].as_f64().unwrap();
        assert!(loss("tuned") < loss("base"), "{format}: {}", job["evaluation"]);
        assert!(job["evaluation"]["answers"].is_null(), "{format}");
        let file =
            service.client.get(&format!("/v1/files/{}", job["training_file"].as_str().unwrap())).await?.success()?;
        assert_eq!(file["lint"]["format"], format);
        if format == "text" {
            assert!(job["dataset"]["train_rows"].as_u64().unwrap() > 18, "pieces of documents: {}", job["dataset"]);
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_go_together_is_refused_by_name() -> Result<()> {
    let service = service().await?;
    let dpo = json!({"type": "dpo"});
    let documents = lines(4, |i| json!({"text": format!("Document {i}.")}));
    for (rows, settings, param) in [
        (rows::alpaca(4), json!({ "method": dpo }), "method.type"),
        (documents.clone(), json!({ "method": dpo }), "method.type"),
        (pairs(4, false), json!({}), "method.type"),
        (pairs(4, false), json!({"method": dpo, "train_on_prompt": true}), "train_on_prompt"),
        (documents.clone(), json!({"template": "chat"}), "template"),
        (documents, json!({"answers": {"rows": 2}}), "answers.rows"),
    ] {
        let file = service.client.upload("rows.jsonl", rows).await?;
        let mut body = json!({"model": "tiny-chat", "training_file": file["id"]});
        body.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
        let refused = service.client.post("/v1/fine_tuning/jobs", &body).await?.refusal(400)?;
        assert_eq!(refused["param"], param, "{settings}: {refused}");
    }
    let weighted = service.client.upload("rows.jsonl", "{\"text\": \"x\", \"weight\": 2}\n").await?;
    assert_eq!(
        (&weighted["status"], &weighted["lint"]["by_rule"][0]["rule"]),
        (&json!("error"), &json!("not_supported"))
    );
    Ok(())
}
