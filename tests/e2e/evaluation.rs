//! A job is evaluated again: by other metrics of the same answers, and with other answers while its worker is killed.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use finetuned_tests::{Service, ServiceOptions, rows};
use serde_json::{Value, json};

const JOB: Duration = Duration::from_secs(120);

/// Polls a further evaluation until `done` says so.
async fn wait_for(service: &Service, job: &str, run: &str, done: impl Fn(&Value) -> bool) -> Result<Value> {
    let start = Instant::now();
    loop {
        let found = service.client.get(&format!("/v1/fine_tuning/jobs/{job}/evaluation?run={run}")).await?.success()?;
        if done(&found) {
            return Ok(found);
        }
        ensure!(start.elapsed() < JOB, "still waiting: {found:#}\n{}", service.server.log_text());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn succeeded(run: &Value) -> bool {
    run["run_status"] == "succeeded"
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_evaluated_again_side_by_side() -> Result<()> {
    let service = Service::start().await?;
    service.add_tiny_model()?;
    let settings = json!({"max_steps": 6, "batch_size": 4, "answers": {"rows": 3, "max_new_tokens": 6}});
    let job = service.tiny_job(&rows::alpaca(40), settings).await?;
    service.client.wait_for_success(&job, JOB).await?;
    let path = format!("/v1/fine_tuning/jobs/{job}/evaluation");
    let own = service.client.get(&path).await?.success()?;
    // The same answers by another metric: no model is needed.
    let body =
        json!({"evaluation": {"metrics": ["rouge_5_unicode", "chrf"], "patterns": [{"name": "a", "pattern": "a"}]}});
    let metrics = service.client.post(&path, &body).await?.success()?;
    let metrics = wait_for(&service, &job, metrics["id"].as_str().unwrap(), succeeded).await?;
    let answers = &metrics["report"]["answers"];
    assert_eq!(answers["metrics"].as_object().unwrap().keys().collect::<Vec<_>>(), ["rouge_5_unicode", "chrf"]);
    assert_eq!(answers["metrics"]["chrf"], own["report"]["answers"]["metrics"]["chrf"], "the same answers");
    assert!(answers["categories"]["a"].is_object());
    // Longer answers to more rows: the published adapter is asked.
    let body = json!({"answers": {"rows": 4, "max_new_tokens": 12}});
    let longer = service.client.post(&path, &body).await?.success()?;
    let run = longer["id"].as_str().unwrap().to_owned();
    let longer = wait_for(&service, &job, &run, succeeded).await?;
    assert_eq!(longer["report"]["answers"]["rows"], 4);
    let rows_of = async |query: &str| {
        let page = service.client.get(&format!("{path}/rows?{query}")).await?.success()?;
        Ok::<_, anyhow::Error>(page["data"].as_array().unwrap().clone())
    };
    let (short, long) = (rows_of("").await?, rows_of(&format!("run={run}")).await?);
    assert_eq!((short.len(), long.len()), (3, 4));
    for (short, long) in short.iter().zip(&long) {
        for who in ["base", "tuned"] {
            let (short, long) = (short[who].as_str().unwrap(), long[who].as_str().unwrap());
            // Where the limit cuts a character in two, what is left of it is not the character.
            let whole = short.trim_end_matches('\u{fffd}');
            assert!(long.starts_with(whole), "greedy answers go on alike: {short:?}, {long:?}");
        }
    }
    let listed = service.client.get(&format!("{path}s")).await?.success()?;
    assert_eq!(listed["data"].as_array().unwrap().len(), 2);
    assert_eq!(service.client.get(&path).await?.success()?, own, "the job's own report stays");
    assert!(service.engines()?.is_empty());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_worker_loses_no_answer() -> Result<()> {
    let options = ServiceOptions {
        without_worker: true,
        environment: vec![("FINETUNED_TIME_SCALE".into(), "0.1".into())],
        ..Default::default()
    };
    let mut service = Service::start_with(options).await?;
    service.add_tiny_model()?;
    let first = service.start_worker(&[])?;
    let settings = json!({"max_steps": 2, "batch_size": 4, "eval_fraction": 0.5,
                          "answers": {"rows": 1, "max_new_tokens": 2}});
    let job = service.tiny_job(&rows::alpaca(400), settings).await?;
    service.client.wait_for_success(&job, JOB).await?;
    let path = format!("/v1/fine_tuning/jobs/{job}/evaluation");
    let body = json!({"answers": {"rows": 192, "max_new_tokens": 64}});
    let run = service.client.post(&path, &body).await?.success()?["id"].as_str().unwrap().to_owned();
    let answered = async |service: &Service| {
        let page = service.client.get(&format!("{path}/rows?run={run}&limit=256")).await?.success()?;
        Ok::<_, anyhow::Error>(page["data"].as_array().unwrap().clone())
    };
    let start = Instant::now();
    let before = loop {
        let before = answered(&service).await?;
        if before.len() >= 16 {
            break before;
        }
        ensure!(start.elapsed() < JOB, "no answers: {}", service.workers[first].log_text());
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    service.workers[first].kill()?;
    assert!(before.iter().any(|row| row["tuned"].is_null()), "killed in the middle");
    service.start_worker(&[])?;
    let done = wait_for(&service, &job, &run, succeeded).await?;
    assert_eq!(done["report"]["answers"]["rows"], 192);
    let after = answered(&service).await?;
    for row in &before {
        let same = after.iter().find(|other| other["line"] == row["line"]).unwrap();
        assert_eq!(same["base"], row["base"]);
    }
    let job = service.client.job(&job).await?;
    assert_eq!((&job["status"], &job["error"]["message"]), (&json!("succeeded"), &Value::Null));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_of_this_service_judges_and_no_verdict_is_guessed() -> Result<()> {
    let service = Service::start().await?;
    let file = service.client.upload("rows.jsonl", rows::chat(24)).await?;
    let model = "smollm2-135m-instruct";
    let body = json!({
        "model": model, "training_file": file["id"], "seed": 7, "max_steps": 2, "batch_size": 4,
        "lora": {"r": 4, "alpha": 8, "target_modules": ["q_proj", "v_proj"]},
        "answers": {"rows": 2, "max_new_tokens": 12},
        "evaluation": {"judge": {"service_model": model, "rubric": true, "criteria": ["correctness"], "votes": 1}},
    });
    let job = service.client.create_job(&body).await?["id"].as_str().unwrap().to_owned();
    let published = service.client.wait_for_success(&job, JOB * 2).await?;
    assert!(published["fine_tuned_model"].is_string());
    let listed = service.client.get(&format!("/v1/fine_tuning/jobs/{job}/evaluations")).await?.success()?;
    let run = &listed["data"][0];
    assert_eq!(run["is_of_job"], true);
    let done = wait_for(&service, &job, run["id"].as_str().unwrap(), succeeded).await?;
    let judge = &done["report"]["answers"]["judge"];
    assert_eq!((&judge["model"], &judge["url"], &judge["rows"]), (&json!(model), &Value::Null, &json!(2)));
    // Two comparisons and two questions an answer, each asked once more where the reply was no verdict.
    let (calls, unparseable) = (judge["calls"].as_u64().unwrap(), judge["unparseable"].as_u64().unwrap());
    let cached = judge["cached"].as_u64().unwrap();
    assert!((12..=24).contains(&(calls + cached)) && unparseable <= 12, "{judge:#}");
    let rows = service.client.get(&format!("/v1/fine_tuning/jobs/{job}/evaluation/rows")).await?.success()?;
    let mut without = 0;
    for row in rows["data"].as_array().unwrap() {
        let pair = &row["judgement"]["pairwise"];
        without +=
            [&pair["base_first"], &pair["tuned_first"]].iter().filter(|verdict| verdict.is_null()).count() as u64;
        assert_eq!(pair["outcome"].is_null(), pair["base_first"].is_null() || pair["tuned_first"].is_null());
        for who in ["base", "tuned"] {
            let answer = &row["judgement"][who];
            without += u64::from(answer["rubric"].is_null()) + u64::from(answer["holds"]["correctness"].is_null());
        }
    }
    assert_eq!(without, unparseable, "what is no verdict is counted, and nothing else is missing");
    Ok(())
}
