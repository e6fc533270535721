//! People rate answers without knowing whose they are, and their ratings become rows.

use axum::{body::Body, http::Method};
use finetuned_protocol::access::Scope;
use finetuned_store::KeyGrant;
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use super::{
    service::{Answer, Service},
    training,
};

/// A service whose tenant has two finished jobs, an owner's key and those of two raters, who can do nothing else.
struct Stage {
    service: Service,
    job: Value,
    other_job: Value,
    owner: String,
    raters: [String; 2],
}

impl Stage {
    async fn set() -> Self {
        let service = Service::start().await;
        // Before there is a key, so that none is needed.
        let (job, other_job) = (training::succeed(&service).await, training::succeed(&service).await);
        let owner = key(&service, Scope::ALL).await;
        let raters = [key(&service, &[Scope::Rate]).await, key(&service, &[Scope::Rate]).await];
        Self { service, job, other_job, owner, raters }
    }

    async fn post(&self, key: &str, path: &str, body: Value) -> Answer {
        let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
        self.service.header("api-key", key).send(Method::POST, path, Some("application/json"), body).await
    }

    async fn get(&self, path: &str) -> Value {
        self.service.header("api-key", &self.owner).get(path).await.ok()
    }

    /// The path of a task that is made as asked.
    async fn task(&self, settings: Value) -> String {
        let made = self.post(&self.owner, "/v1/rating_tasks", self.request(settings)).await.ok();
        format!("/v1/rating_tasks/{}", made["id"].as_str().unwrap_or_default())
    }

    fn request(&self, settings: Value) -> Value {
        let mut request = json!({"fine_tuning_job_id": self.job["id"]});
        if let (Some(request), Some(settings)) = (request.as_object_mut(), settings.as_object()) {
            request.extend(settings.clone());
        }
        request
    }

    async fn next(&self, rater: usize, task: &str) -> Value {
        self.post(&self.raters[rater], &format!("{task}/next"), Value::Null).await.ok()
    }

    async fn rate(&self, rater: usize, task: &str, rating: Value) -> Answer {
        self.post(&self.raters[rater], &format!("{task}/ratings"), rating).await
    }
}

async fn key(service: &Service, scopes: &[Scope]) -> String {
    let grant = KeyGrant { scopes: scopes.to_vec(), expires_after: None };
    let key = service.database.store.create_key("default", "a key", &grant).await.expect("a key");
    key.secret.expose_secret().to_owned()
}

/// Who says so has the same mind whatever the order: the answer that is `so, be it` or `so` is better.
fn choice(item: &Value) -> &'static str {
    let is_better = |answer: &Value| answer.as_str().is_some_and(|text| text == "so, be it" || text == "so");
    if is_better(&item["answer_a"]) { "a" } else { "b" }
}

#[tokio::test]
async fn two_raters_agree_and_their_ratings_become_pairs() {
    let stage = Stage::set().await;
    let task = stage.task(json!({"ratings_per_row": 2, "instructions": "Be strict."})).await;
    for rater in [0, 1] {
        for done in 0..2 {
            let next = stage.next(rater, &task).await;
            let item = &next["item"];
            assert_eq!((&next["rated"], &next["remaining"]), (&json!(done), &json!(2 - done)), "{next}");
            assert_eq!((&next["instructions"], &item["reference"]), (&json!("Be strict."), &json!("so, be it")));
            let whose = next.to_string();
            assert!(!["base", "tuned", "ftjob"].iter().any(|tell| whose.contains(tell)), "not blind: {whose}");
            let rating = json!({"item_id": item["id"], "choice": choice(item), "comment": "clear"});
            let given = stage.rate(rater, &task, rating).await.ok();
            assert_eq!(given["item_id"], item["id"]);
        }
        assert_eq!(stage.next(rater, &task).await["item"], Value::Null);
    }
    let state = stage.get(&task).await;
    assert_eq!((&state["rated_items"], &state["ratings"], &state["raters"]), (&json!(2), &json!(4), &json!(2)));
    let agreement = stage.get(&format!("{task}/agreement")).await;
    assert_eq!(agreement["preferences"], json!([{"preferred": "tuned", "ratings": 4, "share": 1.0}]));
    let pair = &agreement["cohen_kappa"][0];
    assert_eq!((&pair["items"], &pair["observed"], &pair["kappa"]), (&json!(2), &json!(1.0), &Value::Null));
    assert_eq!(agreement["krippendorff_alpha"], json!({"items": 2, "values": 4, "alpha": null}));
    let ratings = stage.get(&format!("{task}/ratings?limit=3")).await;
    assert_eq!((&ratings["data"][0]["preferred"], &ratings["has_more"]), (&json!("tuned"), &json!(true)));
    let rest = format!("{task}/ratings?after={}", ratings["last_id"].as_str().unwrap_or_default());
    assert_eq!(stage.get(&rest).await["data"].as_array().map(Vec::len), Some(1));
    let raters: Vec<_> =
        ratings["data"].as_array().into_iter().flatten().map(|rating| rating["rater"].clone()).collect();
    assert!(raters[0] != raters[1] && raters[0].as_str().is_some_and(|key| key.starts_with("key_")), "{raters:?}");
    let export =
        stage.post(&stage.owner, &format!("{task}/ratings/export"), json!({"format": "preference"})).await.ok();
    // To the second row the base model said nothing, which no pair can hold.
    assert_eq!((&export["rows"], &export["rows_left_out"]), (&json!(1), &json!(1)), "{export}");
    assert_eq!(
        (&export["file"]["status"], &export["file"]["lint"]["format"]),
        (&json!("processed"), &json!("preference"))
    );
    let content = format!("/v1/files/{}/content", export["file"]["id"].as_str().unwrap_or_default());
    let content = stage.service.header("api-key", &stage.owner).get(&content).await;
    let row: Value = serde_json::from_slice(&content.bytes).expect("one row");
    assert_eq!(row["preferred_output"][0]["content"], "so, be it");
    assert_eq!(row["input"]["messages"], json!([{"role": "user", "content": "Say it."}]));
    let nothing = stage.post(&stage.owner, &format!("{task}/ratings/export"), json!({"format": "supervised"})).await;
    assert_eq!(nothing.refusal(), (400, "-", "invalid_state"));
}

