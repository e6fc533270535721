//! Datasets: whatever they are packed in is read, looked at and shown as a model will see it.

use finetuned_store::NewBaseModel;
use serde_json::{Value, json};

use super::service::{BASE_MODEL, Form, Service, facts};

const CSV: &str = "question,reply\nWhat is red?,A colour.\nWhat is an apple?,A fruit.\n";

/// A service whose base model is a real one.
async fn with_model() -> Service {
    let service = Service::start().await;
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../.runtime/models/smollm2-135m-instruct.gguf");
    let model = NewBaseModel {
        name: "smollm2".into(),
        path: path.into(),
        source: None,
        license: None,
        facts: facts(),
        sha256: "1".repeat(64),
    };
    service.database.store.register_base_model(&model).await.unwrap();
    service
}

async fn upload(service: &Service, reading: Option<Value>, filename: &str, content: &[u8]) -> super::service::Answer {
    let mut form = Form::new().text("purpose", "fine-tune");
    if let Some(reading) = reading {
        form = form.text("reading", &reading.to_string());
    }
    service.header("x", "y").post_form(form.file(filename, content)).await
}

fn id(file: &Value) -> &str {
    file["id"].as_str().unwrap_or_default()
}

#[tokio::test]
async fn a_table_with_names_of_its_own_is_trained_on_by_a_map_of_columns() {
    let service = Service::start().await;
    let unmapped = upload(&service, None, "rows.csv", CSV.as_bytes()).await.ok();
    assert_eq!((unmapped["status"].as_str(), unmapped["lint"]["layout"].as_str()), (Some("error"), Some("csv")));
    let details = unmapped["status_details"].as_str().unwrap_or_default();
    assert!(details.contains("name the file's own names for them in `columns`"), "{details}");
    let reading = json!({"columns": {"prompt": "question", "completion": "reply"}});
    let file = upload(&service, Some(reading), "rows.csv", CSV.as_bytes()).await.ok();
    assert_eq!((file["status"].as_str(), file["lint"]["rows"].as_u64()), (Some("processed"), Some(2)), "{file}");
    let evidence = json!(["csv, as asked for", "prompt_completion: line 2 has the fields prompt, completion"]);
    assert_eq!(file["lint"]["evidence"], evidence);
    let job = service.create_job(json!({"model": BASE_MODEL, "training_file": id(&file)})).await.ok();
    let stored = service.database.store.get_job(file_tenant(), job["id"].as_str().unwrap().parse().unwrap()).await;
    let reading = serde_json::to_value(stored.unwrap().request.training_reading).unwrap();
    assert_eq!(reading, json!({"layout": "csv", "columns": {"completion": "reply", "prompt": "question"}}));
    // What the upload did not say, the job can.
    let reading = json!({"layout": "csv", "columns": {"prompt": "question", "completion": "reply"}});
    let body = json!({"model": BASE_MODEL, "training_file": id(&unmapped), "training_reading": reading});
    service.create_job(body).await.ok();
}

/// The tenant of callers without a key.
fn file_tenant() -> finetuned_protocol::ids::TenantId {
    finetuned_protocol::ids::TenantId(uuid::Uuid::from_u128(0x0000_0000_0000_7000_8000_0000_0000_0001))
}

#[tokio::test]
async fn readings_that_cannot_be_are_refused_by_name() {
    let service = Service::start().await;
    for (reading, param, words) in [
        (json!({"layout": "xlsx"}), "reading", "unknown variant"),
        (json!({"colums": {}}), "reading", "unknown field `colums`"),
        (json!({"disabled_rules": ["nonsense"]}), "reading.disabled_rules", "is no rule"),
        (json!({"disabled_rules": ["json_invalid"]}), "reading.disabled_rules", "cannot be switched off"),
    ] {
        let refused = upload(&service, Some(reading), "rows.csv", CSV.as_bytes()).await;
        assert_eq!((refused.refusal().0, refused.refusal().1), (400, param), "{}", refused.body);
        assert!(refused.message().contains(words), "{}", refused.message());
    }
    let form = Form::new().text("purpose", "fine-tune").file("a.csv", CSV.as_bytes()).text("reading", "{}");
    assert_eq!(service.header("x", "y").post_form(form).await.refusal().1, "reading");
}

