//! What a job shows while it runs and when it is done.

use std::io::Read;

use axum::{body::Body, http::Method};
use finetuned_protocol::engine::{AnsweredRow, Answerer};
use finetuned_store::{NewMetric, Report};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{
    service::Service,
    training::{self, CONFIG, WEIGHTS},
};

fn path(job: &Value) -> String {
    format!("/v1/fine_tuning/jobs/{}", job["id"].as_str().unwrap_or_default())
}

fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

#[tokio::test]
async fn a_running_job_says_how_far_it_is() {
    let service = Service::start().await;
    let training = training::half_way(&service).await;
    let job = service.get(&path(&training.job)).await.ok();
    assert_eq!(job["status"], "running");
    let expected = json!({"phase": "training", "done": 2, "total": 6, "step": 2, "total_steps": 6,
                          "fraction": 2.0 / 6.0, "seconds_left": 40});
    assert_eq!(job["progress"], expected);
    assert!(job["estimated_finish"].as_i64() >= job["created_at"].as_i64().map(|start| start + 39), "{job}");
    assert_eq!((&job["effective"]["total_steps"], &job["effective"]["batch_size"]), (&6.into(), &8.into()));
    let settled = json!({"batch_size": 8, "learning_rate_multiplier": 1.0, "n_epochs": 3});
    assert_eq!((&job["hyperparameters"], &job["method"]["supervised"]["hyperparameters"]), (&settled, &settled));
    assert_eq!((&job["estimate"]["seconds"], &job["dataset"]["train_rows"]), (&60.into(), &16.into()));
    assert_eq!(job["trained_tokens"], Value::Null);
}

#[tokio::test]
async fn events_are_newest_first_and_page_to_the_end() {
    let service = Service::start().await;
    let job = training::half_way(&service).await.job;
    let all = service.get(&format!("{}/events?limit=1000", path(&job))).await.ok();
    let all = all["data"].as_array().cloned().unwrap_or_default();
    let sequence: Vec<u64> = all.iter().filter_map(|event| event["sequence"].as_u64()).collect();
    let count = all.len() as u64;
    assert_eq!(sequence, (1..=count).rev().collect::<Vec<_>>());
    let step = all.iter().find(|event| event["message"] == "Step 2").cloned().unwrap_or_default();
    assert_eq!((&step["type"], &step["data"]), (&"metrics".into(), &json!({"step": 2, "train_loss": 1.5})));
    let (mut paged, mut after) = (Vec::new(), String::new());
    loop {
        let page = service.get(&format!("{}/events?limit=2{after}", path(&job))).await.ok();
        paged.extend(page["data"].as_array().cloned().unwrap_or_default());
        if page["has_more"] == false {
            break;
        }
        after = format!("&after={}", page["last_id"].as_str().unwrap_or_default());
    }
    assert_eq!(paged, all);
}

#[tokio::test]
async fn checkpoints_carry_seven_numbers() {
    let service = Service::start().await;
    let job = training::half_way(&service).await.job;
    let page = service.get(&format!("{}/checkpoints?limit=1", path(&job))).await.ok();
    let newest = &page["data"][0];
    assert_eq!((&newest["step_number"], &page["has_more"]), (&2.into(), &true.into()));
    assert_eq!(newest["metrics"].as_object().map(serde_json::Map::len), Some(7), "{newest}");
    assert!(newest["metrics"].as_object().into_iter().flatten().all(|(_, number)| number.is_number()), "{newest}");
    let name = newest["fine_tuned_model_checkpoint"].as_str().unwrap_or_default();
    assert!(name.starts_with("ft:") && name.ends_with(":ckpt-step-2"), "{name}");
    let rest = format!("{}/checkpoints?after={}", path(&job), page["last_id"].as_str().unwrap_or_default());
    let rest = service.get(&rest).await.ok();
    assert_eq!((&rest["data"][0]["step_number"], &rest["has_more"]), (&1.into(), &false.into()));
}

