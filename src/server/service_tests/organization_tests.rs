//! Projects of an organisation, and what they used.

use axum::{body::Body, http::Method};
use finetuned_protocol::access::Scope;
use finetuned_store::KeyGrant;
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use super::{
    service::{Answer, Caller, GOOD_ROWS, Service},
    training,
};

async fn key(service: &Service, tenant: &str) -> String {
    let key = service.database.store.create_key(tenant, "a key", &KeyGrant::default()).await.expect("a key");
    key.secret.expose_secret().to_owned()
}

async fn add_project(client: &Caller<'_>, name: &str) -> Answer {
    let body = Body::from(json!({"name": name}).to_string());
    client.send(Method::POST, "/v1/organization/projects", Some("application/json"), body).await
}

#[tokio::test]
async fn projects_see_nothing_of_each_other_and_the_organisation_acts_for_each() {
    let service = Service::start().await;
    let secret = key(&service, "acme").await;
    let acme = service.header("api-key", &secret);
    let research = add_project(&acme, "research").await.ok();
    assert_eq!((&research["name"], &research["status"]), (&json!("acme.research"), &json!("active")));
    add_project(&acme, "support").await.ok();
    assert_eq!(add_project(&acme, "research").await.refusal(), (400, "-", "invalid_state"));
    assert_eq!(add_project(&acme, "Über").await.refusal(), (400, "name", "invalid_value"));
    let listed = acme.get("/v1/organization/projects?limit=2").await.ok();
    let names = |page: &Value| -> Vec<String> {
        page["data"].as_array().unwrap().iter().map(|project| project["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(
        (names(&listed), &listed["has_more"]),
        (vec!["acme.support".into(), "acme.research".into()], &json!(true))
    );
    let after = listed["last_id"].as_str().unwrap();
    assert_eq!(names(&acme.get(&format!("/v1/organization/projects?after={after}")).await.ok()), ["acme"]);

    // A key of the project sees the project, and makes none.
    let (theirs, support) = (key(&service, "acme.research").await, key(&service, "acme.support").await);
    let theirs = service.header("api-key", &theirs);
    let file = theirs.upload("fine-tune", GOOD_ROWS.as_bytes()).await.ok();
    let path = format!("/v1/files/{}", file["id"].as_str().unwrap());
    assert_eq!(service.header("api-key", &support).get(&path).await.status, 404, "another project's");
    assert_eq!(acme.get(&path).await.status, 404, "not of the organisation's own project");
    let id = research["id"].as_str().unwrap();
    let acting = acme.clone().and("openai-project", id);
    assert_eq!(acting.get(&path).await.ok()["id"], file["id"]);
    assert_eq!(add_project(&theirs, "more").await.refusal(), (403, "-", "insufficient_scope"));
    assert_eq!(names(&theirs.get("/v1/organization/projects").await.ok()), ["acme.research"]);

    // Headers that name something else are not passed over.
    let first = listed["data"][0]["id"].as_str().unwrap();
    for (header, value) in [("openai-project", first), ("openai-project", "proj_x"), ("openai-organization", "org-x")] {
        let answer = theirs.clone().and(header, value).get(&path).await;
        assert_eq!(answer.refusal(), (400, header, "invalid_value"), "{}", answer.body);
    }
    assert_eq!(theirs.clone().and("openai-project", id).get(&path).await.status, 200);
    let stranger = key(&service, "globex").await;
    let refused = service.header("api-key", &stranger).and("openai-project", id).get(&path).await;
    assert_eq!(refused.refusal(), (400, "openai-project", "invalid_value"));
}

#[tokio::test]
async fn what_jobs_used_is_told_by_time_and_group() {
    let service = Service::start().await;
    let job = training::succeed(&service).await;
    let tokens = job["trained_tokens"].as_u64().unwrap();
    let finished = job["finished_at"].as_i64().unwrap();
    let start = finished - 90_000;
    let path = format!("/v1/organization/usage/fine_tuning?start_time={start}&end_time={}", finished + 10);
    let page = service.get(&path).await.ok();
    assert_eq!((&page["object"], &page["has_more"], &page["next_page"]), (&json!("page"), &json!(false), &Value::Null));
    assert_eq!(page["data"].as_array().map(Vec::len), Some(2));
    assert_eq!(page["data"][0]["results"], json!([]));
    let used = &page["data"][1]["results"][0];
    assert_eq!(
        (&used["num_jobs"], &used["trained_tokens"], &used["job_id"]),
        (&json!(1), &json!(tokens), &Value::Null)
    );

    let grouped = service.get(&format!("{path}&group_by=job_id&group_by%5B%5D=model&limit=1")).await.ok();
    let next = grouped["next_page"].as_str().unwrap();
    assert_eq!(grouped["has_more"], true);
    let grouped = service.get(&format!("{path}&group_by=job_id&group_by=model&page={next}")).await.ok();
    let used = &grouped["data"][0]["results"][0];
    assert_eq!((&used["job_id"], &used["model"]), (&job["id"], &job["model"]), "{grouped}");
    let hours = service.get(&format!("{path}&bucket_width=1h")).await.ok();
    assert_eq!(hours["data"].as_array().map(Vec::len), Some(24));

    let other = key(&service, "other").await;
    let theirs = service.header("api-key", &other).get(&path).await.ok();
    assert_eq!(theirs["data"][1]["results"], json!([]));
    let reader = KeyGrant { scopes: vec![Scope::Read], expires_after: None };
    let reader = service.database.store.create_key("default", "r", &reader).await.unwrap();
    assert_eq!(service.header("api-key", reader.secret.expose_secret()).get(&path).await.status, 403);
    let admin = key(&service, "default").await;
    for (query, field) in [
        ("", "start_time"),
        ("start_time=x", "start_time"),
        ("start_time=9&end_time=9", "end_time"),
        ("start_time=0&bucket_width=2d", "bucket_width"),
        ("start_time=0&limit=32", "limit"),
        ("start_time=0&group_by=user_id", "group_by"),
        ("start_time=0&project_ids=x", "project_ids"),
        ("start_time=0&page=page_5", "page"),
    ] {
        let answer =
            service.header("api-key", &admin).get(&format!("/v1/organization/usage/fine_tuning?{query}")).await;
        assert_eq!(answer.refusal(), (400, field, "invalid_value"), "{query}: {}", answer.body);
    }
}
