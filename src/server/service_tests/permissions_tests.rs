//! A tuned model that is shown to another tenant, and hidden again.

use axum::{body::Body, http::Method};
use finetuned_protocol::ids::ProjectId;
use finetuned_store::KeyGrant;
use secrecy::ExposeSecret;
use serde_json::json;

use super::{
    service::{Answer, BASE_MODEL, Caller, GOOD_ROWS, Service},
    training,
};

async fn post(client: &Caller<'_>, path: &str, body: serde_json::Value) -> Answer {
    client.send(Method::POST, path, Some("application/json"), Body::from(body.to_string())).await
}

#[tokio::test]
async fn a_shared_model_is_seen_and_not_touched() {
    let service = Service::start().await;
    let job = training::succeed(&service).await;
    let store = &service.database.store;
    let mine = store.create_key("default", "a key", &KeyGrant::default()).await.expect("a key");
    let project = async |name: &str| store.create_project(mine.tenant, name).await.expect("a project");
    let (project, third) = (project("research").await, project("support").await);
    let theirs = store.create_key("default.research", "a key", &KeyGrant::default()).await.expect("a key");
    assert_eq!(project.id, theirs.tenant.into());
    let (owner, other) = (
        service.header("api-key", mine.secret.expose_secret()),
        service.header("api-key", theirs.secret.expose_secret()),
    );
    let name = job["fine_tuned_model"].as_str().unwrap_or_default();
    let encoded = name.replace('/', "%2F");
    let (path, model) = (format!("/v1/fine_tuning/checkpoints/{encoded}/permissions"), format!("/v1/models/{encoded}"));
    assert_eq!(other.get(&model).await.status, 404);

    let projects = json!({"project_ids": [project.id.to_string(), third.id.to_string()]});
    let made = post(&owner, &path, projects.clone()).await.ok();
    assert_eq!((made["object"].as_str(), made["data"].as_array().map(Vec::len)), (Some("list"), Some(2)));
    assert_eq!(post(&owner, &path, projects).await.ok()["data"], made["data"], "once is enough");
    assert_eq!(made["data"][0]["project_id"], project.id.to_string());
    let listed = owner.get(&format!("{path}?limit=1")).await.ok();
    assert_eq!((&listed["data"][0], &listed["has_more"]), (&made["data"][1], &json!(true)));
    let after = listed["last_id"].as_str().unwrap_or_default();
    let listed = owner.get(&format!("{path}?after={after}")).await.ok();
    assert_eq!((&listed["data"], &listed["has_more"]), (&json!([made["data"][0]]), &json!(false)));
    let upwards = owner.get(&format!("{path}?order=ascending")).await.ok();
    assert_eq!(upwards["data"], made["data"]);
    let one = owner.get(&format!("{path}?project_id={}", third.id)).await.ok();
    assert_eq!(one["data"], json!([made["data"][1]]));

    // Seen, with its owner's name, and nothing more.
    let seen = other.get(&model).await.ok();
    assert_eq!((seen["id"].as_str(), seen["owned_by"].as_str()), (Some(name), Some(mine.tenant.to_string().as_str())));
    assert!(
        other.get("/v1/models").await.ok()["data"].as_array().into_iter().flatten().any(|found| found["id"] == name)
    );
    let deleted = other.send(Method::DELETE, &model, None, Body::empty()).await;
    assert_eq!(deleted.status, 404);
    assert_eq!(other.get(&path).await.status, 404, "who else sees it is the owner's affair");
    let file = other.upload("fine-tune", GOOD_ROWS.as_bytes()).await.ok();
    for request in [
        json!({"model": name, "training_file": file["id"]}),
        json!({"model": BASE_MODEL, "continue_from": name, "training_file": file["id"]}),
    ] {
        assert_eq!(other.create_job(request).await.status, 400);
    }

    let id = made["data"][0]["id"].as_str().unwrap_or_default();
    let gone = owner.send(Method::DELETE, &format!("{path}/{id}"), None, Body::empty()).await.ok();
    assert_eq!(gone, json!({"id": id, "object": "checkpoint.permission", "deleted": true}));
    assert_eq!(other.get(&model).await.status, 404);
}

#[tokio::test]
async fn what_cannot_be_shared_is_said() {
    let service = Service::start().await;
    let job = training::succeed(&service).await;
    let name = job["fine_tuned_model"].as_str().unwrap_or_default().replace('/', "%2F");
    let at = |name: &str| format!("/v1/fine_tuning/checkpoints/{name}/permissions");
    let stranger = service.database.store.create_key("globex", "a key", &KeyGrant::default()).await.expect("a key");
    let key = service.database.store.create_key("default", "a key", &KeyGrant::default()).await.expect("a key");
    let plain = service.header("api-key", key.secret.expose_secret());
    let nobody = json!({"project_ids": ["proj_00000000000070008000000000000000"]});
    let foreign = json!({"project_ids": [ProjectId::from(stranger.tenant).to_string()]});
    let (unknown, refused) = (post(&plain, &at(&name), nobody.clone()).await, post(&plain, &at(&name), foreign).await);
    assert_eq!((refused.refusal(), refused.message()), ((400, "project_ids", "invalid_value"), unknown.message()));
    assert_eq!(post(&plain, &at(&name), nobody.clone()).await.refusal(), (400, "project_ids", "invalid_value"));
    assert_eq!(
        post(&plain, &at(&name), json!({"project_ids": []})).await.refusal(),
        (400, "project_ids", "invalid_value")
    );
    assert_eq!(post(&plain, &at(&name), json!({"project_ids": ["x"]})).await.status, 400);
    assert_eq!(post(&plain, &at("ft:nothing"), nobody.clone()).await.status, 404);
    let step = post(&plain, &at(&format!("{name}:ckpt-step-2")), nobody).await;
    assert!(step.status == 404 && step.message().contains("finished model"), "{}", step.message());
    assert_eq!(plain.get(&format!("{}?order=up", at(&name))).await.refusal(), (400, "order", "invalid_value"));
}