#[tokio::test]
async fn series_are_given_by_name() {
    let service = Service::start().await;
    let job = training::half_way(&service).await.job;
    let all = service.get(&format!("{}/metrics", path(&job))).await.ok();
    let names: Vec<&str> = all["series"].as_object().into_iter().flatten().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["learning_rate", "train_loss"]);
    let one = service.get(&format!("{}/metrics?names=train_loss", path(&job))).await.ok();
    let points = one["series"]["train_loss"].as_array().cloned().unwrap_or_default();
    let numbers: Vec<(Option<u64>, Option<f64>)> =
        points.iter().map(|point| (point["step"].as_u64(), point["value"].as_f64())).collect();
    assert_eq!(numbers, [(Some(1), Some(3.0)), (Some(2), Some(1.5))]);
    assert!(points.iter().all(|point| point["time"].as_f64() > Some(1.7e9)), "{points:?}");
    assert_eq!(one["series"].as_object().map(serde_json::Map::len), Some(1));
    let unknown = service.get(&format!("{}/metrics?names=train_loss,loss", path(&job))).await;
    assert_eq!(unknown.refusal(), (400, "names", "invalid_value"));
}

#[tokio::test]
async fn a_long_series_is_thinned_out_and_says_so() {
    let service = Service::start().await;
    let lease = training::claimed(&service).await;
    let metric = |step| NewMetric { name: "train_loss".to_owned(), step, value: if step == 1500 { 9.0 } else { 1.0 } };
    let metrics = (1..=3000).map(metric).collect();
    service.database.store.report(&lease.key, &Report { metrics, ..Report::default() }).await.expect("a report");
    let path = format!("/v1/fine_tuning/jobs/{}/metrics", lease.job.id);
    let read = async |query: &str| {
        let body = service.get(&format!("{path}{query}")).await.ok();
        let points = body["series"]["train_loss"].as_array().cloned().unwrap_or_default();
        let steps: Vec<u64> = points.iter().filter_map(|point| point["step"].as_u64()).collect();
        (steps, body["thinned"].clone())
    };
    let (steps, thinned) = read("").await;
    assert!(steps.len() <= 1000 && steps.len() > 300, "{} points", steps.len());
    assert!([1, 1500, 3000].iter().all(|step| steps.contains(step)), "the ends and the peak stay");
    assert_eq!(thinned, json!({"train_loss": 3000}));
    assert_eq!(read("?max_points=5000").await, ((1..=3000).collect(), json!({})));
    assert_eq!(read("?from_step=1499&to_step=1501&max_points=4").await, (vec![1499, 1500, 1501], json!({})));
    for (query, param) in
        [("max_points=3", "max_points"), ("max_points=10001", "max_points"), ("from_step=2&to_step=1", "from_step")]
    {
        assert_eq!(service.get(&format!("{path}?{query}")).await.refusal(), (400, param, "invalid_value"));
    }
}

#[tokio::test]
async fn a_succeeded_job_has_a_model_results_and_an_evaluation() {
    let service = Service::start().await;
    let job = training::succeed(&service).await;
    assert_eq!(
        (&job["status"], &job["trained_tokens"], &job["error"]),
        (&"succeeded".into(), &1500.into(), &Value::Null)
    );
    assert_eq!((&job["evaluation"]["base"]["loss"], &job["evaluation"]["tuned"]["loss"]), (&4.0.into(), &2.0.into()));
    assert_eq!(job["parity"]["largest_difference_from_base"], 3.5);
    assert!(job["finished_at"].is_i64() && job["fine_tuned_model"].is_string(), "{job}");
    let file = job["result_files"][0].as_str().unwrap_or_default().to_owned();
    assert_eq!(service.get(&format!("/v1/files/{file}")).await.ok()["purpose"], "fine-tune-results");
    let table = service.get(&format!("/v1/files/{file}/content")).await;
    assert_eq!(table.bytes.as_ref(), b"step,train_loss\n1,3.0\n");
    let cancelled = service.post(&format!("{}/cancel", path(&job))).await;
    assert_eq!(cancelled.refusal(), (400, "-", "invalid_state"));
    assert_eq!(cancelled.header("x-should-retry"), "false");
}

