//! The main job with the official OpenAI package, on the bundled base model.

use anyhow::Result;
use finetuned_tests::{Service, python, rows};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn the_official_client_runs_the_whole_main_job() -> Result<()> {
    let service = Service::start().await?;
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("rows.jsonl");
    std::fs::write(&path, rows::chat(24))?;
    let settings = json!({
        "max_steps": 3, "batch_size": 4, "evaluate_every": 2, "checkpoint_every": 2,
        "optimizer": {"learning_rate": 2e-3}, "answers": {"rows": 2, "max_new_tokens": 12},
        "lora": {"r": 4, "alpha": 8, "target_modules": ["q_proj", "v_proj"]},
    });
    let arguments = [&service.client.url, "smollm2-135m-instruct", &path.to_string_lossy(), &settings.to_string()];
    let seen: Value = serde_json::from_str(&python::run("main_job.py", &arguments).await?)?;

    assert_eq!(seen["steps"], json!([3, 2]));
    assert_eq!(seen["effective"]["lora"]["target_modules"], json!(["q_proj", "v_proj"]));
    assert_eq!(seen["effective"]["total_steps"], 3);
    let evaluation = &seen["evaluation"];
    let steps: Vec<_> =
        evaluation["history"].as_array().unwrap().iter().map(|at| at["step"].as_u64().unwrap()).collect();
    assert_eq!(steps, [0, 2, 3]);
    assert!(evaluation["tuned"]["loss"].as_f64() < evaluation["base"]["loss"].as_f64(), "{evaluation:#}");
    assert_eq!(evaluation["answers"]["rows"], 2);
    assert!(evaluation["tuned"]["bits_per_byte"].as_f64() < evaluation["base"]["bits_per_byte"].as_f64());
    assert!(evaluation["base"]["bits_per_byte"].as_f64() > Some(0.1));
    // Each metric of both models, each kind of error, and nothing left unjudged.
    for metric in ["rouge_l", "bleu", "chrf", "edit_similarity"] {
        let compared = &evaluation["answers"]["metrics"][metric];
        assert!(
            compared["low"].as_f64() <= compared["difference"].as_f64() && compared["rows"] == 2,
            "{metric}: {compared}"
        );
    }
    // The answers are cut off after twelve tokens.
    assert_eq!(evaluation["answers"]["categories"]["too_long"]["base"], 1.0);
    assert!(evaluation["answers"]["categories"]["misspelled"].is_object(), "{evaluation:#}");
    assert_eq!(evaluation["answers"]["not_judged"], json!([]));
    assert!(seen["parity"]["largest_reload_difference"].as_f64() <= seen["parity"]["tolerance"].as_f64());
    assert!(seen["parity"]["largest_difference_from_base"].as_f64() > Some(1e-3));
    Ok(())
}
