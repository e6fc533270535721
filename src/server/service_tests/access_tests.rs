//! Who may do what, as a table of every operation. An operation that the document has and the table lacks fails.

use std::{collections::BTreeMap, time::Duration};

use axum::{body::Body, http::Method};
use finetuned_protocol::{
    access::Scope::{self, Admin, Rate, Read, Write},
    ids::ProjectId,
    webhooks::WebhookEventType,
};
use finetuned_store::{KeyGrant, NewWebhookEndpoint};
use secrecy::ExposeSecret;
use serde_json::Value;

use super::{
    service::{Answer, Service},
    training,
};
use crate::openapi;

#[derive(Clone, Copy, PartialEq)]
enum Access {
    /// Nobody is asked for a key.
    Open,
    /// A key with the scope; what is seen are the caller's own things.
    Own(Scope),
    /// The same, and the path names an object: another tenant's is like one that was never made.
    Object(Scope),
}
use Access::{Object, Open, Own};

const TABLE: &[(&str, Access)] = &[
    ("DELETE /v1/files/{file_id}", Object(Write)),
    ("DELETE /v1/fine_tuning/checkpoints/{fine_tuned_model_checkpoint}/permissions/{permission_id}", Object(Admin)),
    ("DELETE /v1/models/{model}", Object(Write)),
    ("DELETE /v1/rating_tasks/{rating_task_id}", Object(Write)),
    ("DELETE /v1/webhook_endpoints/{webhook_endpoint_id}", Object(Admin)),
    ("GET /healthz", Open),
    ("GET /metrics", Open),
    ("GET /openapi.json", Open),
    ("GET /readyz", Open),
    ("GET /v1/files", Own(Read)),
    ("GET /v1/files/{file_id}", Object(Read)),
    ("GET /v1/files/{file_id}/content", Object(Read)),
    ("GET /v1/files/{file_id}/diff", Object(Read)),
    ("GET /v1/files/{file_id}/lint", Object(Read)),
    ("GET /v1/files/{file_id}/lint/findings", Object(Read)),
    ("GET /v1/files/{file_id}/manifest", Object(Read)),
    ("GET /v1/files/{file_id}/rows", Object(Read)),
    ("GET /v1/files/{file_id}/statistics", Object(Read)),
    ("GET /v1/fine_tuning/checkpoints/{fine_tuned_model_checkpoint}/permissions", Object(Admin)),
    ("GET /v1/fine_tuning/jobs", Own(Read)),
    ("GET /v1/fine_tuning/jobs/{fine_tuning_job_id}", Object(Read)),
    ("GET /v1/fine_tuning/jobs/{fine_tuning_job_id}/adapter", Object(Read)),
    ("GET /v1/fine_tuning/jobs/{fine_tuning_job_id}/artifacts", Object(Read)),
    ("GET /v1/fine_tuning/jobs/{fine_tuning_job_id}/artifacts/{name}", Object(Read)),
    ("GET /v1/fine_tuning/jobs/{fine_tuning_job_id}/checkpoints", Object(Read)),
    ("GET /v1/fine_tuning/jobs/{fine_tuning_job_id}/compare", Object(Read)),
    ("GET /v1/fine_tuning/jobs/{fine_tuning_job_id}/evaluation", Object(Read)),
    ("GET /v1/fine_tuning/jobs/{fine_tuning_job_id}/evaluation/mend", Object(Read)),
    ("GET /v1/fine_tuning/jobs/{fine_tuning_job_id}/evaluation/rows", Object(Read)),
    ("GET /v1/fine_tuning/jobs/{fine_tuning_job_id}/evaluations", Object(Read)),
    ("GET /v1/fine_tuning/jobs/{fine_tuning_job_id}/events", Object(Read)),
    ("GET /v1/fine_tuning/jobs/{fine_tuning_job_id}/logs", Object(Read)),
    ("GET /v1/fine_tuning/jobs/{fine_tuning_job_id}/merged", Object(Read)),
    ("GET /v1/fine_tuning/jobs/{fine_tuning_job_id}/metrics", Object(Read)),
    ("GET /v1/models", Own(Read)),
    ("GET /v1/models/{model}", Object(Read)),
    ("GET /v1/organization/audit_logs", Own(Admin)),
    ("GET /v1/organization/limits", Own(Admin)),
    ("GET /v1/organization/projects", Own(Admin)),
    ("GET /v1/organization/projects/{project_id}", Object(Admin)),
    ("GET /v1/organization/usage/fine_tuning", Own(Admin)),
    ("GET /v1/rating_tasks", Own(Read)),
    ("GET /v1/rating_tasks/{rating_task_id}", Object(Read)),
    ("GET /v1/rating_tasks/{rating_task_id}/agreement", Object(Read)),
    ("GET /v1/rating_tasks/{rating_task_id}/ratings", Object(Read)),
    ("GET /v1/uploads/{upload_id}", Object(Read)),
    ("GET /v1/uploads/{upload_id}/parts", Object(Read)),
    ("GET /v1/webhook_endpoints", Own(Admin)),
    ("GET /v1/webhook_endpoints/{webhook_endpoint_id}", Object(Admin)),
    ("GET /v1/webhook_endpoints/{webhook_endpoint_id}/deliveries", Object(Admin)),
    ("GET /v1/webhook_event_types", Own(Admin)),
    ("PATCH /v1/fine_tuning/jobs/{fine_tuning_job_id}", Object(Write)),
    ("POST /v1/chat/completions", Own(Write)),
    ("POST /v1/completions", Own(Write)),
    ("POST /v1/files", Own(Write)),
    ("POST /v1/files/prepare", Own(Write)),
    ("POST /v1/files/{file_id}/versions", Object(Write)),
    ("POST /v1/fine_tuning/checkpoints/{fine_tuned_model_checkpoint}/permissions", Object(Admin)),
    ("POST /v1/fine_tuning/jobs", Own(Write)),
    ("POST /v1/fine_tuning/jobs/estimate", Own(Write)),
    ("POST /v1/fine_tuning/jobs/{fine_tuning_job_id}/cancel", Object(Write)),
    ("POST /v1/fine_tuning/jobs/{fine_tuning_job_id}/evaluation", Object(Write)),
    ("POST /v1/fine_tuning/jobs/{fine_tuning_job_id}/pause", Object(Write)),
    ("POST /v1/fine_tuning/jobs/{fine_tuning_job_id}/resume", Object(Write)),
    ("POST /v1/fine_tuning/jobs/{fine_tuning_job_id}/retry", Object(Write)),
    ("POST /v1/fine_tuning/jobs/{fine_tuning_job_id}/start", Object(Write)),
    ("POST /v1/organization/projects", Own(Admin)),
    ("POST /v1/rating_tasks", Own(Write)),
    ("POST /v1/rating_tasks/{rating_task_id}/next", Object(Rate)),
    ("POST /v1/rating_tasks/{rating_task_id}/ratings", Object(Rate)),
    ("POST /v1/rating_tasks/{rating_task_id}/ratings/export", Object(Write)),
    ("POST /v1/uploads", Own(Write)),
    ("POST /v1/uploads/{upload_id}/cancel", Object(Write)),
    ("POST /v1/uploads/{upload_id}/complete", Object(Write)),
    ("POST /v1/uploads/{upload_id}/parts", Object(Write)),
    ("POST /v1/webhook_endpoints", Own(Admin)),
    ("POST /v1/webhook_endpoints/{webhook_endpoint_id}", Object(Admin)),
    ("POST /v1/webhook_endpoints/{webhook_endpoint_id}/deliveries/{delivery_id}/replay", Object(Admin)),
    ("POST /v1/webhook_endpoints/{webhook_endpoint_id}/rotate_secret", Object(Admin)),
    ("POST /v1/webhook_endpoints/{webhook_endpoint_id}/test", Object(Admin)),
];