#[tokio::test]
async fn artifacts_are_listed_and_downloaded_by_their_listed_names_alone() {
    let service = Service::start().await;
    let job = training::succeed(&service).await;
    let list = service.get(&format!("{}/artifacts", path(&job))).await.ok();
    let expected = |name: &str, content: &[u8]| json!({"object": "fine_tuning.job.artifact", "name": name, "bytes": content.len(), "sha256": sha256(content)});
    let data = json!([expected("adapter_config.json", CONFIG), expected("adapter_model.safetensors", WEIGHTS)]);
    assert_eq!(list["data"], data);
    let file = format!("{}/artifacts/adapter_model.safetensors", path(&job));
    let whole = service.get(&file).await;
    assert_eq!((whole.status, whole.bytes.as_ref()), (200, WEIGHTS));
    assert_eq!((whole.header("content-length"), whole.header("x-content-sha256")), ("1500", sha256(WEIGHTS).as_str()));
    let part = service.header("range", "bytes=1400-").get(&file).await;
    assert_eq!((part.status, part.header("content-range")), (206, "bytes 1400-1499/1500"));
    for name in
        ["nothing", "..%2F..%2Fetc%2Fpasswd", "%2Fetc%2Fpasswd", "adapter_config.json%00", "ADAPTER_CONFIG.JSON"]
    {
        assert_eq!(service.get(&format!("{}/artifacts/{name}", path(&job))).await.status, 404, "{name}");
    }
}

#[tokio::test]
async fn the_adapter_is_one_deterministic_tar() {
    let service = Service::start().await;
    let job = training::succeed(&service).await;
    let url = format!("{}/adapter", path(&job));
    let whole = service.get(&url).await;
    assert_eq!((whole.status, whole.header("content-type")), (200, "application/x-tar"));
    assert_eq!(whole.header("content-length"), whole.bytes.len().to_string());
    assert_eq!(whole.header("x-content-sha256"), sha256(&whole.bytes));
    assert_eq!(whole.header("etag"), format!("\"{}\"", sha256(&whole.bytes)));
    let mut archive = tar::Archive::new(whole.bytes.as_ref());
    let unpacked: Vec<(String, Vec<u8>)> = archive
        .entries()
        .expect("a tar")
        .map(|entry| {
            let mut entry = entry.expect("an entry");
            let name = entry.path().expect("a name").display().to_string();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).expect("its content");
            (name, content)
        })
        .collect();
    let expected = [
        ("adapter_config.json".to_owned(), CONFIG.to_vec()),
        ("adapter_model.safetensors".to_owned(), WEIGHTS.to_vec()),
    ];
    assert_eq!(unpacked, expected);
    assert_eq!(service.get(&url).await.bytes, whole.bytes);
    let mut joined = Vec::new();
    for range in ["bytes=0-599", "bytes=600-1999", "bytes=2000-"] {
        let part = service.header("range", range).get(&url).await;
        assert_eq!(part.status, 206, "{range}");
        joined.extend_from_slice(&part.bytes);
    }
    assert_eq!(joined, whole.bytes);
    let known = service.header("if-none-match", whole.header("etag")).get(&url).await;
    assert_eq!((known.status, known.bytes.len()), (304, 0));
}

#[tokio::test]
async fn an_evaluation_has_every_figure_and_its_rows_can_be_sorted_and_downloaded() {
    let service = Service::start().await;
    let job = training::succeed(&service).await;
    let evaluation = service.get(&format!("{}/evaluation", path(&job))).await.ok();
    let answers = &evaluation["report"]["answers"];
    assert_eq!((&answers["metrics"]["rouge_l"]["verdict"], &answers["answers"]), (&"better".into(), &json!([])));
    assert_eq!(evaluation["definitions"].as_array().map(Vec::len), Some(11));
    assert_eq!(evaluation["settings"]["thresholds"]["too_long_ratio"], 2.0);
    let rows = |query: &str| format!("{}/evaluation/rows?{query}", path(&job));
    let lines = |page: &Value| {
        page["data"].as_array().into_iter().flatten().filter_map(|row| row["line"].as_u64()).collect::<Vec<_>>()
    };
    let page = service.get(&rows("side=base&sort=rouge_l&limit=1")).await.ok();
    assert_eq!((lines(&page), &page["has_more"], &page["last_id"]), (vec![8], &true.into(), &"8".into()));
    let page = service.get(&rows("side=base&category=too_short")).await.ok();
    assert_eq!(lines(&page), [8]);
    assert_eq!(lines(&service.get(&rows("category=too_short")).await.ok()), Vec::<u64>::new());
    let table = service.get(&rows("format=csv")).await;
    assert_eq!(table.header("content-type"), "text/csv; charset=utf-8");
    let text = String::from_utf8_lossy(&table.bytes).into_owned();
    assert!(
        text.contains("\r\n3,Say it.,\"so, be it\",\"so, \"\"no\"\"\",\"so, be it\",true,true,,,0.5,1\r\n"),
        "{text}"
    );
    let file = service.get(&rows("format=jsonl&sort=rouge_l&order=desc&above=0.6")).await;
    assert_eq!(file.bytes.iter().filter(|byte| **byte == b'\n').count(), 1);
    for (query, param) in [
        ("sort=meteor", "sort"),
        ("category=rude", "category"),
        ("side=both", "side"),
        ("above=0.5", "sort"),
        ("after=4", "after"),
        ("format=xml", "format"),
        ("order=up", "order"),
    ] {
        assert_eq!(service.get(&rows(query)).await.refusal(), (400, param, "invalid_value"), "{query}");
    }
}