#[tokio::test]
async fn scores_and_corrections_become_supervised_rows() {
    let stage = Stage::set().await;
    let task = stage.task(json!({"kind": "scale", "sources": ["base", "tuned"], "show_reference": false})).await;
    let mut seen = Vec::new();
    while let Some(item) = stage.next(0, &task).await["item"].as_object().cloned() {
        assert_eq!((&item["reference"], &item["answer_a"]), (&Value::Null, &Value::Null));
        let answer = item["answer"].as_str().unwrap_or_default().to_owned();
        let mut rating = json!({"item_id": item["id"], "score": if answer.is_empty() { 1 } else { 4 }});
        if answer.is_empty() {
            rating["corrected_answer"] = json!("so it is");
        }
        stage.rate(0, &task, rating).await.ok();
        seen.push(answer);
    }
    seen.sort();
    assert_eq!(seen, ["", "so", "so, \"no\"", "so, be it"]);
    let agreement = stage.get(&format!("{task}/agreement")).await;
    let scores = json!([{"source": "base", "ratings": 2, "mean": 2.5}, {"source": "tuned", "ratings": 2, "mean": 4.0}]);
    assert_eq!((&agreement["scores"], &agreement["krippendorff_alpha"]), (&scores, &Value::Null));
    let export =
        stage.post(&stage.owner, &format!("{task}/ratings/export"), json!({"format": "supervised"})).await.ok();
    assert_eq!((&export["rows"], &export["file"]["lint"]["format"]), (&json!(1), &json!("chat")));
}

#[tokio::test]
async fn two_jobs_are_rated_side_by_side() {
    let stage = Stage::set().await;
    let settings = json!({"with": stage.other_job["id"]});
    let refused = stage.post(&stage.owner, "/v1/rating_tasks", stage.request(settings)).await;
    // Both jobs' tuned models say the same here.
    assert_eq!(refused.refusal(), (400, "-", "invalid_state"));
    assert!(refused.message().contains("the 2 rows are the same"), "{}", refused.message());
}

#[tokio::test]
async fn what_cannot_be_rated_is_refused_by_name() {
    let stage = Stage::set().await;
    let unknown = "ftjob-00000000000070008000000000000000";
    for (settings, refusal) in [
        (json!({"fine_tuning_job_id": "x"}), (400, "fine_tuning_job_id", "invalid_value")),
        (json!({"fine_tuning_job_id": unknown}), (400, "fine_tuning_job_id", "invalid_value")),
        (json!({"with": unknown}), (400, "with", "invalid_value")),
        (json!({"kind": "scale", "with": unknown}), (400, "with", "invalid_value")),
        (json!({"kind": "stars"}), (400, "kind", "invalid_value")),
        (json!({"sources": ["base"]}), (400, "sources", "invalid_value")),
        (json!({"kind": "scale", "sources": ["with"]}), (400, "sources", "invalid_value")),
        (json!({"rows": 0}), (400, "rows", "invalid_value")),
        (json!({"ratings_per_row": 11}), (400, "ratings_per_row", "invalid_value")),
        (json!({"category": "rude"}), (400, "category", "invalid_value")),
        (json!({"kind": "scale", "category": "too_short"}), (400, "-", "invalid_state")),
        (json!({"instructions": " "}), (400, "instructions", "invalid_value")),
        (json!({"raters": 3}), (400, "raters", "unknown_parameter")),
    ] {
        let refused = stage.post(&stage.owner, "/v1/rating_tasks", stage.request(settings.clone())).await;
        assert_eq!(refused.refusal(), refusal, "{settings}: {}", refused.message());
    }
    let task = stage.task(json!({})).await;
    let item = stage.next(0, &task).await["item"]["id"].clone();
    for (rating, refusal) in [
        (json!({"item_id": item}), (400, "choice", "invalid_value")),
        (json!({"item_id": item, "choice": "a", "skip": true}), (400, "choice", "invalid_value")),
        (json!({"item_id": item, "score": 3}), (400, "-", "invalid_state")),
        (json!({"item_id": item, "score": 6}), (400, "score", "invalid_value")),
        (json!({"item_id": item, "choice": "c"}), (400, "choice", "invalid_value")),
        (json!({"item_id": "x", "choice": "a"}), (400, "item_id", "invalid_value")),
        (json!({"item_id": item, "choice": "a", "comment": "x".repeat(40_000)}), (400, "comment", "invalid_value")),
    ] {
        assert_eq!(stage.rate(0, &task, rating.clone()).await.refusal(), refusal, "{rating}");
    }
    let other = stage.rate(1, &task, json!({"item_id": item, "choice": "a"})).await;
    assert_eq!(other.refusal(), (400, "-", "invalid_state"));
    let deleted = stage.service.header("api-key", &stage.owner);
    deleted.send(Method::DELETE, &task, None, Body::empty()).await.ok();
    assert_eq!(stage.post(&stage.raters[0], &format!("{task}/next"), Value::Null).await.status, 404);
}