#[tokio::test]
async fn findings_are_told_by_rule_and_all_lines_can_be_downloaded() {
    let service = Service::start().await;
    let mut rows = String::new();
    for number in 0..60 {
        let mail = if number % 2 == 0 { format!("me{number}@example.org") } else { "nobody".to_owned() };
        rows.push_str(&format!("{{\"prompt\": \"Whom do I ask, {number}?\", \"completion\": \"Ask {mail} now\"}}\n"));
    }
    let file = upload(&service, None, "rows.jsonl", rows.as_bytes()).await.ok();
    assert_eq!(file["status"], "processed");
    let count = &file["lint"]["by_rule"][0];
    assert_eq!((&count["rule"], &count["rows"], &count["share"]), (&"email_address".into(), &30.into(), &0.5.into()));
    assert!(count.get("examples").is_none(), "a list of files is no place for them");
    let report = service.get(&format!("/v1/files/{}/lint", id(&file))).await.ok();
    let examples = report["summary"]["by_rule"][0]["examples"].as_array().unwrap();
    assert_eq!((examples.len(), &examples[1]), (20, &json!({"line": 3, "pointer": "/completion"})));
    let path = format!("/v1/files/{}/lint/findings", id(&file));
    let all = service.get(&format!("{path}?rule=email_address")).await;
    let lines = String::from_utf8(all.bytes.to_vec()).unwrap();
    assert_eq!((all.status, lines.lines().count()), (200, 30));
    assert_eq!(service.get(&format!("{path}?rule=answer_empty")).await.bytes.len(), 0);
    assert_eq!(service.get(&format!("{path}?rule=nonsense")).await.refusal().1, "rule");
    let off = json!({"disabled_rules": ["email_address"]});
    let quiet = upload(&service, Some(off), "rows.jsonl", rows.as_bytes()).await.ok();
    assert_eq!(quiet["lint"]["by_rule"], json!([]));
}

#[tokio::test]
async fn a_share_of_bad_rows_can_be_tolerated() {
    let service = with_model().await;
    let mut rows: String =
        (0..9).map(|n| format!("{{\"prompt\": \"Count {n}\", \"completion\": \"It is {n}.\"}}\n")).collect();
    rows.push_str("{\"prompt\": \"Count 9\", \"completion\": \"\"}\n");
    let file = upload(&service, None, "rows.jsonl", rows.as_bytes()).await.ok();
    assert_eq!(file["status"], "error");
    let job =
        |tolerance: f64| json!({"model": "smollm2", "training_file": id(&file), "invalid_row_tolerance": tolerance});
    let refused = service.create_job(job(0.05)).await;
    assert_eq!(refused.refusal(), (400, "training_file", "invalid_training_file"));
    let details = &refused.body["error"]["details"][0];
    assert_eq!(
        (&details["line"], &details["rule"], &details["pointer"]),
        (&10.into(), &"answer_empty".into(), &"/completion".into())
    );
    assert_eq!(service.create_job(job(0.7)).await.refusal().1, "invalid_row_tolerance");
    service.create_job(job(0.1)).await.ok();
    let estimate = service.estimate(job(0.1)).await.ok();
    assert_eq!(estimate["dropped_by_rule"], json!({"answer_empty": 1}));
    assert_eq!(
        estimate["dataset"]["train_rows"].as_u64().zip(estimate["dataset"]["held_out_rows"].as_u64()),
        Some((8, 1))
    );
}

