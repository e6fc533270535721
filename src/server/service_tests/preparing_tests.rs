//! Datasets that are made of others, over the wire.

use axum::{body::Body, http::Method};
use serde_json::{Value, json};

use super::service::{Answer, Form, Service};

async fn upload(service: &Service, filename: &str, content: &str) -> String {
    let form = Form::new().text("purpose", "fine-tune").file(filename, content.as_bytes());
    let file = service.header("x", "y").post_form(form).await.ok();
    file["id"].as_str().unwrap().to_owned()
}

async fn prepare(service: &Service, body: &Value) -> Answer {
    let body = Body::from(body.to_string());
    service.header("x", "y").send(Method::POST, "/v1/files/prepare", Some("application/json"), body).await
}

async fn content(service: &Service, file: &Value) -> String {
    let id = file["id"].as_str().unwrap();
    let answer = service.get(&format!("/v1/files/{id}/content")).await;
    assert_eq!(answer.status, 200);
    String::from_utf8(answer.bytes.to_vec()).unwrap()
}

fn rows(count: usize) -> String {
    let row = |n: usize| json!({"prompt": format!("What is {n}?"), "completion": format!("It is {n}."), "user": format!("u{}", n % 7)});
    (0..count).map(|n| row(n).to_string() + "\n").collect()
}

#[tokio::test]
async fn a_prepared_file_is_a_file_with_a_manifest_and_the_same_bytes_again() {
    let service = Service::start().await;
    let repeated = rows(20) + &rows(5);
    let first = upload(&service, "first.jsonl", &repeated).await;
    let second = upload(&service, "second.csv", "prompt,completion,user\nWhat is red?,Ask me@example.org,u1\n").await;
    let body = json!({
        "files": [{"id": first}, {"id": second, "weight": 2.0}],
        "steps": [
            {"type": "deduplicate"},
            {"type": "redact"},
            {"type": "split", "by": "group", "column": "user", "held_out": 0.2},
            {"type": "shuffle"},
        ],
        "seed": 5,
    });
    let made = prepare(&service, &body).await.ok();
    let (training, held_out) = (&made["training_file"], &made["held_out_file"]);
    assert_eq!((&training["status"], &training["filename"]), (&json!("processed"), &json!("rows-prepared.jsonl")));
    assert_eq!(training["lint"]["format"], "prompt_completion");
    let (train_text, held_text) = (content(&service, training).await, content(&service, held_out).await);
    let users = |text: &str| -> std::collections::BTreeSet<String> {
        text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["user"].to_string()).collect()
    };
    assert!(users(&train_text).is_disjoint(&users(&held_text)) && !held_text.is_empty());
    assert!((train_text.clone() + &held_text).contains("[email_address]"));
    let path = format!("/v1/files/{}/manifest", training["id"].as_str().unwrap());
    let manifest = service.get(&path).await.ok();
    assert_eq!(manifest["object"], "file.manifest");
    assert_eq!((&manifest["seed"], &manifest["training"]["sha256"]), (&json!(5), &training["sha256"]));
    assert_eq!(
        (&manifest["held_out"]["file_id"], &manifest["sources"][0]["file_id"]),
        (&held_out["id"], &json!(first))
    );
    assert_eq!(manifest["sources"][0]["rows_in"], 25);
    let step = &manifest["steps"][0];
    assert_eq!(
        (&step["step"]["type"], &step["rows_in"], &step["rows_out"]),
        (&json!("deduplicate"), &json!(26), &json!(21))
    );
    assert_eq!(step["left_by_rule"], json!({"duplicate_row": 5}));
    assert_eq!(manifest["training"]["rows"], train_text.lines().count());
    let again = prepare(&service, &body).await.ok();
    assert_ne!(again["training_file"]["id"], training["id"]);
    for name in ["training_file", "held_out_file"] {
        assert_eq!(again[name]["sha256"], made[name]["sha256"], "{name}");
    }
    let other = json!({"files": body["files"], "steps": body["steps"], "seed": 6});
    assert_ne!(prepare(&service, &other).await.ok()["training_file"]["sha256"], training["sha256"]);
    let refused = service.get(&format!("/v1/files/{first}/manifest")).await;
    assert_eq!(refused.refusal(), (404, "-", "not_found"));
    // Its sources may go; it stays.
    service.delete(&format!("/v1/files/{first}")).await.ok();
    assert_eq!(service.get(&path).await.ok()["sources"], manifest["sources"]);
}

