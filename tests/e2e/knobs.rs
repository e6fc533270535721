//! Every setting of a job shows its effect, against a closed form.
//!
//! The tiny model's tokenizer makes one token of each byte and each marker, so that token counts can be written down.

use std::{collections::BTreeMap, f64::consts::PI, time::Duration};

use anyhow::{Context, Result};
use finetuned_tests::{Client, Service, rows};
use serde_json::{Value, json};

const JOB: Duration = Duration::from_secs(120);
pub const ROWS: usize = 20;
/// A tenth of twenty rows is held out.
const TRAINED: usize = 18;

/// A finished job and what it left behind.
pub struct Run {
    pub client: Client,
    pub id: String,
    pub job: Value,
}

impl Run {
    pub async fn of(service: &Service, rows: &str, settings: Value) -> Result<Self> {
        let mut all = json!({"batch_size": 4, "max_steps": 2, "answers": {"rows": 0}});
        all.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
        if all.get("n_epochs").is_some() {
            all.as_object_mut().unwrap().remove("max_steps");
        }
        let id = service.tiny_job(rows, all).await?;
        let job = service.client.wait_for_success(&id, JOB).await.with_context(|| settings.to_string())?;
        Ok(Self { client: service.client.clone(), id, job })
    }

    pub async fn series(&self, name: &str) -> Result<Vec<(u64, f64)>> {
        let answer =
            self.client.get(&format!("/v1/fine_tuning/jobs/{}/metrics?names={name}", self.id)).await?.success()?;
        let points = answer["series"][name].as_array().with_context(|| format!("no {name}: {answer}"))?;
        Ok(points.iter().map(|point| (point["step"].as_u64().unwrap(), point["value"].as_f64().unwrap())).collect())
    }

    pub async fn values(&self, name: &str) -> Result<Vec<f64>> {
        Ok(self.series(name).await?.into_iter().map(|(_, value)| value).collect())
    }

    async fn steps(&self, name: &str) -> Result<Vec<u64>> {
        Ok(self.series(name).await?.into_iter().map(|(step, _)| step).collect())
    }

    pub async fn weights(&self) -> Result<Vec<u8>> {
        self.client.adapter_weights(&self.id).await
    }

    /// Shapes of the adapter's tensors by their peft names.
    pub async fn shapes(&self) -> Result<BTreeMap<String, Vec<u64>>> {
        let (header, _) = split(&self.weights().await?)?;
        Ok(header
            .into_iter()
            .map(|(name, entry)| (name, serde_json::from_value(entry["shape"].clone()).unwrap()))
            .collect())
    }

    /// The adapter's tensors, flat, by their peft names.
    pub async fn tensors(&self) -> Result<BTreeMap<String, Vec<f64>>> {
        let (header, data) = split(&self.weights().await?)?;
        let values = |entry: &Value| -> Vec<f64> {
            assert_eq!(entry["dtype"], "F32");
            let [from, to]: [usize; 2] = serde_json::from_value(entry["data_offsets"].clone()).unwrap();
            data[from..to].chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()).into()).collect()
        };
        Ok(header.iter().map(|(name, entry)| (name.clone(), values(entry))).collect())
    }

    /// The tensors of A or of B, one after the other.
    pub async fn of_matrix(&self, matrix: &str) -> Result<Vec<f64>> {
        let all = self.tensors().await?;
        Ok(all.into_iter().filter(|(name, _)| name.contains(matrix)).flat_map(|(_, values)| values).collect())
    }

    async fn adapter_config(&self) -> Result<Value> {
        let path = format!("/v1/fine_tuning/jobs/{}/artifacts/adapter_config.json", self.id);
        Ok(serde_json::from_slice(&self.client.bytes(&path).await?)?)
    }
}

/// Header and data of a safetensors file.
fn split(bytes: &[u8]) -> Result<(BTreeMap<String, Value>, Vec<u8>)> {
    let length = u64::from_le_bytes(bytes[..8].try_into()?) as usize;
    let mut header: BTreeMap<String, Value> = serde_json::from_slice(&bytes[8..8 + length])?;
    header.remove("__metadata__");
    Ok((header, bytes[8 + length..].to_vec()))
}

pub fn close(left: &[f64], right: &[f64], tolerance: f64) {
    assert_eq!(left.len(), right.len(), "{left:?} against {right:?}");
    for (a, b) in left.iter().zip(right) {
        assert!((a - b).abs() <= tolerance, "{left:?} against {right:?}");
    }
}

pub async fn service() -> Result<Service> {
    let service = Service::start().await?;
    service.add_tiny_model()?;
    Ok(service)
}

