//! Files: what is uploaded is what comes back, and what was found in it.

use super::service::{Form, GOOD_ROWS, Service};

#[tokio::test]
async fn a_good_file_is_processed_and_comes_back() {
    let service = Service::start().await;
    let file = service.upload("fine-tune", GOOD_ROWS.as_bytes()).await.ok();
    insta::assert_json_snapshot!(file, {
        ".id" => "[id]", ".created_at" => "[time]", ".sha256" => "[sha256]",
    }, @r#"
    {
      "id": "[id]",
      "object": "file",
      "bytes": 131,
      "created_at": "[time]",
      "filename": "rows.jsonl",
      "purpose": "fine-tune",
      "status": "processed",
      "sha256": "[sha256]",
      "lint": {
        "format": "alpaca",
        "layout": "jsonl",
        "evidence": [
          "JSON lines: nothing speaks for another layout",
          "alpaca: line 1 has the fields instruction, input, output"
        ],
        "rows": 2,
        "error_rows": 0,
        "warning_rows": 0,
        "by_rule": [],
        "languages": [
          {
            "language": "und",
            "rows": 2
          }
        ]
      },
      "version": 1
    }
    "#);
    let id = file["id"].as_str().unwrap_or_default();
    assert_eq!(service.get(&format!("/v1/files/{id}")).await.ok(), file);
    let content = service.get(&format!("/v1/files/{id}/content")).await;
    assert_eq!((content.status, content.bytes.as_ref()), (200, GOOD_ROWS.as_bytes()));
    assert_eq!(content.header("etag"), format!("{}", file["sha256"]));
    assert_eq!(content.header("content-length"), GOOD_ROWS.len().to_string());
}

#[tokio::test]
async fn ranges_of_a_file() {
    let service = Service::start().await;
    let file = service.upload("user_data", b"0123456789").await.ok();
    let path = format!("/v1/files/{}/content", file["id"].as_str().unwrap_or_default());
    let part = service.header("range", "bytes=2-4").get(&path).await;
    assert_eq!((part.status, part.bytes.as_ref(), part.header("content-range")), (206, &b"234"[..], "bytes 2-4/10"));
    let beyond = service.header("range", "bytes=10-").get(&path).await;
    assert_eq!((beyond.status, beyond.header("content-range")), (416, "bytes */10"));
    let known = service.header("if-none-match", &file["sha256"].to_string()).get(&path).await;
    assert_eq!((known.status, known.bytes.len()), (304, 0));
}

#[tokio::test]
async fn every_bad_row_is_listed() {
    let service = Service::start().await;
    let mut rows = String::new();
    for number in 0..150 {
        rows.push_str(&format!("{{\"instruction\": \"Say {number}.\", \"output\": \"\"}}\n"));
    }
    let file = service.upload("fine-tune", rows.as_bytes()).await.ok();
    assert_eq!((file["status"].as_str(), &file["lint"]["error_rows"]), (Some("error"), &150.into()), "{file}");
    let details = file["status_details"].as_str().unwrap_or_default();
    assert!(details.starts_with("150 of 150 rows cannot be used; line 1: "), "{details}");
    let path = format!("/v1/files/{}/lint", file["id"].as_str().unwrap_or_default());
    let report = service.get(&path).await.ok();
    assert_eq!(report["summary"]["error_rows"], file["lint"]["error_rows"]);
    let findings = report["data"].as_array().map_or(0, Vec::len);
    assert!(findings >= 150 && report["has_more"] == false, "{findings}");
    let page = service.get(&format!("{path}?limit=7&after=3")).await.ok();
    assert_eq!(page["data"].as_array().map(Vec::as_slice), report["data"].as_array().map(|all| &all[3..10]));
    assert_eq!((&page["has_more"], &page["next_after"]), (&true.into(), &10.into()));
}

#[tokio::test]
async fn what_no_job_could_use_is_still_a_file() {
    let service = Service::start().await;
    for (content, words) in [
        (&b""[..], "The file is empty."),
        (b"\xff\xfe{}", "rows cannot be used"),
        (b"{\"instruction\": \"a\", \"output\": \"b\"", "rows cannot be used"),
    ] {
        let file = service.upload("fine-tune", content).await.ok();
        let details = file["status_details"].as_str().unwrap_or_default();
        assert!(file["status"] == "error" && details.contains(words), "{file}");
    }
}

#[tokio::test]
async fn only_files_for_fine_tuning_are_linted() {
    let service = Service::start().await;
    let file = service.upload("assistants", b"\xff").await.ok();
    assert_eq!((file["status"].as_str(), file.get("lint")), (Some("processed"), None));
    let report = service.get(&format!("/v1/files/{}/lint", file["id"].as_str().unwrap_or_default())).await;
    assert_eq!(report.refusal(), (404, "-", "not_found"));
}

#[tokio::test]
async fn lists_are_exact_pages() {
    let service = Service::start().await;
    let empty = service.get("/v1/files").await.ok();
    assert_eq!((empty["data"].as_array().map(Vec::len), &empty["has_more"]), (Some(0), &false.into()));
    let mut ids = Vec::new();
    for purpose in ["fine-tune", "batch", "fine-tune"] {
        let file = service.upload(purpose, GOOD_ROWS.as_bytes()).await.ok();
        ids.push(file["id"].as_str().unwrap_or_default().to_owned());
    }
    let listed = async |query: &str| {
        let page = service.get(&format!("/v1/files{query}")).await.ok();
        let found: Vec<usize> = page["data"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|file| ids.iter().position(|id| file["id"] == id.as_str()))
            .collect();
        (found, page["has_more"] == true)
    };
    assert_eq!(listed("").await, (vec![2, 1, 0], false));
    assert_eq!(listed("?order=asc&limit=2").await, (vec![0, 1], true));
    assert_eq!(listed("?limit=3").await, (vec![2, 1, 0], false));
    assert_eq!(listed(&format!("?limit=1&after={}", ids[2])).await, (vec![1], true));
    assert_eq!(listed("?purpose=fine-tune").await, (vec![2, 0], false));
    for (query, param) in [
        ("?limit=0", "limit"),
        ("?limit=10001", "limit"),
        ("?order=down", "order"),
        ("?after=x", "after"),
        ("?after=file-00000000000000000000000000000000", "after"),
        ("?offset=1", "offset"),
    ] {
        let refused = service.get(&format!("/v1/files{query}")).await;
        assert_eq!((refused.status, refused.refusal().1), (400, param), "{}", refused.body);
    }
}

#[tokio::test]
async fn a_deleted_file_is_gone() {
    let service = Service::start().await;
    let path = format!("/v1/files/{}", service.training_file().await);
    assert_eq!(service.delete(&path).await.ok()["deleted"], true);
    assert_eq!(service.get(&path).await.status, 404);
    assert_eq!(service.get(&format!("{path}/content")).await.status, 404);
    assert_eq!(service.delete(&path).await.refusal(), (404, "-", "not_found"));
}

#[tokio::test]
async fn expiry_is_kept_or_refused_by_name() {
    let service = Service::start().await;
    let upload = async |fields: &[(&str, &str)]| {
        let mut form = Form::new().text("purpose", "user_data").file("a", b"x");
        for (name, value) in fields {
            form = form.text(name, value);
        }
        service.header("x", "y").post_form(form).await
    };
    let file = upload(&[("expires_after[anchor]", "created_at"), ("expires_after[seconds]", "3600")]).await.ok();
    let lifetime = file["expires_at"].as_i64().zip(file["created_at"].as_i64()).map(|(end, start)| end - start);
    assert_eq!(lifetime, Some(3600), "{file}");
    for (fields, param) in [
        (&[("expires_after[anchor]", "now"), ("expires_after[seconds]", "3600")][..], "expires_after[anchor]"),
        (&[("expires_after[anchor]", "created_at"), ("expires_after[seconds]", "3599")], "expires_after[seconds]"),
        (&[("expires_after[anchor]", "created_at")], "expires_after[seconds]"),
        (&[("expires_after[seconds]", "3600")], "expires_after[anchor]"),
    ] {
        let refused = upload(fields).await;
        assert_eq!((refused.status, refused.refusal().1), (400, param));
    }
}
