//! Reading, listing and controlling jobs.

use serde_json::{Value, json};

use super::service::{BASE_MODEL, Service};

fn id(object: &Value) -> &str {
    object["id"].as_str().unwrap_or_default()
}

#[tokio::test]
async fn lists_page_and_filter() {
    let service = Service::start().await;
    let file = service.training_file().await;
    let mut jobs = Vec::new();
    for metadata in [json!({"team": "a", "run": "1"}), json!(null), json!({"team": "b"})] {
        let request = json!({"model": BASE_MODEL, "training_file": file, "metadata": metadata});
        jobs.push(service.create_job(request).await.ok());
    }
    let listed = async |query: &str| {
        let page = service.get(&format!("/v1/fine_tuning/jobs{query}")).await.ok();
        let data = page["data"].as_array().cloned().unwrap_or_default();
        assert_eq!(page["first_id"], data.first().map_or(Value::Null, |job| job["id"].clone()));
        assert_eq!(page["last_id"], data.last().map_or(Value::Null, |job| job["id"].clone()));
        let found: Vec<usize> =
            data.iter().filter_map(|job| jobs.iter().position(|known| known["id"] == job["id"])).collect();
        (found, page["has_more"] == true)
    };
    assert_eq!(listed("").await, (vec![2, 1, 0], false));
    assert_eq!(listed("?limit=2").await, (vec![2, 1], true));
    assert_eq!(listed(&format!("?limit=2&after={}", id(&jobs[1]))).await, (vec![0], false));
    assert_eq!(listed("?metadata%5Bteam%5D=a").await, (vec![0], false));
    assert_eq!(listed("?metadata[team]=a&metadata[run]=2").await, (vec![], false));
    assert_eq!(listed("?metadata=null").await, (vec![1], false));
    for (query, param) in [
        ("?limit=101", "limit"),
        ("?limit=x", "limit"),
        ("?after=ftjob-1", "after"),
        ("?metadata=team", "metadata"),
        ("?status=queued", "status"),
    ] {
        let refused = service.get(&format!("/v1/fine_tuning/jobs{query}")).await;
        assert_eq!((refused.status, refused.refusal().1), (400, param), "{}", refused.body);
    }
}

#[tokio::test]
async fn cancel_pause_and_resume() {
    let service = Service::start().await;
    let path = format!("/v1/fine_tuning/jobs/{}", id(&service.job().await));
    let paused = service.post(&format!("{path}/pause")).await.ok();
    assert_eq!(paused["paused"], true, "{paused}");
    // Strict clients know six states.
    assert!(["queued", "validating_files"].contains(&paused["status"].as_str().unwrap_or_default()), "{paused}");
    assert_eq!(service.post(&format!("{path}/pause")).await.ok()["paused"], true);
    assert_eq!(service.post(&format!("{path}/resume")).await.ok()["paused"], false);
    let cancelled = service.post(&format!("{path}/cancel")).await.ok();
    assert_eq!(cancelled["status"], "cancelled");
    assert!(cancelled["finished_at"].is_i64(), "{cancelled}");
    assert_eq!(service.post(&format!("{path}/cancel")).await.ok(), cancelled);
    for control in ["pause", "resume"] {
        let refused = service.post(&format!("{path}/{control}")).await;
        assert_eq!(refused.refusal(), (400, "-", "invalid_state"), "{control}");
        assert_eq!(refused.header("x-should-retry"), "false");
    }
}

#[tokio::test]
async fn controls_take_no_body() {
    let service = Service::start().await;
    let path = format!("/v1/fine_tuning/jobs/{}/cancel", id(&service.job().await));
    let caller = service.header("x", "y");
    let send = async |body: &'static str| {
        let body = axum::body::Body::from(body);
        caller.send(axum::http::Method::POST, &path, Some("application/json"), body).await
    };
    assert_eq!(send("{\"reason\": \"x\"}").await.refusal(), (400, "-", "invalid_body"));
    assert_eq!(send("{}").await.status, 200);
}

#[tokio::test]
async fn a_new_job_has_a_first_event_and_nothing_else_yet() {
    let service = Service::start().await;
    let path = format!("/v1/fine_tuning/jobs/{}", id(&service.job().await));
    let events = service.get(&format!("{path}/events")).await.ok();
    assert_eq!((events["data"].as_array().map(Vec::len), &events["has_more"]), (Some(1), &false.into()));
    assert_eq!(service.get(&format!("{path}/checkpoints")).await.ok()["data"], json!([]));
    assert_eq!(service.get(&format!("{path}/metrics")).await.ok()["series"], json!({}));
    assert_eq!(service.get(&format!("{path}/artifacts")).await.ok()["data"], json!([]));
    let adapter = service.get(&format!("{path}/adapter")).await;
    assert_eq!(adapter.refusal(), (404, "-", "not_found"));
    assert!(adapter.message().contains("validating_files"), "{}", adapter.message());
}

#[tokio::test]
async fn a_priority_is_set_at_creation_and_changed_by_patch() {
    let service = Service::start().await;
    let file = service.training_file().await;
    let request = json!({"model": BASE_MODEL, "training_file": file, "priority": 5});
    let job = service.create_job(request).await.ok();
    assert_eq!(job["priority"], 5);
    let path = format!("/v1/fine_tuning/jobs/{}", id(&job));
    let patch = async |body: Value| {
        let body = axum::body::Body::from(body.to_string());
        service.header("x", "y").send(axum::http::Method::PATCH, &path, Some("application/json"), body).await
    };
    assert_eq!(patch(json!({"priority": -7})).await.ok()["priority"], -7);
    assert_eq!(service.get(&path).await.ok()["priority"], -7);
    for body in [json!({"priority": 101}), json!({"priority": "high"}), json!({}), json!({"priority": 1, "seed": 2})] {
        assert_eq!(patch(body.clone()).await.status, 400, "{body}");
    }
    let request = json!({"model": BASE_MODEL, "training_file": file, "priority": 1000});
    assert_eq!(service.create_job(request).await.refusal().1, "priority");
    service.post(&format!("{path}/cancel")).await.ok();
    assert_eq!(patch(json!({"priority": 1})).await.refusal().2, "invalid_state");
}

#[tokio::test]
async fn a_retry_is_a_new_job_and_is_made_once() {
    let service = Service::start().await;
    let path = format!("/v1/fine_tuning/jobs/{}", id(&service.job().await));
    assert_eq!(service.post(&format!("{path}/retry")).await.refusal().2, "invalid_state");
    let old = service.post(&format!("{path}/cancel")).await.ok();
    let keyed = service.header("idempotency-key", "again");
    let made = keyed.post(&format!("{path}/retry")).await.ok();
    assert_eq!(made["retry_of"], old["id"]);
    assert_eq!((made["status"].as_str(), &made["seed"]), (Some("validating_files"), &old["seed"]));
    assert_eq!(keyed.post(&format!("{path}/retry")).await.ok()["id"], made["id"]);
    assert_ne!(service.post(&format!("{path}/retry")).await.ok()["id"], made["id"]);
    assert_eq!(service.get(&path).await.ok()["status"], "cancelled");
    assert_eq!(service.get(&format!("{path}/logs")).await.ok()["data"], json!([]));
}