#[tokio::test]
async fn two_jobs_are_compared_on_the_rows_that_both_answered() {
    let service = Service::start().await;
    let (job, with) = (training::succeed(&service).await, training::succeed(&service).await);
    let compare = |query: String| format!("{}/compare?with={query}", path(&job));
    let id = |job: &Value| job["id"].as_str().unwrap_or_default().to_owned();
    let compared = service.get(&compare(format!("{}&sort=rouge_l&limit=1", id(&with)))).await.ok();
    // Nobody chose a seed, so that each job drew its own.
    let settings: Vec<&Value> =
        compared["settings"].as_array().into_iter().flatten().map(|one| &one["setting"]).collect();
    assert_eq!((&compared["shared_rows"], settings), (&2.into(), vec![&json!("/seed")]), "{compared}");
    let rouge = &compared["metrics"]["rouge_l"];
    assert_eq!((&rouge["rows"], &rouge["job"], &rouge["difference"]), (&2.into(), &0.75.into(), &0.0.into()));
    assert_eq!(compared["categories"]["too_short"]["verdict"], "no_difference_shown");
    let rows = &compared["rows"];
    assert_eq!((&rows["data"][0]["job"]["line"], &rows["has_more"]), (&3.into(), &true.into()));
    let rest = format!("{}&after={}", id(&with), rows["last_id"].as_str().unwrap_or_default());
    let rest = service.get(&compare(rest)).await.ok();
    assert_eq!((&rest["rows"]["data"][0]["with"]["line"], &rest["rows"]["has_more"]), (&8.into(), &false.into()));
    let unfinished = training::half_way(&service).await.job;
    for (query, refusal) in [
        (id(&unfinished), (400, "-", "invalid_state")),
        ("ftjob-00000000000070008000000000000000".into(), (400, "with", "invalid_value")),
        ("job".into(), (400, "with", "invalid_value")),
        (format!("{}&sort=bleu", id(&with)), (400, "sort", "invalid_value")),
        (format!("{}&after=x", id(&with)), (400, "after", "invalid_value")),
    ] {
        assert_eq!(service.get(&compare(query.clone())).await.refusal(), refusal, "{query}");
    }
    let missing = service.get(&format!("{}/compare", path(&job))).await;
    assert_eq!(missing.refusal(), (400, "with", "missing_required_parameter"));
}

#[tokio::test]
async fn a_job_without_results_has_no_report_yet() {
    let service = Service::start().await;
    let job = training::half_way(&service).await.job;
    let evaluation = service.get(&format!("{}/evaluation", path(&job))).await.ok();
    assert_eq!((&evaluation["status"], &evaluation["report"]), (&"running".into(), &Value::Null));
    let rows = service.get(&format!("{}/evaluation/rows", path(&job))).await.ok();
    assert_eq!(rows["data"], json!([]));
}

