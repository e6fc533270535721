//! The generated document: complete, and true about who may call.

use axum::{body::Body, http::Method};
use jsonschema::Validator;
use serde_json::{Value, json};

use super::service::Service;
use crate::{openapi, openapi_yaml};

/// Operations that ask for no key. A new operation is either added here on purpose or needs one.
const OPEN: [&str; 4] = ["GET /healthz", "GET /metrics", "GET /openapi.json", "GET /readyz"];

fn document() -> Value {
    serde_json::to_value(openapi()).expect("the document is JSON")
}

fn operations(document: &Value) -> Vec<(String, String, Value)> {
    let paths = document["paths"].as_object().expect("paths");
    let all = paths.iter().flat_map(|(path, item)| {
        item.as_object()
            .into_iter()
            .flatten()
            .map(move |(method, operation)| (method.to_uppercase(), path.clone(), operation.clone()))
    });
    all.collect()
}

#[tokio::test]
async fn every_operation_but_the_listed_ones_asks_for_a_key() {
    let service = Service::with(|options| options.listen = ([0, 0, 0, 0], 8080).into()).await;
    let mut open = Vec::new();
    for (method, path, operation) in operations(&document()) {
        let concrete = path.split('/').map(|part| if part.starts_with('{') { "x" } else { part });
        let concrete = concrete.collect::<Vec<_>>().join("/");
        let parsed: Method = method.parse().expect("a method");
        let answer = service.header("x", "y").send(parsed, &concrete, None, Body::empty()).await;
        let listed = OPEN.contains(&format!("{method} {path}").as_str());
        assert_eq!(answer.status == 401, !listed, "{method} {path} answered {}", answer.status);
        assert_eq!(operation.get("security").is_some(), !listed, "{method} {path}");
        if listed {
            open.push(format!("{method} {path}"));
        }
    }
    open.sort();
    assert_eq!(open, OPEN);
}

