//! A worker of paper: what a real one writes, without an engine.

use finetuned_protocol::{
    engine::Phase,
    evaluation::{AnswersReport, EvaluationReport, HeldOutSource, Likelihood, LikelihoodAtStep, ParityCertificate},
    ids::WorkerId,
    resolve::{resolve, resolve_preparation},
    resolve_tuning::resolve_tuning,
    spec::{DatasetFacts, Estimate},
    status::{EventLevel, EventType, TaskKind},
};
use finetuned_store::{
    JobProgress, Lease, LeaseKey, NewCheckpoint, NewEvent, NewMetric, Report, Store, StoredFile, Trained, Validated,
    WorkerFacts, testing::fixtures::PLENTY,
};
use serde_json::{Value, json};

use super::service::{Service, facts};

pub const CONFIG: &[u8] = b"{\"peft_type\": \"LORA\"}";
/// Longer than a block of a tar, and no multiple of one.
pub const WEIGHTS: &[u8] = &[7; 1500];

/// A job that a worker trains: two steps are done, a checkpoint is saved.
pub struct Training {
    pub job: Value,
    pub lease: LeaseKey,
}

fn worker() -> WorkerFacts {
    WorkerFacts {
        id: WorkerId::generate(),
        host: "test".into(),
        version: "0.1.0".into(),
        devices: json!(["cpu"]),
        threads: 2,
        instruction_set: "avx2".into(),
        free_memory_bytes: 1 << 40,
        disk: PLENTY,
        models: vec!["0".repeat(64)],
    }
}

fn likelihood(loss: f64) -> Likelihood {
    Likelihood {
        loss,
        perplexity: loss.exp(),
        token_accuracy: 0.5,
        supervised_tokens: 10,
        rows: 1,
        bits_per_byte: None,
        preference: None,
    }
}

async fn claim(store: &Store, worker: &WorkerFacts, kind: TaskKind) -> Lease {
    store.claim(worker, &[kind]).await.expect("a claim").expect("a task")
}

async fn validate(store: &Store, lease: &Lease) {
    let mut request = lease.job.request.clone();
    request.seed = Some(lease.job.seed);
    let dataset = DatasetFacts {
        train_rows: 16,
        held_out_rows: 2,
        train_tokens: 500,
        train_supervised_tokens: 100,
        longest_row_tokens: 40,
        truncated_rows: 0,
        dropped_rows: 0,
    };
    let tuning = resolve_tuning(&request, &facts(), None).expect("settings");
    let preparation = resolve_preparation(&request, &tuning, &facts()).expect("settings");
    let spec = resolve(&request, preparation, tuning, &dataset).expect("settings");
    let estimate = Estimate {
        tokens: 1500,
        steps: spec.total_steps,
        peak_memory_bytes: 1 << 30,
        seconds: 60,
        disk: Default::default(),
    };
    let validated = Validated { spec, dataset, estimate, events: Vec::new() };
    store.finish_validation(&lease.key, &validated).await.expect("validated");
}

/// A new job, half way.
pub async fn half_way(service: &Service) -> Training {
    let store = &service.database.store;
    let job = service.job().await;
    let worker = worker();
    store.register_worker(&worker).await.expect("a worker");
    validate(store, &claim(store, &worker, TaskKind::Validate).await).await;
    let lease = claim(store, &worker, TaskKind::Train).await;
    let step = |step: u32| NewEvent {
        line: Some(u64::from(step) + 1),
        level: EventLevel::Info,
        kind: EventType::Metrics,
        message: format!("Step {step}"),
        data: Some(json!({"step": step, "train_loss": 3.0 / f64::from(step)})),
        once: Some(format!("step:{step}")),
    };
    let metric = |name: &str, step: u32, value: f64| NewMetric { name: name.into(), step, value };
    let report = Report {
        answers: Vec::new(),
        last_line: 3,
        events: vec![step(1), step(2)],
        metrics: vec![metric("train_loss", 1, 3.0), metric("train_loss", 2, 1.5), metric("learning_rate", 1, 2e-4)],
        progress: Some(JobProgress {
            phase: Phase::Training,
            done: 2,
            total: 6,
            step: 2,
            total_steps: 6,
            remaining_seconds: Some(40),
        }),
        started: true,
    };
    store.report(&lease.key, &report).await.expect("reported");
    let tenant = lease.job.tenant;
    for step in [1, 2] {
        let content = store.put_bytes(tenant, WEIGHTS.into()).await.expect("stored");
        let checkpoint = NewCheckpoint {
            step,
            metrics: json!({"train_loss": 1.5, "train_mean_token_accuracy": 0.4, "valid_loss": 2.0,
                            "valid_mean_token_accuracy": 0.3}),
            files: vec![StoredFile { name: "adapter.safetensors".into(), content }],
        };
        store.publish_checkpoint(&lease.key, &checkpoint).await.expect("published");
    }
    Training { job, lease: lease.key }
}