/// `GET /v1/files` and the like, of the generated document.
fn documented() -> Vec<String> {
    let document = serde_json::to_value(openapi()).expect("the document is JSON");
    let paths = document["paths"].as_object().expect("paths");
    let operations = paths.iter().flat_map(|(path, item)| {
        item.as_object().into_iter().flatten().map(move |(method, _)| format!("{} {path}", method.to_uppercase()))
    });
    let mut operations: Vec<String> = operations.collect();
    operations.sort();
    operations
}

#[test]
fn every_operation_is_in_the_table() {
    let listed: Vec<&str> = TABLE.iter().map(|(operation, _)| *operation).collect();
    assert_eq!(documented(), listed, "an operation is missing here, or no longer exists");
}

/// A service where `default` owns one of everything, with keys of several kinds.
struct Stage {
    service: Service,
    /// Ids of the owner's objects by the name of the path parameter.
    objects: BTreeMap<&'static str, String>,
    other: String,
    expired: String,
    revoked: String,
}

impl Stage {
    async fn set() -> Self {
        let service = Service::start().await;
        let store = service.database.store.clone();
        let (endpoint, delivery) = told_of(&service, training::succeed(&service)).await;
        let job = service.get("/v1/fine_tuning/jobs").await.ok()["data"][0].clone();
        let model = job["fine_tuned_model"].as_str().unwrap_or_default();
        let tenant = store.default_caller().await.expect("the tenant").tenant;
        let permissions = store.create_permissions(tenant, model, &[tenant]).await.expect("a permission");
        let permission = permissions[0].id.to_string();
        let text = |name: &str| job[name].as_str().unwrap_or_default().to_owned();
        let objects = BTreeMap::from([
            ("file_id", text("training_file")),
            ("fine_tuning_job_id", text("id")),
            ("model", text("fine_tuned_model").replace('/', "%2F")),
            ("name", "adapter_config.json".to_owned()),
            ("fine_tuned_model_checkpoint", text("fine_tuned_model").replace('/', "%2F")),
            ("permission_id", permission),
            ("project_id", ProjectId::from(tenant).to_string()),
            ("rating_task_id", rating_task_of(&service, &text("id")).await),
            ("upload_id", upload_of(&service).await),
            ("webhook_endpoint_id", endpoint),
            ("delivery_id", delivery),
        ]);
        let other = key(&service, "other", Scope::ALL).await;
        let grant = KeyGrant { expires_after: Some(Duration::ZERO), ..KeyGrant::default() };
        let expired = store.create_key("default", "expired", &grant).await.expect("a key");
        let revoked = store.create_key("default", "revoked", &KeyGrant::default()).await.expect("a key");
        store.revoke_key(revoked.id).await.expect("revoked");
        let secret = |key: finetuned_store::NewKey| key.secret.expose_secret().to_owned();
        Self { service, objects, other, expired: secret(expired), revoked: secret(revoked) }
    }

