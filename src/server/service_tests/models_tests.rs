//! Models, whose names have slashes.

use serde_json::json;

use super::{
    service::{BASE_MODEL, Service},
    training,
};

const ENCODED: &str = "/v1/models/HuggingFaceTB%2FSmolLM2-135M-Instruct";

#[tokio::test]
async fn base_models_are_seen_and_cannot_be_deleted() {
    let service = Service::start().await;
    let model = service.get(ENCODED).await.ok();
    assert_eq!(
        (&model["id"], &model["kind"], &model["owned_by"]),
        (&BASE_MODEL.into(), &"base".into(), &"system".into())
    );
    assert_eq!(model["facts"]["context_length"], 8192);
    // Where its files lie is the operator's affair.
    assert!(!model.to_string().contains("nowhere"), "{model}");
    assert_eq!(service.get("/v1/models").await.ok()["data"], json!([model]));
    assert_eq!(service.delete(ENCODED).await.refusal(), (400, "-", "invalid_state"));
    assert_eq!(service.get(ENCODED).await.status, 200);
    // An unencoded slash is another route.
    assert_eq!(
        service.get("/v1/models/HuggingFaceTB/SmolLM2-135M-Instruct").await.refusal(),
        (404, "-", "unknown_url")
    );
    for name in ["gpt-4o", "%00", "a%2Fb"] {
        assert_eq!(service.get(&format!("/v1/models/{name}")).await.status, 404, "{name}");
        assert_eq!(service.delete(&format!("/v1/models/{name}")).await.status, 404, "{name}");
    }
}

#[tokio::test]
async fn a_tuned_model_is_listed_until_it_is_deleted() {
    let service = Service::start().await;
    let job = training::succeed(&service).await;
    let name = job["fine_tuned_model"].as_str().unwrap_or_default();
    assert!(name.starts_with(&format!("ft:{BASE_MODEL}:default::")), "{name}");
    let path = format!("/v1/models/{}", name.replace('/', "%2F"));
    let model = service.get(&path).await.ok();
    assert_eq!((&model["id"], &model["kind"]), (&name.into(), &"tuned".into()));
    assert_eq!((&model["base_model"], &model["fine_tuning_job_id"]), (&BASE_MODEL.into(), &job["id"]));
    assert_eq!(model["owned_by"], job["organization_id"]);
    assert_eq!(service.delete(&path).await.ok(), json!({"id": name, "object": "model", "deleted": true}));
    assert_eq!(service.get(&path).await.refusal(), (404, "model", "model_not_found"));
    let artifacts = format!("/v1/fine_tuning/jobs/{}/artifacts", job["id"].as_str().unwrap_or_default());
    assert_eq!(service.get(&artifacts).await.ok()["data"].as_array().map(Vec::len), Some(2));
}