/// A job that succeeded, as clients see it.
pub async fn succeed(service: &Service) -> Value {
    let store = &service.database.store;
    let Training { job, lease } = half_way(service).await;
    let tenant = store.default_caller().await.expect("the tenant").tenant;
    let mut artifacts = Vec::new();
    for (name, content) in [("adapter_model.safetensors", WEIGHTS), ("adapter_config.json", CONFIG)] {
        let content = store.put_bytes(tenant, content.into()).await.expect("stored");
        artifacts.push(StoredFile { name: name.into(), content });
    }
    let (base, tuned) = (likelihood(4.0), likelihood(2.0));
    let trained = Trained {
        artifacts,
        evaluation: EvaluationReport {
            held_out_source: HeldOutSource::Split,
            held_out_rows: 1,
            history: vec![LikelihoodAtStep { step: 0, likelihood: base.clone() }],
            base,
            tuned,
            exported_weights: None,
            answers: Some(answers()),
        },
        parity: ParityCertificate {
            largest_reload_difference: 0.0,
            tolerance: 1e-4,
            largest_difference_from_base: 3.5,
            tokens: 64,
        },
        trained_tokens: 1500,
        judging: None,
        results: store.put_bytes(tenant, b"step,train_loss\n1,3.0\n"[..].into()).await.expect("stored"),
    };
    store.finish_training(&lease, &trained).await.expect("finished");
    let id = job["id"].as_str().unwrap_or_default();
    service.get(&format!("/v1/fine_tuning/jobs/{id}")).await.ok()
}

/// Does the further evaluation that waits, with `said` in its report.
pub async fn evaluate(service: &Service, said: &str) {
    let store = &service.database.store;
    let lease = claim(store, &worker(), TaskKind::Evaluate).await;
    let mut report = lease.job.evaluation.clone().expect("an evaluation");
    report.answers = Some(AnswersReport { not_judged: vec![said.to_owned()], ..answers() });
    store.finish_evaluation(&lease.key, &report).await.expect("finished");
}

/// A job whose validation a worker has claimed.
pub async fn claimed(service: &Service) -> Lease {
    service.job().await;
    claim(&service.database.store, &worker(), TaskKind::Validate).await
}

/// Answers of both models to two prompts, judged.
fn answers() -> AnswersReport {
    let compared = |base: f64, tuned: f64, verdict: &str| {
        json!({"rows": 2, "base": base, "tuned": tuned, "difference": tuned - base, "low": tuned - base,
               "high": tuned - base, "confidence": 0.95, "resamples": 10, "seed": 1, "verdict": verdict})
    };
    let row = |line: u64, base: &str, tuned: &str, figures: [f64; 2], categories: &[&str]| {
        json!({"line": line, "prompt": "Say it.", "reference": "so, be it", "base": base, "tuned": tuned,
               "base_ended": true, "tuned_ended": true, "base_rouge_l": figures[0], "tuned_rouge_l": figures[1],
               "base_scores": {"rouge_l": figures[0]}, "tuned_scores": {"rouge_l": figures[1]},
               "base_categories": categories, "tuned_categories": []})
    };
    let report = json!({
        "rows": 2, "max_new_tokens": 8, "rouge_l": compared(0.25, 0.75, "better"), "base_ended_share": 1.0,
        "tuned_ended_share": 1.0, "metrics": {"rouge_l": compared(0.25, 0.75, "better")},
        "categories": {"too_short": compared(0.5, 0.0, "better")}, "not_judged": [],
        "answers": [row(3, "so, \"no\"", "so, be it", [0.5, 1.0], &[]), row(8, "", "so", [0.0, 0.5], &["too_short"])],
    });
    serde_json::from_value(report).expect("a report")
}