    fn path(&self, template: &str) -> String {
        let parts =
            template.split('/').map(|part| match part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) {
                Some(name) => self.objects.get(name).expect("an object of this kind").clone(),
                None => part.to_owned(),
            });
        parts.collect::<Vec<_>>().join("/") + query_of(template)
    }

    async fn send(&self, operation: &str, key: &str) -> Answer {
        let (method, template) = operation.split_once(' ').expect("a method and a path");
        self.send_to((method, &self.path(template)), key, "").await
    }

    async fn send_to(&self, (method, path): (&str, &str), key: &str, body: &'static str) -> Answer {
        let method: Method = method.parse().expect("a method");
        let content_type = [Method::POST, Method::PATCH].contains(&method).then_some("application/json");
        self.service.header("api-key", key).send(method, path, content_type, Body::from(body)).await
    }
}

/// Parameters that are right, so that an object that is not there is what is wrong.
fn query_of(template: &str) -> &'static str {
    match template.rsplit_once('/').map_or("", |(_, last)| last) {
        "rows" if template.contains("/files/") => "?line=1&model=none",
        "statistics" => "?model=none",
        "diff" => "?with=file-00000000000070008000000000000000",
        "compare" => "?with=ftjob-00000000000070008000000000000000",
        "fine_tuning" => "?start_time=0&end_time=1",
        _ => "",
    }
}

