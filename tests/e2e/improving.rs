//! From errors to the data and back: rows to mend, the next version, two jobs side by side, people's ratings, DPO.

use std::time::Duration;

use anyhow::{Context, Result};
use finetuned_tests::{Service, client::Client, rows};
use reqwest::Method;
use serde_json::{Value, json};

const JOB: Duration = Duration::from_secs(180);
/// Line of the row that teaches the wrong thing.
const PLANTED: u64 = 13;

fn secret(output: &str) -> Result<String> {
    let found = output.split_whitespace().find(|word| word.starts_with("ft-"));
    found.map(str::to_owned).context("no key was shown")
}

/// Thirty rows with answers of one word, and one that goes on for long.
fn training_rows() -> String {
    let mut lines: Vec<String> = rows::alpaca(30).lines().map(str::to_owned).collect();
    let long = "the colour of this number is hard to tell and ".repeat(8);
    let planted = json!({"instruction": "Which colour has number 77?", "input": "", "output": long.trim()});
    lines.insert(PLANTED as usize - 1, planted.to_string());
    lines.join("\n") + "\n"
}

/// Rows that no training row equals.
fn held_out_rows() -> String {
    rows::alpaca(40).lines().skip(32).map(|line| format!("{line}\n")).collect()
}

struct Stage {
    service: Service,
    owner: Client,
    raters: [Client; 2],
    held_out: Value,
}

impl Stage {
    async fn set() -> Result<Self> {
        let service = Service::start().await?;
        service.add_tiny_model()?;
        let key = |arguments: &[&str]| secret(&service.run(&[&["keys", "create"], arguments].concat())?);
        let owner = service.client.with_key(key(&["owner"])?);
        let rater = |name| Ok::<_, anyhow::Error>(service.client.with_key(key(&["--scope", "rate", name])?));
        let raters = [rater("anna")?, rater("ben")?];
        let held_out = owner.upload("held-out.jsonl", held_out_rows()).await?["id"].clone();
        Ok(Self { service, owner, raters, held_out })
    }

    async fn job(&self, file: &Value, settings: Value) -> Result<Value> {
        let mut body = json!({"model": "tiny-chat", "training_file": file, "validation_file": self.held_out, "seed": 7,
                              "batch_size": 4, "max_steps": 6, "optimizer": {"learning_rate": 1e-2},
                              "answers": {"rows": 8, "max_new_tokens": 6}});
        body.as_object_mut().context("an object")?.extend(settings.as_object().context("settings")?.clone());
        let job = self.owner.create_job(&body).await?;
        self.owner.wait_for_success(job["id"].as_str().context("an id")?, JOB).await
    }

