//! A dataset's rows are edited, and what differs can be read.

use axum::{body::Body, http::Method};
use serde_json::{Value, json};

use super::service::{Answer, Form, GOOD_ROWS, Service};

async fn edit(service: &Service, file: &Value, edits: &str) -> Answer {
    let path = format!("/v1/files/{}/versions", file["id"].as_str().unwrap_or_default());
    let body = Body::from(edits.to_owned());
    service.header("x", "y").send(Method::POST, &path, Some("application/jsonl"), body).await
}

async fn content(service: &Service, file: &Value) -> String {
    let path = format!("/v1/files/{}/content", file["id"].as_str().unwrap_or_default());
    String::from_utf8_lossy(&service.get(&path).await.bytes).into_owned()
}

#[tokio::test]
async fn edited_rows_are_the_next_version_and_the_diff_shows_them() {
    let service = Service::start().await;
    let rows: String = (1..=4).map(|i| format!("{{\"prompt\": \"p{i}\", \"completion\": \"c{i}\"}}\n")).collect();
    let first = service.upload("fine-tune", rows.as_bytes()).await.ok();
    assert_eq!((&first["version"], &first["parent"]), (&json!(1), &Value::Null));
    let edits = concat!(
        r#"{"line": 2, "row": {"prompt": "p2", "completion": "better"}, "score": 0.7, "reason": "too short"}"#,
        "\n",
        r#"{"line": 3, "remove": true}"#,
        "\n",
        r#"{"line": 1, "row": {"prompt": "p1", "completion": "c1"}}"#,
        "\n",
        r#"{"row": {"prompt": "p5", "completion": "c5"}}"#,
    );
    let made = edit(&service, &first, edits).await.ok();
    let second = &made["file"];
    assert_eq!((&made["changed_rows"], &made["removed_rows"], &made["added_rows"]), (&json!(1), &json!(1), &json!(1)));
    assert_eq!(
        (&second["version"], &second["parent"], &second["status"]),
        (&json!(2), &first["id"], &json!("processed"))
    );
    assert_eq!(second["filename"], "rows.v2.jsonl");
    let expected = concat!(
        "{\"prompt\": \"p1\", \"completion\": \"c1\"}\n",
        "{\"prompt\":\"p2\",\"completion\":\"better\"}\n",
        "{\"prompt\": \"p4\", \"completion\": \"c4\"}\n",
        "{\"prompt\":\"p5\",\"completion\":\"c5\"}\n",
    );
    assert_eq!(content(&service, second).await, expected);
    let id = |file: &Value| file["id"].as_str().unwrap_or_default().to_owned();
    let diff = service.get(&format!("/v1/files/{}/diff?with={}", id(&first), id(second))).await.ok();
    let counts = ["rows", "with_rows", "added_rows", "removed_rows", "changed_rows"].map(|name| diff[name].as_u64());
    assert_eq!(counts, [Some(4), Some(4), Some(1), Some(1), Some(1)]);
    let changed = &diff["data"][0];
    assert_eq!(
        (&changed["change"], &changed["line"], &changed["with_line"]),
        (&json!("changed"), &json!(2), &json!(2))
    );
    assert_eq!((&changed["before"]["completion"], &changed["after"]["completion"]), (&json!("c2"), &json!("better")));
    let page = service.get(&format!("/v1/files/{}/diff?with={}&limit=2", id(&first), id(second))).await.ok();
    assert_eq!((&page["has_more"], &page["next_after"]), (&json!(true), &json!(2)));
    let rest = service.get(&format!("/v1/files/{}/diff?with={}&after=2", id(&first), id(second))).await.ok();
    assert_eq!((&rest["data"][0]["change"], &rest["data"][0]["with_line"]), (&json!("added"), &json!(4)));
    let third = edit(&service, second, r#"{"line": 4, "remove": true}"#).await.ok();
    assert_eq!((&third["file"]["version"], &third["file"]["parent"]), (&json!(3), &second["id"]));
    service.delete(&format!("/v1/files/{}", id(&first))).await.ok();
    assert_eq!(service.get(&format!("/v1/files/{}", id(second))).await.ok()["parent"], first["id"]);
}

#[tokio::test]
async fn a_table_becomes_lines_and_keeps_what_its_columns_mean() {
    let service = Service::start().await;
    let reading = json!({"format": "prompt_completion", "columns": {"prompt": "question", "completion": "reply"}});
    let form = Form::new().text("purpose", "fine-tune").text("reading", &reading.to_string());
    let table = "question,reply\nhow,\"so, so\"\nwhy,because\n";
    let file = service.header("x", "y").post_form(form.file("table.csv", table.as_bytes())).await.ok();
    let made = edit(&service, &file, r#"{"line": 3, "row": {"question": "why", "reply": "for this"}}"#).await.ok();
    assert_eq!((&made["file"]["status"], &made["file"]["lint"]["layout"]), (&json!("processed"), &json!("jsonl")));
    let expected = "{\"question\":\"how\",\"reply\":\"so, so\"}\n{\"question\":\"why\",\"reply\":\"for this\"}\n";
    assert_eq!(content(&service, &made["file"]).await, expected);
}

#[tokio::test]
async fn edits_of_nothing_and_files_without_rows_are_refused() {
    let service = Service::start().await;
    let file = service.upload("fine-tune", GOOD_ROWS.as_bytes()).await.ok();
    for (edits, refusal) in [
        ("", (400, "-", "invalid_body")),
        ("rows", (400, "-", "invalid_body")),
        (r#"{"line": 7, "remove": true}"#, (400, "line", "invalid_value")),
        (
            r#"{"line": 1, "row": {"output": "Red.", "instruction": "Name a colour.", "input": ""}}"#,
            (400, "row", "invalid_value"),
        ),
    ] {
        assert_eq!(edit(&service, &file, edits).await.refusal(), refusal, "{edits}");
    }
    let other = service.upload("batch", b"x").await.ok();
    assert_eq!(edit(&service, &other, r#"{"line": 1, "remove": true}"#).await.refusal(), (400, "-", "invalid_state"));
    let cut = service.upload("fine-tune", b"[{\"prompt\": \"a\", \"completion\": \"b\"}").await.ok();
    let refused = edit(&service, &cut, r#"{"line": 1, "remove": true}"#).await;
    assert_eq!(refused.refusal(), (400, "-", "invalid_state"));
    let id = file["id"].as_str().unwrap_or_default();
    for (query, refusal) in [
        ("", (400, "with", "missing_required_parameter")),
        ("?with=x", (400, "with", "invalid_value")),
        ("?with=file-00000000000070008000000000000000", (400, "with", "invalid_value")),
        (&format!("?with={}", other["id"].as_str().unwrap_or_default()), (400, "-", "invalid_state")),
    ] {
        assert_eq!(service.get(&format!("/v1/files/{id}/diff{query}")).await.refusal(), refusal, "{query}");
    }
}