/// A body that is right, so that an object that is not there is what is wrong.
fn body_of(operation: &str) -> &'static str {
    match operation.rsplit_once('/').map_or("", |(_, last)| last) {
        "test" => r#"{"event_type": "fine_tuning.job.failed"}"#,
        "complete" => r#"{"part_ids": ["part_00000000000070008000000000000000"]}"#,
        "ratings" => r#"{"item_id": "ritem_00000000000070008000000000000000", "choice": "a"}"#,
        "export" => r#"{"format": "preference"}"#,
        "permissions" => r#"{"project_ids": ["proj_00000000000070008000000000000000"]}"#,
        "{fine_tuning_job_id}" if operation.starts_with("PATCH") => r#"{"priority": 1}"#,
        "{webhook_endpoint_id}" if operation.starts_with("POST") => "{}",
        _ => "",
    }
}

/// A webhook endpoint of `default` that is told of what `happening` does: its id and its delivery's.
async fn told_of(service: &Service, happening: impl Future<Output = Value>) -> (String, String) {
    let store = &service.database.store;
    let tenant = store.default_caller().await.expect("the tenant").tenant;
    let new = NewWebhookEndpoint {
        name: "hook".into(),
        url: "https://example.com/hook".into(),
        event_types: WebhookEventType::ALL.to_vec(),
        secret: "whsec_AAAA".to_owned().into(),
    };
    let endpoint = store.create_webhook_endpoint(tenant, &new).await.expect("an endpoint").id;
    happening.await;
    let told = store.list_webhook_deliveries(tenant, endpoint, None, 1).await.expect("deliveries");
    (endpoint.to_string(), told.data[0].id.to_string())
}

/// A rating task of `default`.
async fn rating_task_of(service: &Service, job: &str) -> String {
    let request = serde_json::json!({ "fine_tuning_job_id": job }).to_string();
    let plain = service.header("x", "y");
    let made = plain.send(Method::POST, "/v1/rating_tasks", Some("application/json"), Body::from(request)).await.ok();
    made["id"].as_str().expect("an id").to_owned()
}

/// An upload of `default`.
async fn upload_of(service: &Service) -> String {
    let request = r#"{"filename": "a", "purpose": "batch", "bytes": 1, "mime_type": "text/plain"}"#;
    let plain = service.header("x", "y");
    let begun = plain.send(Method::POST, "/v1/uploads", Some("application/json"), Body::from(request)).await.ok();
    begun["id"].as_str().expect("an id").to_owned()
}

async fn key(service: &Service, tenant: &str, scopes: &[Scope]) -> String {
    let grant = KeyGrant { scopes: scopes.to_vec(), expires_after: None };
    let key = service.database.store.create_key(tenant, "a key", &grant).await.expect("a key");
    key.secret.expose_secret().to_owned()
}

#[tokio::test]
async fn keys_that_do_not_work_open_nothing() {
    let stage = Stage::set().await;
    let forged = format!("{}0", &stage.other[..stage.other.len() - 1]);
    let wrong = ["", "ft-", "sk-1", forged.as_str(), &stage.expired, &stage.revoked];
    for (operation, access) in TABLE {
        for key in wrong {
            let answer = stage.send(operation, key).await;
            let refused = (answer.status, answer.body["error"]["code"].as_str()) == (401, Some("invalid_api_key"));
            assert_eq!(refused, *access != Open, "{operation} with `{key}`: {}", answer.status);
        }
    }
}