    async fn get(&self, path: &str) -> Result<Value> {
        self.owner.get(path).await?.success()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_lead_to_rows_and_ratings_to_pairs() -> Result<()> {
    let stage = Stage::set().await?;
    let first_file = stage.owner.upload("rows.jsonl", training_rows()).await?;
    let first = stage.job(&first_file["id"], json!({})).await?;
    let second_file = mended(&stage, &first).await?;
    let second = stage.job(&second_file["id"], json!({})).await?;
    side_by_side(&stage, &first, &second).await?;
    let pairs = rated(&stage, &second).await?;
    let dpo = json!({"method": {"type": "dpo"}, "validation_file": null, "max_steps": 2, "batch_size": 1});
    let dpo = stage.job(&pairs, dpo).await?;
    assert_eq!(dpo["effective"]["objective"]["type"], "dpo");
    drop(stage.service);
    Ok(())
}

/// The list names the planted row first; mended, it makes the next version.
async fn mended(stage: &Stage, job: &Value) -> Result<Value> {
    let path = format!("/v1/fine_tuning/jobs/{}/evaluation/mend", job["id"].as_str().unwrap());
    let list = stage.get(&path).await?;
    // `make` brings the encoder and the dictionary.
    assert_eq!((&list["method"], &list["training_rows"]), (&json!("embedding"), &json!(31)), "{list:#}");
    assert_eq!((&list["training_rows_looked_at"], &list["not_judged"]), (&json!(31), &json!([])));
    let too_long = list["categories"].as_array().unwrap().iter().find(|one| one["category"] == "too_long");
    let too_long = too_long.context("answers that are cut off are too long")?;
    assert_eq!(too_long["training_lines"], json!([PLANTED]));
    let nearest = too_long["worst"][0]["nearest"].as_array().unwrap();
    assert!(nearest.len() == 5 && nearest[0]["similarity"].as_f64() > Some(0.5), "{nearest:?}");
    let row = list["data"].as_array().unwrap().iter().find(|row| row["line"] == PLANTED).context("it is not named")?;
    assert!(row["rank"].as_u64() <= Some(3), "{row:#}");
    assert_eq!(
        (&row["pointer"], &row["row"]["instruction"]),
        (&json!("/output"), &json!("Which colour has number 77?"))
    );
    assert!(row["reason"].as_str().unwrap().starts_with("its own answer is"), "{row}");
    let table = String::from_utf8(stage.owner.bytes(&format!("{path}?format=csv&limit=1")).await?)?;
    assert!(table.starts_with("rank,line,pointer,score,reason,categories,row\r\n1,"), "{table}");

    let lines = String::from_utf8(stage.owner.bytes(&format!("{path}?format=jsonl")).await?)?;
    let edited = lines.lines().map(|line| {
        let mut line: Value = serde_json::from_str(line).unwrap();
        if line["line"] == PLANTED {
            line["row"]["output"] = json!("red");
        }
        format!("{line}\n")
    });
    let file = job["training_file"].as_str().unwrap();
    let request = stage.owner.request(Method::POST, &format!("/v1/files/{file}/versions"));
    let request = request.header("content-type", "application/jsonl").body(edited.collect::<String>());
    let version = stage.owner.send(request).await?.success()?;
    assert_eq!((&version["changed_rows"], &version["removed_rows"]), (&json!(1), &json!(0)), "{version}");
    let next = version["file"].clone();
    assert_eq!((&next["version"], &next["parent"], &next["status"]), (&json!(2), &json!(file), &json!("processed")));
    let diff = stage.get(&format!("/v1/files/{file}/diff?with={}", next["id"].as_str().unwrap())).await?;
    assert_eq!((&diff["changed_rows"], &diff["data"][0]["line"]), (&json!(1), &json!(PLANTED)), "{diff:#}");
    assert_eq!(diff["data"][0]["after"]["output"], "red");
    Ok(next)
}

async fn side_by_side(stage: &Stage, first: &Value, second: &Value) -> Result<()> {
    let (first, second) = (first["id"].as_str().unwrap(), second["id"].as_str().unwrap());
    let compared = stage.get(&format!("/v1/fine_tuning/jobs/{first}/compare?with={second}&sort=rouge_l")).await?;
    assert_eq!((&compared["shared_rows"], &compared["settings"]), (&json!(8), &json!([])), "{compared:#}");
    let chrf = &compared["metrics"]["chrf"];
    assert!(chrf["rows"] == 8 && chrf["low"].as_f64() <= chrf["difference"].as_f64(), "{chrf}");
    assert_eq!(compared["rows"]["data"].as_array().map(Vec::len), Some(8));
    // Rows of a job's own split are not those of the validation file.
    let file = stage.owner.upload("others.jsonl", rows::alpaca(20)).await?;
    let alone = json!({"validation_file": null, "eval_fraction": 0.2, "max_steps": 2});
    let alone = stage.job(&file["id"], alone).await?;
    let path = format!("/v1/fine_tuning/jobs/{first}/compare?with={}", alone["id"].as_str().unwrap());
    let refused = stage.owner.get(&path).await?.refusal(400)?;
    assert_eq!(refused["param"], "with");
    assert!(refused["message"].as_str().unwrap().contains("no held-out row was answered by both"), "{refused}");
    Ok(())
}

/// Two people of one mind rate what base and tuned said; the file of their preferences.
async fn rated(stage: &Stage, job: &Value) -> Result<Value> {
    let request = json!({"fine_tuning_job_id": job["id"], "ratings_per_row": 2});
    let task = stage.owner.post("/v1/rating_tasks", &request).await?.success()?;
    let items = task["items"].as_u64().unwrap();
    assert!(items > 0 && items + task["equal_rows"].as_u64().unwrap() == 8, "{task}");
    let path = format!("/v1/rating_tasks/{}", task["id"].as_str().unwrap());
    // Who may only rate sees neither the task nor what others said.
    stage.raters[0].get(&path).await?.refusal(403)?;
    let (anna, ben) = tokio::join!(rate_all(&stage.raters[0], &path), rate_all(&stage.raters[1], &path));
    assert_eq!((anna?, ben?), (items, items));
    let agreement = stage.get(&format!("{path}/agreement")).await?;
    let pair = &agreement["cohen_kappa"][0];
    assert_eq!((&pair["items"], &pair["observed"]), (&json!(items), &json!(1.0)), "{agreement:#}");
    assert_eq!(agreement["krippendorff_alpha"]["values"], 2 * items);
    let export =
        stage.owner.post(&format!("{path}/ratings/export"), &json!({"format": "preference"})).await?.success()?;
    assert_eq!(
        (&export["file"]["status"], &export["file"]["lint"]["format"]),
        (&json!("processed"), &json!("preference"))
    );
    assert!(export["rows"].as_u64() > Some(0), "{export}");
    Ok(export["file"]["id"].clone())
}

/// Rates until nothing is left; prefers what comes first in the alphabet, whoever said it, and knows better.
async fn rate_all(rater: &Client, task: &str) -> Result<u64> {
    let mut rated = 0;
    loop {
        let next = rater.control(&format!("{task}/next")).await?.success()?;
        let item = &next["item"];
        if item.is_null() {
            return Ok(rated);
        }
        let choice = if item["answer_a"].as_str() <= item["answer_b"].as_str() { "a" } else { "b" };
        let rating = json!({"item_id": item["id"], "choice": choice, "corrected_answer": "red, I think"});
        rater.post(&format!("{task}/ratings"), &rating).await?.success()?;
        rated += 1;
    }
}