#[tokio::test]
async fn a_preparation_that_is_asked_for_twice_makes_its_files_once() {
    let service = Service::start().await;
    let file = upload(&service, "rows.jsonl", &rows(3)).await;
    let body = json!({"files": [{"id": file}]}).to_string();
    let ask = async || {
        let caller = service.header("idempotency-key", "once");
        caller.send(Method::POST, "/v1/files/prepare", Some("application/json"), Body::from(body.clone())).await
    };
    let first = ask().await.ok();
    let second = ask().await;
    assert_eq!(second.header("idempotent-replayed"), "true");
    assert_eq!(second.ok(), first);
    assert_eq!(service.get("/v1/files").await.ok()["data"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn what_does_not_go_together_is_refused_by_name() {
    let service = Service::start().await;
    let good = upload(&service, "rows.jsonl", &rows(3)).await;
    let broken = upload(&service, "broken.jsonl", &(rows(2) + "no json\n")).await;
    let chat = r#"{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}"#;
    let chat = upload(&service, "chat.jsonl", chat).await;
    let steps = |steps: Value| json!({"files": [{"id": good}], "steps": steps});
    let stranger = "file-00000000000070008000000000000000";
    for (body, refusal, words) in [
        (json!({"files": []}), (400, "files", "invalid_value"), "1 to 32"),
        (json!({"files": [{"id": stranger}]}), (404, "files[0].id", "not_found"), "does not exist"),
        (json!({"files": [{"id": good}, {"id": broken}]}), (400, "files[1].id", "invalid_training_file"), "`drop`"),
        (json!({"files": [{"id": good}, {"id": chat}]}), (400, "files[1].id", "invalid_value"), "holds chat rows"),
        (json!({"files": [{"id": good}], "step": []}), (400, "step", "unknown_parameter"), "unknown field"),
        (steps(json!([{"type": "sort"}])), (400, "steps[0].type", "invalid_value"), "unknown variant `sort`"),
        (steps(json!(vec![json!({"type": "shuffle"}); 17])), (400, "steps", "invalid_value"), "at most 16"),
        (steps(json!([{"type": "drop", "rules": ["x"]}])), (400, "steps[0].rules", "invalid_value"), "no rule"),
        (
            steps(json!([{"type": "split", "by": "group", "column": "team", "held_out": 0.1}])),
            (400, "steps[0].column", "invalid_value"),
            "no field `team`; it has `prompt`, `completion`, `user`",
        ),
        (
            steps(json!([{"type": "filter_length", "unit": "characters", "max": 1}])),
            (400, "steps[0]", "invalid_value"),
            "no row to train on is left",
        ),
        (
            steps(json!([{"type": "filter_length", "unit": "tokens", "max": 1, "model": "gpt-9"}])),
            (400, "steps[0].model", "model_not_found"),
            "gpt-9",
        ),
    ] {
        let answer = prepare(&service, &body).await;
        assert_eq!(answer.refusal(), refusal, "{body}: {}", answer.body);
        assert!(answer.message().contains(words), "{body}: {}", answer.message());
    }
    let mended = json!({"files": [{"id": broken}], "steps": [{"type": "drop", "rules": ["json_invalid"]}]});
    let mended = prepare(&service, &mended).await.ok();
    assert_eq!(
        (&mended["training_file"]["status"], &mended["manifest"]["training"]["rows"]),
        (&json!("processed"), &json!(2))
    );
    assert_eq!(mended["manifest"]["sources"][0]["left_by_rule"], json!({"json_invalid": 1}));
    let files = service.get("/v1/files").await.ok();
    assert_eq!(files["data"].as_array().unwrap().len(), 4, "a refused preparation leaves nothing");
}