#[tokio::test]
async fn a_key_does_what_its_scope_says_and_no_more() {
    let stage = Stage::set().await;
    let mut narrow = BTreeMap::new();
    for scope in Scope::ALL {
        narrow.insert(*scope, key(&stage.service, "default", &[*scope]).await);
    }
    let mut table = TABLE.to_vec();
    // What deletes comes last.
    table.sort_by_key(|(operation, _)| operation.starts_with("DELETE"));
    for (operation, access) in table {
        let (Own(scope) | Object(scope)) = access else { continue };
        for (given, key) in &narrow {
            if *given == scope {
                continue;
            }
            let answer = stage.send(operation, key).await;
            assert_eq!(answer.refusal(), (403, "-", "insufficient_scope"), "{operation} with `{given}`");
            assert!(answer.message().contains(scope.as_str()), "{operation}: {}", answer.message());
        }
        let allowed = stage.send(operation, &narrow[&scope]).await;
        // The job of this stage asked for no merged model, and its file was uploaded.
        let lacks = |ending: &str, said: &str| operation.ends_with(ending) && allowed.message().contains(said);
        let lacks_it = lacks("/merged", "has no merged model") || lacks("/manifest", "has no manifest");
        assert!(![401, 403, 404].contains(&allowed.status) || lacks_it, "{operation} with `{scope}`: {}", allowed.body);
    }
}

#[tokio::test]
async fn anothers_object_is_like_one_that_never_was() {
    let stage = Stage::set().await;
    let strangers: BTreeMap<&str, &str> = BTreeMap::from([
        ("file_id", "file-00000000000070008000000000000000"),
        ("fine_tuning_job_id", "ftjob-00000000000070008000000000000000"),
        ("model", "ft:nothing:default::0"),
        ("name", "adapter_config.json"),
        ("fine_tuned_model_checkpoint", "ft:nothing:default::0"),
        ("permission_id", "cp_00000000000070008000000000000000"),
        ("project_id", "proj_00000000000070008000000000000000"),
        ("rating_task_id", "rtask_00000000000070008000000000000000"),
        ("upload_id", "upload_00000000000070008000000000000000"),
        ("webhook_endpoint_id", "we_00000000000070008000000000000000"),
        ("delivery_id", "whd_00000000000070008000000000000000"),
    ]);
    for (operation, access) in TABLE {
        match access {
            Open => {}
            Own(_) => {
                let answer = stage.send(operation, &stage.other).await;
                assert!(![401, 403, 404].contains(&answer.status), "{operation}: {}", answer.body);
            }
            Object(_) => {
                let (method, template) = operation.split_once(' ').expect("a method and a path");
                let body = body_of(operation);
                let foreign = stage.send_to((method, &stage.path(template)), &stage.other, body).await;
                let mut path = template.to_owned();
                let (mut theirs, mut nobodys) = (foreign.body.to_string(), String::new());
                for (name, id) in &strangers {
                    path = path.replace(&format!("{{{name}}}"), id);
                    theirs = theirs.replace(&stage.objects[name].replace("%2F", "/"), "ID");
                }
                path.push_str(query_of(template));
                let unknown = stage.send_to((method, &path), &stage.other, body).await;
                nobodys.push_str(&unknown.body.to_string());
                strangers.values().for_each(|id| nobodys = nobodys.replace(id, "ID"));
                assert_eq!((foreign.status, unknown.status), (404, 404), "{operation}");
                assert_eq!(theirs, nobodys, "{operation} tells that the object exists");
            }
        }
    }
    let reader = key(&stage.service, "default", &[Read]).await;
    let job = stage.send("GET /v1/fine_tuning/jobs/{fine_tuning_job_id}", &reader).await.ok();
    assert_eq!(job["status"], "succeeded", "nothing was done to the owner's things");
}
