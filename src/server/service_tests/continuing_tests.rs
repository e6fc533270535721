//! Going on from a tuned model.

use serde_json::{Value, json};

use super::{
    service::{BASE_MODEL, Service},
    training,
};

#[tokio::test]
async fn a_tuned_model_is_gone_on_from_in_either_spelling() {
    let service = Service::start().await;
    let job = training::succeed(&service).await;
    let (name, id, file) = (&job["fine_tuned_model"], &job["id"], &job["training_file"]);
    for request in [
        json!({"model": name, "training_file": file}),
        json!({"model": name, "continue_from": name, "training_file": file}),
        json!({"model": BASE_MODEL, "continue_from": name, "training_file": file}),
        json!({"model": BASE_MODEL, "continue_from": id, "training_file": file}),
    ] {
        let created = service.create_job(request.clone()).await.ok();
        assert_eq!(created["model"], BASE_MODEL, "{request}");
    }
}

#[tokio::test]
async fn what_cannot_be_gone_on_from_is_refused() {
    let service = Service::start().await;
    let job = training::succeed(&service).await;
    let (name, id, file) = (&job["fine_tuned_model"], &job["id"], &job["training_file"]);
    let unfinished = service.create_job(json!({"model": BASE_MODEL, "training_file": file})).await.ok();
    for (extra, param, words) in [
        (json!({"continue_from": "ft:nobody:knows::it"}), "continue_from", "no tuned model and no job"),
        (json!({"continue_from": BASE_MODEL}), "continue_from", "no tuned model and no job"),
        (json!({"continue_from": "ftjob-00000000000000000000000000000000"}), "continue_from", "no tuned model"),
        (json!({"continue_from": unfinished["id"]}), "continue_from", "its job is `validating_files`"),
        (json!({"model": name, "continue_from": unfinished["id"]}), "continue_from", "name different models"),
        (json!({"continue_from": id, "lora": {"r": 8}}), "lora", "absent where `continue_from`"),
        (json!({"model": name, "full": {}}), "full", "absent where `continue_from`"),
    ] {
        let mut request = json!({"model": BASE_MODEL, "training_file": file});
        for (field, value) in extra.as_object().into_iter().flatten() {
            request[field] = value.clone();
        }
        let answer = service.create_job(request).await;
        assert_eq!(answer.refusal(), (400, param, "invalid_value"), "{extra}: {}", answer.body);
        assert!(answer.message().contains(words), "{extra}: {}", answer.message());
    }
    let jobs = service.get("/v1/fine_tuning/jobs").await.ok();
    assert_eq!(jobs["data"].as_array().map(Vec::<Value>::len), Some(2));
}