#[tokio::test(flavor = "multi_thread")]
async fn length_and_rhythm() -> Result<()> {
    let (service, rows) = (service().await?, rows::alpaca(ROWS));
    let steps_per_epoch = TRAINED.div_ceil(4) as u64;
    let epochs = Run::of(&service, &rows, json!({"n_epochs": 2, "evaluate_every": 4, "checkpoint_every": 3})).await?;
    assert_eq!(epochs.steps("train_loss").await?, (1..=2 * steps_per_epoch).collect::<Vec<_>>());
    assert_eq!(epochs.steps("valid_loss").await?, [0, 4, 8, 10]);
    let checkpoints =
        service.client.get(&format!("/v1/fine_tuning/jobs/{}/checkpoints", epochs.id)).await?.success()?;
    let steps: Vec<_> =
        checkpoints["data"].as_array().unwrap().iter().map(|c| c["step_number"].as_u64().unwrap()).collect();
    assert_eq!(steps, [10, 9, 6, 3]);

    let half = Run::of(&service, &rows, json!({"eval_fraction": 0.5, "batch_size": 10, "max_steps": 3})).await?;
    assert_eq!(half.steps("train_loss").await?, [1, 2, 3]);
    assert_eq!(half.job["evaluation"]["held_out_rows"], 10);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn learning_rate_and_schedule() -> Result<()> {
    let (service, rows) = (service().await?, rows::alpaca(ROWS));
    let (peak, steps, warmup) = (1e-3, 8.0, 2.0);
    let expected = |shape: &dyn Fn(f64) -> f64| -> Vec<f64> {
        let at = |s: f64| if s < warmup { peak * s / warmup } else { peak * shape((s - warmup) / (steps - warmup)) };
        (0..8).map(|s| at(f64::from(s))).collect()
    };
    let shapes: [(&str, &dyn Fn(f64) -> f64); 3] =
        [("linear", &|t| 1.0 - t), ("cosine", &|t| 0.5 * (1.0 + (PI * t).cos())), ("constant", &|_| 1.0)];
    for (name, shape) in shapes {
        let settings = json!({"max_steps": 8, "optimizer": {"learning_rate": peak}, "schedule": {"type": name, "warmup_ratio": 0.25}});
        let run = Run::of(&service, &rows, settings).await?;
        close(&run.values("learning_rate").await?, &expected(shape), 1e-9);
    }
    let multiplied = json!({"hyperparameters": {"learning_rate_multiplier": 3}, "schedule": {"type": "constant", "warmup_ratio": 0}});
    close(&Run::of(&service, &rows, multiplied).await?.values("learning_rate").await?, &[6e-4, 6e-4], 1e-9);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn adapter_shape_and_scale() -> Result<()> {
    let (service, rows) = (service().await?, rows::alpaca(ROWS));
    let settings = json!({"lora": {"r": 3, "alpha": 5, "target_modules": ["v_proj", "down_proj"], "use_rslora": true, "dropout": 0.25}});
    let run = Run::of(&service, &rows, settings).await?;
    let shapes = run.shapes().await?;
    assert_eq!(shapes.len(), 2 * 2 * 2, "two layers, two modules, A and B: {shapes:?}");
    let layer = "base_model.model.model.layers.1.";
    assert_eq!(shapes[&format!("{layer}self_attn.v_proj.lora_A.weight")], [3, 32]);
    assert_eq!(shapes[&format!("{layer}self_attn.v_proj.lora_B.weight")], [16, 3]);
    assert_eq!(shapes[&format!("{layer}mlp.down_proj.lora_A.weight")], [3, 64]);
    let config = run.adapter_config().await?;
    assert_eq!((&config["r"], &config["use_rslora"]), (&json!(3), &json!(true)));
    assert_eq!((config["lora_alpha"].as_f64(), config["lora_dropout"].as_f64()), (Some(5.0), Some(0.25)));
    assert_eq!(Run::of(&service, &rows, json!({})).await?.shapes().await?.len(), 2 * 7 * 2);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_follow_template_mask_and_limit() -> Result<()> {
    let service = service().await?;
    // All rows alike in length, so that it does not matter which are held out.
    let row =
        |i: usize| json!({"instruction": format!("say {i:02}"), "output": format!("it is {i:02}")}).to_string() + "\n";
    let rows: String = (0..ROWS).map(row).collect();
    let (user, answer) = ("say 00".len() as u64, "it is 00".len() as u64);
    let chat_prompt = 1 + "user\n".len() as u64 + user + 1 + "\n".len() as u64 + 1 + "assistant\n".len() as u64;
    let trained = TRAINED as u64;
    let facts = |run: &Run| -> (u64, u64) {
        let facts = &run.job["dataset"];
        (facts["train_tokens"].as_u64().unwrap(), facts["train_supervised_tokens"].as_u64().unwrap())
    };
    // The answer and its end marker carry loss; the newline that the template puts after it is text without loss.
    let chat = Run::of(&service, &rows, json!({"template": "chat"})).await?;
    let (tokens, supervised) = facts(&chat);
    assert_eq!(supervised, trained * (answer + 1));
    assert!(
        tokens == trained * (chat_prompt + answer + 1) || tokens == trained * (chat_prompt + answer + 2),
        "{tokens}"
    );

    let prompt_too = Run::of(&service, &rows, json!({"train_on_prompt": true})).await?;
    let (tokens, supervised) = facts(&prompt_too);
    assert_eq!(supervised, tokens - trained, "all but each row's first token carry loss");

    let cut = Run::of(&service, &rows, json!({"max_seq_len": chat_prompt + 3})).await?;
    assert_eq!(facts(&cut), (trained * (chat_prompt + 3), trained * 3));

    let jinja = "{% for m in messages %}[{{ m.content }}]{% endfor %}{% if add_generation_prompt %}[{% endif %}";
    let (tokens, supervised) = facts(&Run::of(&service, &rows, json!({"template": jinja})).await?);
    assert_eq!((tokens, supervised), (trained * (user + answer + 4), trained * (answer + 1)));

    let (tokens, supervised) = facts(&Run::of(&service, &rows, json!({"template": "alpaca"})).await?);
    assert_eq!(supervised, trained * (answer + 1));
    assert!(tokens > trained * (chat_prompt + answer + 2), "Alpaca's prompt is longer than ChatML's");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_must_not_change_does_not() -> Result<()> {
    let (service, rows) = (service().await?, rows::alpaca(ROWS));
    let settings = |extra: Value| {
        let mut all = json!({"max_steps": 6, "batch_size": 8, "optimizer": {"learning_rate": 5e-3}});
        all.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        all
    };
    let whole = Run::of(&service, &rows, settings(json!({"micro_batch_size": 8}))).await?;
    let losses = whole.values("train_loss").await?;
    for micro in [4, 1] {
        let split = Run::of(&service, &rows, settings(json!({"micro_batch_size": micro}))).await?;
        close(&split.values("train_loss").await?, &losses, 1e-5);
    }
    let again = Run::of(&service, &rows, settings(json!({"micro_batch_size": 8}))).await?;
    assert!(again.weights().await? == whole.weights().await?, "the same seed gives other bytes");
    let other = Run::of(&service, &rows, settings(json!({"micro_batch_size": 8, "seed": 8}))).await?;
    assert!(other.weights().await? != whole.weights().await?, "another seed gives the same bytes");
    assert_eq!(
        other.job["evaluation"]["base"], whole.job["evaluation"]["base"],
        "another seed split the file otherwise"
    );
    Ok(())
}

/// Settings whose first steps can be written down: no warm-up, no clipping, and an epsilon beside which Adam's update is
/// nearly the gradient itself, so that the gradient can be read back from the weights.
pub fn readable(steps: u32, extra: Value) -> Value {
    let mut optimizer =
        json!({"learning_rate": READABLE_RATE, "epsilon": 1.0, "max_grad_norm": 1e6, "weight_decay": 0.0});
    optimizer.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    json!({
        "max_steps": steps, "evaluate_every": 100, "checkpoint_every": 100, "optimizer": optimizer,
        "schedule": {"type": "constant", "warmup_ratio": 0}, "lora": {"r": 2, "alpha": 4, "target_modules": ["q_proj", "up_proj"]},
    })
}

pub const READABLE_RATE: f64 = 0.5;

pub fn norm(values: &[f64]) -> f64 {
    values.iter().map(|value| value * value).sum::<f64>().sqrt()
}

/// The gradients of B behind a first step: B starts at zero and moves by `-rate * g / (|g| + 1)`, whatever the betas.
pub fn first_gradients(run: &BTreeMap<String, Vec<f64>>) -> Vec<f64> {
    let moved = run.iter().filter(|(name, _)| name.ends_with("lora_B.weight")).flat_map(|(_, values)| values);
    moved.map(|b| -(b / READABLE_RATE) / (1.0 - (b / READABLE_RATE).abs())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_step_is_adamws() -> Result<()> {
    let (service, rows) = (service().await?, rows::alpaca(ROWS));
    let plain = Run::of(&service, &rows, readable(1, json!({}))).await?;
    let (weights, reported) = (plain.tensors().await?, plain.values("gradient_norm").await?[0]);
    let gradients = first_gradients(&weights);
    // A has no gradient while B is zero, so the norm is B's alone.
    close(&[norm(&gradients)], &[reported], 1e-4 * reported);

    let half = reported / 2.0;
    let clipped = Run::of(&service, &rows, readable(1, json!({"max_grad_norm": half}))).await?;
    let halves: Vec<f64> = gradients.iter().map(|gradient| gradient / 2.0).collect();
    close(&first_gradients(&clipped.tensors().await?), &halves, 1e-5);

    let small = Run::of(&service, &rows, readable(1, json!({"epsilon": 0.25}))).await?;
    let expected: Vec<f64> = gradients.iter().map(|g| -READABLE_RATE * g / (g.abs() + 0.25)).collect();
    let found: Vec<f64> = small.of_matrix("lora_B").await?;
    close(&found, &expected, 1e-5);

    // Decoupled decay shrinks A by `1 - rate * decay`, and B is zero before the step.
    let decayed = Run::of(&service, &rows, readable(1, json!({"weight_decay": 0.1}))).await?;
    let expected: Vec<f64> = plain.of_matrix("lora_A").await?.iter().map(|a| a * (1.0 - READABLE_RATE * 0.1)).collect();
    close(&decayed.of_matrix("lora_A").await?, &expected, 1e-6);
    close(&decayed.of_matrix("lora_B").await?, &plain.of_matrix("lora_B").await?, 1e-7);

    // B's gradient is proportional to alpha / r.
    let mut louder = readable(1, json!({}));
    louder["lora"]["alpha"] = json!(12);
    let tripled: Vec<f64> = gradients.iter().map(|gradient| gradient * 3.0).collect();
    close(&first_gradients(&Run::of(&service, &rows, louder).await?.tensors().await?), &tripled, 1e-5);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn betas_weigh_the_second_step() -> Result<()> {
    let (service, rows) = (service().await?, rows::alpaca(ROWS));
    // The first step is the same whatever the betas, so the second one's gradient is too.
    let one = Run::of(&service, &rows, readable(1, json!({}))).await?.of_matrix("lora_B").await?;
    let without =
        Run::of(&service, &rows, readable(2, json!({"betas": [0.0, 0.0]}))).await?.of_matrix("lora_B").await?;
    let betas = [0.5, 0.75];
    let with = Run::of(&service, &rows, readable(2, json!({"betas": betas}))).await?.of_matrix("lora_B").await?;
    let gradient = |moved: f64| -(moved / READABLE_RATE) / (1.0 - (moved / READABLE_RATE).abs());
    let mut expected = Vec::new();
    for (first, second) in one.iter().zip(&without) {
        let (g1, g2) = (gradient(*first), gradient(second - first));
        let mean = (betas[0] * (1.0 - betas[0]) * g1 + (1.0 - betas[0]) * g2) / (1.0 - betas[0] * betas[0]);
        let square = (betas[1] * (1.0 - betas[1]) * g1 * g1 + (1.0 - betas[1]) * g2 * g2) / (1.0 - betas[1] * betas[1]);
        expected.push(first - READABLE_RATE * mean / (square.sqrt() + 1.0));
    }
    close(&with, &expected, 1e-6);
    assert!(with.iter().zip(&without).any(|(a, b)| (a - b).abs() > 1e-4), "the betas make no difference here");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_as_many_and_as_long_as_asked_for() -> Result<()> {
    let service = service().await?;
    // One answer to everything is learned within seconds; a token of the tiny model is a byte.
    let row = |i: usize| json!({"instruction": format!("say {i:02}"), "output": "abcdefgh"}).to_string() + "\n";
    let rows: String = (0..ROWS).map(row).collect();
    for (count, longest, tuned, ended) in [(1, 3, "abc", false), (2, 20, "abcdefgh", true)] {
        let settings = json!({
            "max_steps": 150, "optimizer": {"learning_rate": 1e-2}, "evaluate_every": 150, "checkpoint_every": 150,
            "answers": {"rows": count, "max_new_tokens": longest},
        });
        let run = Run::of(&service, &rows, settings).await?;
        let answers = &run.job["evaluation"]["answers"];
        let pairs = answers["answers"].as_array().context("no answers")?;
        assert_eq!((pairs.len(), &answers["max_new_tokens"]), (count, &json!(longest)));
        for pair in pairs {
            assert_eq!((&pair["tuned"], &pair["tuned_ended"]), (&json!(tuned), &json!(ended)), "{pair:#}");
        }
    }
    Ok(())
}