#[tokio::test]
async fn answers_are_seen_while_they_are_given() {
    let service = Service::start().await;
    let training = training::half_way(&service).await;
    let answer = AnsweredRow {
        by: Answerer::Base,
        line: 3,
        prompt: "Say it.".into(),
        reference: "so, be it".into(),
        text: "so, no".into(),
        ended: true,
    };
    let report = Report { last_line: 4, answers: vec![answer], ..Report::default() };
    service.database.store.report(&training.lease, &report).await.expect("reported");
    let rows = service.get(&format!("{}/evaluation/rows", path(&training.job))).await.ok();
    let expected = json!({"object": "fine_tuning.job.evaluation.row", "line": 3, "prompt": "Say it.",
                          "reference": "so, be it", "base": "so, no", "tuned": null, "base_ended": true,
                          "tuned_ended": null});
    assert_eq!((&rows["data"], &rows["last_id"]), (&json!([expected]), &"3".into()));
}

#[tokio::test]
async fn a_job_is_evaluated_again_by_other_settings() {
    let service = Service::start().await;
    let running = training::half_way(&service).await;
    let path_of = |job: &Value| format!("{}/evaluation", path(job));
    let ask = async |job: &Value, body: Value| {
        let request = service.header("idempotency-key", "once");
        request.send(Method::POST, &path_of(job), Some("application/json"), Body::from(body.to_string())).await
    };
    assert_eq!(ask(&running.job, json!({})).await.refusal(), (400, "-", "invalid_state"));
    let job = training::succeed(&service).await;
    for (body, param) in [
        (json!({"evaluation": {"metrics": ["meteor"]}}), "evaluation.metrics"),
        (json!({"evaluation": {"patterns": [{"name": "open", "pattern": "("}]}}), "evaluation.patterns"),
        (json!({"answers": {"rows": 0}}), "answers.rows"),
        (json!({"evaluation": {"during_training": {}}}), "evaluation.during_training"),
        (json!({"answers": {"max_new_tokens": 0}}), "answers.max_new_tokens"),
        (json!({"judge": {}}), "judge"),
    ] {
        let refused = ask(&job, body).await;
        assert_eq!((refused.status, refused.refusal().1), (400, param), "{}", refused.body);
    }
    let settings = json!({"evaluation": {"metrics": ["bleu"]}, "answers": {"rows": 2}});
    let run = ask(&job, settings.clone()).await.ok();
    assert_eq!((&run["status"], &run["report"]), (&"queued".into(), &Value::Null));
    assert_eq!(run["settings"]["evaluation"]["metrics"], json!(["bleu"]));
    assert_eq!(run["settings"]["evaluation"]["thresholds"]["too_long_ratio"], 2.0, "as the job has it");
    let again = ask(&job, settings).await;
    assert_eq!((again.header("idempotent-replayed"), &again.body["id"]), ("true", &run["id"]));
    assert_eq!(ask(&job, json!({})).await.status, 422);
    let run_id = run["id"].as_str().expect("an id");
    let one = service.get(&format!("{}?run={run_id}", path_of(&job))).await.ok();
    assert_eq!((&one["run"], &one["run_status"], &one["report"]), (&run["id"], &"queued".into(), &Value::Null));
    training::evaluate(&service, "a report of bleu").await;
    let one = service.get(&format!("{}?run={run_id}", path_of(&job))).await.ok();
    assert_eq!((&one["run_status"], &one["report"]["answers"]["rows"]), (&"succeeded".into(), &2.into()));
    assert_eq!(one["report"]["answers"]["not_judged"], json!(["a report of bleu"]));
    let own = service.get(&path_of(&job)).await.ok();
    assert_eq!((&own["run"], &own["report"]["answers"]["not_judged"]), (&Value::Null, &json!([])));
    let runs = service.get(&format!("{}s", path_of(&job))).await.ok();
    assert_eq!((runs["data"].as_array().map(Vec::len), &runs["first_id"]), (Some(1), &run["id"]));
    let rows = service.get(&format!("{}/rows?run={run_id}", path_of(&job))).await.ok();
    assert_eq!(rows["data"].as_array().map(Vec::len), Some(2));
    let unknown = format!("{}?run=ftevalrun-{}", path_of(&job), "0".repeat(32));
    assert_eq!(service.get(&unknown).await.refusal(), (400, "run", "invalid_value"));
}