#[tokio::test]
async fn a_row_is_shown_as_the_model_will_see_it() {
    let service = with_model().await;
    let rows = concat!(
        "{\"prompt\": \"What is red?\", \"completion\": \"A colour.\"}\n",
        "{\"prompt\": \"What is an apple?\", \"completion\": 3}\n",
    );
    let file = upload(&service, None, "rows.jsonl", rows.as_bytes()).await.ok();
    let path = format!("/v1/files/{}/rows", id(&file));
    let row = service.get(&format!("{path}?line=1&model=smollm2&template=chatml")).await.ok();
    let expected = "<|im_start|>user\nWhat is red?<|im_end|>\n<|im_start|>assistant\nA colour.<|im_end|>\n";
    assert_eq!(row["rendered"], expected);
    let tokens = row["tokens"].as_array().unwrap();
    let learned: String =
        tokens.iter().filter(|token| token["has_loss"] == true).map(|token| token["text"].as_str().unwrap()).collect();
    assert_eq!((learned.as_str(), &row["truncated_at"]), ("A colour.<|im_end|>", &Value::Null));
    let cut = service.get(&format!("{path}?line=1&model=smollm2&template=chatml&max_seq_len=12")).await.ok();
    assert_eq!((cut["truncated_at"].as_u64(), cut["tokens"].as_array().unwrap().len()), (Some(12), tokens.len()));
    let bad = service.get(&format!("{path}?line=2&model=smollm2")).await.ok();
    assert_eq!((&bad["findings"][0]["rule"], &bad["tokens"]), (&"field_type".into(), &json!([])));
    for (query, status, param) in [
        ("?line=3&model=smollm2", 404, "-"),
        ("?model=smollm2", 400, "line"),
        ("?line=1", 400, "model"),
        ("?line=1&model=nobody", 400, "model"),
        ("?line=1&model=smollm2&template=vicuna", 400, "template"),
        ("?line=1&model=smollm2&max_seq_len=9000", 400, "max_seq_len"),
    ] {
        let refused = service.get(&format!("{path}{query}")).await;
        assert_eq!((refused.status, refused.refusal().1), (status, param), "{query}: {}", refused.body);
    }
    let away = service.get(&format!("{path}?line=1&model={}", BASE_MODEL.replace('/', "%2F"))).await;
    assert_eq!(away.refusal().1, "model");
    assert!(!away.message().contains("nowhere"), "paths stay in the log");
}