#[test]
fn every_operation_of_the_work_is_there() {
    let document = document();
    let mut found: Vec<String> =
        operations(&document).iter().map(|(method, path, _)| format!("{method} {path}")).collect();
    found.sort();
    insta::assert_snapshot!(found.join("\n"), @r"
    DELETE /v1/files/{file_id}
    DELETE /v1/fine_tuning/checkpoints/{fine_tuned_model_checkpoint}/permissions/{permission_id}
    DELETE /v1/models/{model}
    DELETE /v1/rating_tasks/{rating_task_id}
    DELETE /v1/webhook_endpoints/{webhook_endpoint_id}
    GET /healthz
    GET /metrics
    GET /openapi.json
    GET /readyz
    GET /v1/files
    GET /v1/files/{file_id}
    GET /v1/files/{file_id}/content
    GET /v1/files/{file_id}/diff
    GET /v1/files/{file_id}/lint
    GET /v1/files/{file_id}/lint/findings
    GET /v1/files/{file_id}/manifest
    GET /v1/files/{file_id}/rows
    GET /v1/files/{file_id}/statistics
    GET /v1/fine_tuning/checkpoints/{fine_tuned_model_checkpoint}/permissions
    GET /v1/fine_tuning/jobs
    GET /v1/fine_tuning/jobs/{fine_tuning_job_id}
    GET /v1/fine_tuning/jobs/{fine_tuning_job_id}/adapter
    GET /v1/fine_tuning/jobs/{fine_tuning_job_id}/artifacts
    GET /v1/fine_tuning/jobs/{fine_tuning_job_id}/artifacts/{name}
    GET /v1/fine_tuning/jobs/{fine_tuning_job_id}/checkpoints
    GET /v1/fine_tuning/jobs/{fine_tuning_job_id}/compare
    GET /v1/fine_tuning/jobs/{fine_tuning_job_id}/evaluation
    GET /v1/fine_tuning/jobs/{fine_tuning_job_id}/evaluation/mend
    GET /v1/fine_tuning/jobs/{fine_tuning_job_id}/evaluation/rows
    GET /v1/fine_tuning/jobs/{fine_tuning_job_id}/evaluations
    GET /v1/fine_tuning/jobs/{fine_tuning_job_id}/events
    GET /v1/fine_tuning/jobs/{fine_tuning_job_id}/logs
    GET /v1/fine_tuning/jobs/{fine_tuning_job_id}/merged
    GET /v1/fine_tuning/jobs/{fine_tuning_job_id}/metrics
    GET /v1/models
    GET /v1/models/{model}
    GET /v1/organization/audit_logs
    GET /v1/organization/limits
    GET /v1/organization/projects
    GET /v1/organization/projects/{project_id}
    GET /v1/organization/usage/fine_tuning
    GET /v1/rating_tasks
    GET /v1/rating_tasks/{rating_task_id}
    GET /v1/rating_tasks/{rating_task_id}/agreement
    GET /v1/rating_tasks/{rating_task_id}/ratings
    GET /v1/uploads/{upload_id}
    GET /v1/uploads/{upload_id}/parts
    GET /v1/webhook_endpoints
    GET /v1/webhook_endpoints/{webhook_endpoint_id}
    GET /v1/webhook_endpoints/{webhook_endpoint_id}/deliveries
    GET /v1/webhook_event_types
    PATCH /v1/fine_tuning/jobs/{fine_tuning_job_id}
    POST /v1/chat/completions
    POST /v1/completions
    POST /v1/files
    POST /v1/files/prepare
    POST /v1/files/{file_id}/versions
    POST /v1/fine_tuning/checkpoints/{fine_tuned_model_checkpoint}/permissions
    POST /v1/fine_tuning/jobs
    POST /v1/fine_tuning/jobs/estimate
    POST /v1/fine_tuning/jobs/{fine_tuning_job_id}/cancel
    POST /v1/fine_tuning/jobs/{fine_tuning_job_id}/evaluation
    POST /v1/fine_tuning/jobs/{fine_tuning_job_id}/pause
    POST /v1/fine_tuning/jobs/{fine_tuning_job_id}/resume
    POST /v1/fine_tuning/jobs/{fine_tuning_job_id}/retry
    POST /v1/fine_tuning/jobs/{fine_tuning_job_id}/start
    POST /v1/organization/projects
    POST /v1/rating_tasks
    POST /v1/rating_tasks/{rating_task_id}/next
    POST /v1/rating_tasks/{rating_task_id}/ratings
    POST /v1/rating_tasks/{rating_task_id}/ratings/export
    POST /v1/uploads
    POST /v1/uploads/{upload_id}/cancel
    POST /v1/uploads/{upload_id}/complete
    POST /v1/uploads/{upload_id}/parts
    POST /v1/webhook_endpoints
    POST /v1/webhook_endpoints/{webhook_endpoint_id}
    POST /v1/webhook_endpoints/{webhook_endpoint_id}/deliveries/{delivery_id}/replay
    POST /v1/webhook_endpoints/{webhook_endpoint_id}/rotate_secret
    POST /v1/webhook_endpoints/{webhook_endpoint_id}/test
    ");
}

#[test]
fn every_reference_of_the_document_leads_somewhere() {
    let document = document();
    let mut missing = Vec::new();
    references(&document, &mut |reference| {
        let pointer = reference.trim_start_matches('#');
        if document.pointer(pointer).is_none() {
            missing.push(reference.to_owned());
        }
    });
    assert!(missing.is_empty(), "{missing:?}");
    assert!(openapi_yaml().expect("yaml").starts_with("openapi: 3.1"));
}

fn references(value: &Value, each: &mut impl FnMut(&str)) {
    match value {
        Value::Object(pairs) => {
            if let Some(reference) = pairs.get("$ref").and_then(Value::as_str) {
                each(reference);
            }
            pairs.values().for_each(|value| references(value, each));
        }
        Value::Array(items) => items.iter().for_each(|value| references(value, each)),
        _ => {}
    }
}

fn ours(schema: &str) -> Validator {
    let root = json!({"$ref": format!("#/components/schemas/{schema}"), "components": document()["components"]});
    jsonschema::validator_for(&root).expect("our schema compiles")
}

#[tokio::test]
async fn answers_are_what_our_own_document_says() {
    let service = Service::start().await;
    let job = service.job().await;
    let file = service.get("/v1/files?limit=1").await.ok()["data"][0].clone();
    let lint = service.get(&format!("/v1/files/{}/lint", file["id"].as_str().unwrap_or_default())).await.ok();
    let models = service.get("/v1/models").await.ok();
    let error = service.get("/v1/files/x").await.body;
    for (schema, answer) in [
        ("FineTuningJob", &job),
        ("FileObject", &file),
        ("LintReport", &lint),
        ("ModelList", &models),
        ("ErrorResponse", &error),
    ] {
        let faults: Vec<String> =
            ours(schema).iter_errors(answer).map(|error| format!("{}: {error}", error.instance_path())).collect();
        assert!(faults.is_empty(), "{schema}: {faults:#?}\n{answer:#}");
    }
}

#[test]
fn requests_that_the_wire_format_allows_are_allowed_by_our_document() {
    let request = ours("CreateJobRequest");
    for body in [
        json!({"model": "m", "training_file": "file-1"}),
        json!({"model": "m", "training_file": "file-1", "batch_size": "auto", "n_epochs": 3, "lora": {"r": 8}}),
        json!({"model": "m", "training_file": "file-1", "hyperparameters": {"learning_rate_multiplier": 0.5}}),
        json!({"model": "m", "training_file": "file-1", "suffix": null, "seed": null, "metadata": {"a": "b"}}),
    ] {
        assert!(request.is_valid(&body), "{body}");
    }
    assert!(!request.is_valid(&json!({"model": "m", "training_file": "file-1", "n_epochs": []})));
}
