//! Creating jobs: what is refused, and in which words.

use axum::{body::Body, http::Method};
use finetuned_outbound::{JudgeEndpoint, Judges};
use serde_json::{Value, json};

use super::service::{BASE_MODEL, GOOD_ROWS, Service};

#[tokio::test]
async fn a_job_as_it_is_created() {
    let service = Service::start().await;
    let file = service.training_file().await;
    let request = json!({
        "model": BASE_MODEL, "training_file": file, "suffix": "colours", "seed": 7, "metadata": {"team": "a"},
        "hyperparameters": {"n_epochs": 2}, "lora": {"r": 8, "target_modules": ["q_proj"]}, "validation_file": null,
    });
    let job = service.create_job(request).await.ok();
    insta::assert_json_snapshot!(job, {
        ".id" => "[id]", ".created_at" => "[time]", ".training_file" => "[file]", ".organization_id" => "[org]",
        ".base_model_sha256" => "[sha256]",
    }, @r#"
    {
      "id": "[id]",
      "object": "fine_tuning.job",
      "created_at": "[time]",
      "finished_at": null,
      "status": "validating_files",
      "model": "HuggingFaceTB/SmolLM2-135M-Instruct",
      "fine_tuned_model": null,
      "organization_id": "[org]",
      "training_file": "[file]",
      "validation_file": null,
      "hyperparameters": {
        "batch_size": "auto",
        "learning_rate_multiplier": "auto",
        "n_epochs": 2
      },
      "method": {
        "type": "supervised",
        "supervised": {
          "hyperparameters": {
            "batch_size": "auto",
            "learning_rate_multiplier": "auto",
            "n_epochs": 2
          }
        }
      },
      "seed": 7,
      "trained_tokens": null,
      "result_files": [],
      "error": null,
      "estimated_finish": null,
      "integrations": null,
      "metadata": {
        "team": "a"
      },
      "started_at": null,
      "priority": 0,
      "retry_of": null,
      "queue_position": null,
      "estimated_start": null,
      "paused": false,
      "pause_requested": false,
      "waiting_reason": null,
      "suspension": null,
      "base_model_sha256": "[sha256]",
      "effective": null,
      "dataset": null,
      "estimate": null,
      "progress": null,
      "evaluation": null,
      "parity": null
    }
    "#);
    let path = format!("/v1/fine_tuning/jobs/{}", job["id"].as_str().unwrap_or_default());
    let mut later = service.get(&path).await.ok();
    assert_eq!(later["waiting_reason"].take(), "no worker is running");
    assert_eq!(later, job);
}

#[tokio::test]
async fn a_seed_is_drawn_where_none_is_given() {
    let service = Service::start().await;
    let seeds = [service.job().await["seed"].as_u64(), service.job().await["seed"].as_u64()];
    assert!(
        seeds.iter().all(|seed| seed.is_some_and(|seed| seed <= 2_147_483_647)) && seeds[0] != seeds[1],
        "{seeds:?}"
    );
}

#[tokio::test]
async fn refusals_name_the_field_and_what_is_allowed() {
    let service = Service::start().await;
    let file = service.training_file().await;
    for (extra, refusal, words) in [
        (json!({"lora": {"rank": 8}}), ("lora.rank", "unknown_parameter"), "expected one of `r`"),
        (json!({"epochs": 8}), ("epochs", "unknown_parameter"), "unknown field `epochs`"),
        (json!({"lora": {"r": 1000}}), ("lora.r", "invalid_value"), "between 1 and 512"),
        (json!({"lora": {"r": "big"}}), ("lora.r", "invalid_value"), "expected u32"),
        (json!({"lora": {"target_modules": ["w_pack"]}}), ("lora.target_modules", "invalid_value"), "q_proj, k_proj"),
        (json!({"template": "{% for m in messages %}"}), ("template", "invalid_value"), "line 1"),
        (
            json!({"lora": {"rank_pattern": {"w_pack": 4}}}),
            ("lora.rank_pattern", "invalid_value"),
            "none of the target",
        ),
        (json!({"lora": {"init": "svd"}}), ("lora.init", "invalid_value"), "`pissa`"),
        (json!({"full": {}, "ia3": {}}), ("ia3", "invalid_value"), "absent where `full` is given"),
        (json!({"full": {"last_layers": 1000}}), ("full.last_layers", "invalid_value"), "the layers of this model"),
        (json!({"full": {"layers": 1}}), ("full.layers", "unknown_parameter"), "expected `last_layers`"),
        (
            json!({"prefix_tuning": {"num_virtual_tokens": 2000}}),
            ("prefix_tuning.num_virtual_tokens", "invalid_value"),
            "between 1 and 1024",
        ),
        (json!({"max_seq_len": 9000}), ("max_seq_len", "invalid_value"), "at most 8192"),
        (json!({"method": {"type": "reinforcement"}}), ("method.type", "invalid_value"), "not built yet"),
        (json!({"method": {"type": "dpo"}}), ("method.type", "invalid_value"), "are instructions with outputs"),
        (
            json!({"method": {"type": "dpo", "dpo": {"hyperparameters": {"beta": 3}}}}),
            ("method.dpo.hyperparameters.beta", "invalid_value"),
            "at most 2",
        ),
        (json!({"seed": -1}), ("seed", "invalid_value"), "expected u32"),
        (
            json!({"evaluation": {"metrics": ["rouge_l", "meteor"]}}),
            ("evaluation.metrics", "invalid_value"),
            "no metric is called `meteor`",
        ),
        (
            json!({"evaluation": {"patterns": [{"name": "open", "pattern": "a(b"}]}}),
            ("evaluation.patterns", "invalid_value"),
            "`open` does not compile",
        ),
        (
            json!({"evaluation": {"patterns": [{"name": "huge", "pattern": "(\\w{500}){500}"}]}}),
            ("evaluation.patterns", "invalid_value"),
            "size limit",
        ),
        (
            json!({"evaluation": {"thresholds": {"too_long_ratio": 1}}}),
            ("evaluation.thresholds.too_long_ratio", "invalid_value"),
            "above 1",
        ),
        (json!({"integrations": [{"type": "wandb"}]}), ("integrations", "invalid_value"), "absent or empty"),
        (json!({"model": "gpt-4o-mini"}), ("model", "model_not_found"), BASE_MODEL),
        (json!({"model": 4}), ("model", "invalid_value"), "expected a string"),
        (json!({"training_file": "file-1"}), ("training_file", "invalid_training_file"), "does not exist"),
        (
            json!({"validation_file": "file-00000000000000000000000000000000"}),
            ("validation_file", "invalid_validation_file"),
            "does not exist",
        ),
    ] {
        let mut request = json!({"model": BASE_MODEL, "training_file": file});
        for (name, value) in extra.as_object().into_iter().flatten() {
            request[name] = value.clone();
        }
        let answer = service.create_job(request).await;
        assert_eq!(answer.refusal(), (400, refusal.0, refusal.1), "{extra}: {}", answer.body);
        assert!(answer.message().contains(words), "{extra}: {}", answer.message());
        assert_eq!(answer.header("x-should-retry"), "false");
    }
    assert_eq!(service.get("/v1/fine_tuning/jobs").await.ok()["data"], json!([]));
}

#[tokio::test]
async fn a_preference_job_is_echoed_in_openais_words() {
    let service = Service::start().await;
    let pair = |word: &str| json!({"prompt": word, "chosen": "a", "rejected": "b"}).to_string() + "\n";
    let pairs = pair("q") + &pair("r");
    let file = service.upload("fine-tune", pairs.as_bytes()).await.ok();
    assert_eq!(file["lint"]["format"], "preference");
    let method = |hyperparameters: Value| json!({"type": "dpo", "dpo": {"hyperparameters": hyperparameters}});
    let create = async |method: Value| {
        service.create_job(json!({"model": BASE_MODEL, "training_file": file["id"], "method": method})).await
    };
    let job = create(method(json!({"beta": 0.5, "label_smoothing": 0.1, "n_epochs": 2}))).await.ok();
    let echoed = json!({
        "beta": 0.5, "label_smoothing": 0.1, "batch_size": "auto", "learning_rate_multiplier": "auto", "n_epochs": 2,
    });
    assert_eq!(job["method"], method(echoed));
    assert_eq!(create(json!({"type": "dpo"})).await.ok()["method"]["dpo"]["hyperparameters"]["beta"], "auto");
    let refused = create(json!({"type": "supervised"})).await;
    assert_eq!(refused.refusal(), (400, "method.type", "invalid_value"));
    assert!(refused.message().contains("must be `dpo`"), "{}", refused.message());
}

#[tokio::test]
async fn bodies_that_are_no_request() {
    let service = Service::start().await;
    let send = async |content_type: &str, body: &str| {
        let (path, body) = ("/v1/fine_tuning/jobs", Body::from(body.to_owned()));
        service.header("x", "y").send(Method::POST, path, Some(content_type), body).await
    };
    for (content_type, body, refusal) in [
        ("text/plain", "{}", (400, "content-type", "invalid_body")),
        ("application/json", "", (400, "-", "invalid_body")),
        ("application/json", "{\"model\": ", (400, "-", "invalid_body")),
        ("application/json", "{}", (400, "model", "missing_required_parameter")),
        ("application/json; charset=utf-8", "{} {}", (400, "model", "missing_required_parameter")),
        ("application/json", "{\"model\": \"a\\u0000\", \"training_file\": \"b\"}", (400, "-", "invalid_body")),
    ] {
        let answer = send(content_type, body).await;
        assert_eq!(answer.refusal(), refusal, "{content_type} {body}: {}", answer.body);
    }
    let long = format!("{{\"model\": \"{}\"}}", "m".repeat(2 << 20));
    assert_eq!(send("application/json", &long).await.refusal(), (413, "-", "body_too_large"));
    let deep = "[".repeat(100_000);
    assert_eq!(send("application/json", &deep).await.status, 400);
}

#[tokio::test]
async fn a_file_in_error_is_refused_with_its_rows() {
    let service = Service::start().await;
    let rows = "{\"instruction\": \"Say.\", \"output\": \"\"}\n".repeat(130);
    let file = service.upload("fine-tune", format!("{GOOD_ROWS}{rows}").as_bytes()).await.ok();
    let answer = service.create_job(json!({"model": BASE_MODEL, "training_file": file["id"]})).await;
    assert_eq!(answer.refusal(), (400, "training_file", "invalid_training_file"));
    let error = &answer.body["error"];
    let details = error["details"].as_array().map(Vec::as_slice).unwrap_or_default();
    assert_eq!((details.len(), &error["details_total"]), (100, &130.into()), "{}", answer.message());
    let first = &details[0];
    assert_eq!(
        (&first["line"], &first["severity"], &first["rule"]),
        (&3.into(), &"error".into(), &"answer_empty".into())
    );
    assert!(first["pointer"].is_string() && first["reason"].is_string(), "{first}");
    assert!(answer.message().contains("130 of 132 rows"), "{}", answer.message());
}

#[tokio::test]
async fn a_file_of_another_purpose_is_refused() {
    let service = Service::start().await;
    let file = service.upload("batch", GOOD_ROWS.as_bytes()).await.ok();
    let answer = service.create_job(json!({"model": BASE_MODEL, "training_file": file["id"]})).await;
    assert_eq!(answer.refusal(), (400, "training_file", "invalid_training_file"));
    assert!(answer.message().contains("must be `fine-tune`"), "{}", answer.message());
    let good = service.training_file().await;
    let request = json!({"model": BASE_MODEL, "training_file": good, "validation_file": file["id"]});
    let answer = service.create_job(request).await;
    assert_eq!(answer.refusal(), (400, "validation_file", "invalid_validation_file"));
}

#[tokio::test]
async fn both_files_are_named_in_the_job() {
    let service = Service::start().await;
    let (train, valid) = (service.training_file().await, service.training_file().await);
    let job = service.create_job(json!({"model": BASE_MODEL, "training_file": train, "validation_file": valid})).await;
    let job = job.ok();
    let named = (job["training_file"].clone(), job["validation_file"].clone());
    assert_eq!(named, (Value::from(train), Value::from(valid)));
}

#[tokio::test]
async fn a_judge_is_one_of_the_operators_list_or_a_model_of_the_service() {
    let endpoint = |url: &str, model: Option<&str>| JudgeEndpoint {
        url: url.into(),
        model: model.map(str::to_owned),
        api_key: Some("sk-secret".to_owned().into()),
    };
    let judges = vec![
        endpoint("https://1.1.1.1/v1", Some("wise")),
        endpoint("https://10.0.0.7/v1", Some("near")),
        endpoint("https://localhost/v1", Some("here")),
        endpoint("http://1.0.0.1/v1", Some("plain")),
        endpoint("https://1.0.0.1/v1", None),
    ];
    let service = Service::with(|options| options.judges = Judges::new(judges).expect("a list")).await;
    let file = service.training_file().await;
    let create = async |judge: Value, answers: Value| {
        let evaluation = json!({ "judge": judge });
        let body = json!({"model": BASE_MODEL, "training_file": file, "evaluation": evaluation, "answers": answers});
        service.create_job(body).await
    };
    for (judge, param, words) in [
        (json!({"url": "https://8.8.8.8/v1"}), "evaluation.judge.url", "not on the operator's list"),
        (json!({"url": "https://10.0.0.7/v1"}), "evaluation.judge.url", "private"),
        (json!({"url": "https://localhost/v1"}), "evaluation.judge.url", "private"),
        (json!({"url": "http://1.0.0.1/v1"}), "evaluation.judge.url", "https://"),
        (json!({"url": "https://1.0.0.1/v1"}), "evaluation.judge.model", "name the judging model"),
        (json!({"service_model": "nobody"}), "evaluation.judge.service_model", "no model is called `nobody`"),
        (json!({"criteria": ["beauty"]}), "evaluation.judge.criteria", "`correctness`"),
        (json!({"votes": 2}), "evaluation.judge.votes", "odd"),
        (json!({"key": "sk-mine"}), "evaluation.judge.key", "unknown"),
    ] {
        let answer = create(judge.clone(), Value::Null).await;
        assert_eq!((answer.status, answer.refusal().1), (400, param), "{judge}: {}", answer.body);
        assert!(answer.message().contains(words), "{judge}: {}", answer.message());
    }
    assert_eq!(create(json!({}), json!({"rows": 0})).await.refusal().1, "answers.rows");
    for judge in [
        json!({}),
        json!({"url": "https://1.1.1.1/v1/", "rubric": true}),
        json!({"url": "https://1.0.0.1/v1", "model": "mine"}),
        json!({"service_model": BASE_MODEL}),
    ] {
        let job = create(judge.clone(), Value::Null).await.ok();
        assert!(!job.to_string().contains("sk-secret"), "{job}");
    }
    let without = Service::start().await;
    let file = without.training_file().await;
    let body = json!({"model": BASE_MODEL, "training_file": file, "evaluation": {"judge": {}}});
    let answer = without.create_job(body).await;
    assert_eq!(answer.refusal().1, "evaluation.judge");
    assert!(answer.message().contains("the operator has no judge"), "{}", answer.message());
}

#[tokio::test]
async fn a_set_to_evaluate_on_must_have_a_row() {
    let service = Service::start().await;
    let one = GOOD_ROWS.lines().next().unwrap_or_default().to_owned() + "\n";
    let file = service.upload("fine-tune", one.as_bytes()).await.ok();
    let refused = service.create_job(json!({"model": BASE_MODEL, "training_file": file["id"]})).await;
    assert_eq!(refused.refusal(), (400, "training_file", "invalid_training_file"));
    assert!(refused.message().contains("none can be held out"), "{}", refused.message());
    let both =
        json!({"model": BASE_MODEL, "training_file": file["id"], "validation_file": service.training_file().await});
    service.create_job(both).await.ok();
}