#[tokio::test]
async fn tokens_are_counted_and_lengths_tried() {
    let service = with_model().await;
    let rows: String = (0..50)
        .map(|n| format!("{{\"prompt\": \"Say it {n} times.\", \"completion\": \"{}\"}}\n", "so ".repeat(n + 1).trim()))
        .collect();
    let file = upload(&service, None, "rows.jsonl.gz", &gzip(rows.as_bytes())).await.ok();
    assert_eq!((file["lint"]["compression"].as_str(), file["lint"]["rows"].as_u64()), (Some("gzip"), Some(50)));
    let path = format!("/v1/files/{}/statistics?model=smollm2&max_seq_len=64", id(&file));
    let statistics = service.get(&path).await.ok();
    assert_eq!((statistics["rows"].as_u64(), &statistics["is_sample"]), (Some(50), &false.into()));
    // An answer of n words has n tokens, and its end marker is one.
    assert_eq!((&statistics["answer_tokens"]["min"], &statistics["answer_tokens"]["max"]), (&2.into(), &51.into()));
    let cut = statistics["cuts"].as_array().unwrap().iter().find(|cut| cut["max_seq_len"] == 64).unwrap().clone();
    assert!(cut["truncated_rows"].as_u64().is_some_and(|rows| rows > 0 && rows < 50), "{cut}");
    let wide = service.get(&path.replace("max_seq_len=64", "max_seq_len=512")).await.ok();
    let packing = &wide["packing"];
    assert!(packing["efficiency"].as_f64() > packing["unpacked_efficiency"].as_f64(), "{packing}");
    let sample = service.get(&format!("{path}&rows=10")).await.ok();
    assert_eq!((sample["rows"].as_u64(), &sample["is_sample"]), (Some(10), &true.into()));
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn a_model_finds_what_the_upload_cannot() {
    let service = with_model().await;
    let rows = |from: u32, to: u32| -> String {
        (from..to).map(|n| format!("{{\"prompt\": \"Count to {n}.\", \"completion\": \"One to {n}.\"}}\n")).collect()
    };
    let train = upload(&service, None, "train.jsonl", rows(0, 20).as_bytes()).await.ok();
    let valid = upload(&service, None, "valid.jsonl", rows(18, 25).as_bytes()).await.ok();
    let path = format!("/v1/files/{}/lint?model=smollm2&validation_file={}", id(&train), id(&valid));
    let report = service.get(&path).await.ok();
    assert_eq!((&report["object"], &report["is_usable"]), (&"file.model_lint".into(), &true.into()));
    let leaks: Vec<u64> =
        report["warnings"].as_array().unwrap().iter().map(|leak| leak["line"].as_u64().unwrap()).collect();
    assert_eq!((leaks, &report["warnings"][0]["rule"]), (vec![1, 2], &"held_out_leak".into()));
    let counted = &report["validation_by_rule"][0];
    assert_eq!(
        (&counted["rule"], &counted["rows"], &counted["severity"]),
        (&"held_out_leak".into(), &2.into(), &"warning".into())
    );
    assert_eq!((&counted["share"], &counted["examples"][1]["line"]), (&json!(2.0 / 7.0), &2.into()));
    assert_eq!((&report["rows"], &report["by_rule"]), (&20.into(), &json!([])));
    let lines = service.get(&path.replace("/lint?", "/lint/findings?")).await.bytes;
    let lines: Vec<Value> =
        std::str::from_utf8(&lines).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    assert_eq!((&lines[1]["file"], &lines[1]["line"]), (&"validation".into(), &2.into()));
    let none = service.get(&format!("{}&rule=answer_truncated", path.replace("/lint?", "/lint/findings?"))).await;
    assert_eq!((none.status, none.bytes.len()), (200, 0));
    let short = service.get(&format!("/v1/files/{}/lint?model=smollm2&max_seq_len=8", id(&train))).await.ok();
    assert_eq!((&short["is_usable"], &short["dropped"][0]["rule"]), (&false.into(), &"no_supervised_token".into()));
    assert_eq!((&short["by_rule"][0]["rows"], &short["by_rule"][0]["share"]), (&20.into(), &json!(1.0)));
    // Broken rows beside good ones: all are reported, and the good ones looked at.
    let mixed = format!("{}{{\"prompt\": 1}}\n", rows(0, 3));
    let mixed = upload(&service, None, "mixed.jsonl", mixed.as_bytes()).await.ok();
    let report = service.get(&format!("/v1/files/{}/lint?model=smollm2&template=chatml", id(&mixed))).await.ok();
    assert_eq!((&report["is_usable"], &report["errors_total"], &report["rows"]), (&false.into(), &2.into(), &4.into()));
    assert_eq!((&report["dataset"]["train_rows"], &report["errors"][0]["line"]), (&3.into(), &4.into()));
}

#[tokio::test]
async fn an_estimate_stores_nothing() {
    let service = with_model().await;
    let rows: String =
        (0..30).map(|n| format!("{{\"prompt\": \"Count to {n}.\", \"completion\": \"One to {n}.\"}}\n")).collect();
    let file = upload(&service, None, "train.jsonl", rows.as_bytes()).await.ok();
    let body = json!({"model": "smollm2", "training_file": id(&file), "n_epochs": 2, "batch_size": 4});
    let estimate = service.estimate(body).await.ok();
    assert_eq!((&estimate["steps"], &estimate["effective"]["n_epochs"]), (&14.into(), &2.into()), "{estimate}");
    assert_eq!(estimate["speed"], json!({"source": "assumed"}));
    let rules: Vec<&str> =
        estimate["warnings"].as_array().unwrap().iter().map(|warning| warning["rule"].as_str().unwrap()).collect();
    assert_eq!(rules, ["few_rows", "underfit_likely"]);
    for field in ["tokens_per_epoch", "disk_bytes"] {
        assert!(estimate[field].as_u64().is_some_and(|number| number > 0), "{field}");
    }
    assert_eq!(service.get("/v1/fine_tuning/jobs").await.ok()["data"], json!([]));
    let refused = service.estimate(json!({"model": "smollm2", "training_file": "file-x"})).await;
    assert_eq!(refused.refusal(), (400, "training_file", "invalid_training_file"));
    let unfit = json!({"model": "smollm2", "training_file": id(&file), "max_seq_len": 8});
    assert_eq!(service.estimate(unfit).await.refusal(), (400, "training_file", "invalid_training_file"));
}
