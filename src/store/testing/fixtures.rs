//! Small honest rows for tests: a tenant, a stored file, a base model, a job, a worker.

use bytes::Bytes;
use finetuned_protocol::{
    evaluation::{EvaluationReport, HeldOutSource, Likelihood, ParityCertificate},
    ids::{FileId, TenantId, WorkerId},
    resolve::{resolve, resolve_preparation},
    resolve_tuning::resolve_tuning,
    spec::{DatasetFacts, Estimate, LinearModule, ModelFacts},
    status::{FileStatus, TaskKind},
};
use serde_json::json;

use crate::{
    DiskRoom, Job, Lease, NewBaseModel, NewFile, NewJob, Store, StoreError, StoredFile, Trained, Validated, WorkerFacts,
};

/// Public name of the fixtures' base model.
pub const MODEL: &str = "tiny-llama";
/// More room than any test needs.
pub const PLENTY: DiskRoom = DiskRoom { work_bytes: 1 << 40, stored_bytes: 1 << 40, is_shared: true };
/// Hash of the fixtures' base model.
pub const MODEL_SHA256: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
const ROWS: &str = "{\"prompt\":\"a\",\"completion\":\"b\"}\n";

/// A tenant of that name, by way of a key.
pub async fn tenant(store: &Store, name: &str) -> Result<TenantId, StoreError> {
    Ok(store.create_key(name, "test", &crate::KeyGrant::default()).await?.tenant)
}

/// A processed training file.
pub async fn file(store: &Store, tenant: TenantId) -> Result<FileId, StoreError> {
    let file = new_file(store, tenant).await?;
    Ok(store.create_file(tenant, file, None).await?.into_inner().id)
}

/// A processed training file, its bytes stored, its row not yet made.
pub async fn new_file(store: &Store, tenant: TenantId) -> Result<NewFile, StoreError> {
    Ok(NewFile {
        filename: "train.jsonl".to_owned(),
        purpose: "fine-tune".to_owned(),
        expires_after: None,
        status: FileStatus::Processed,
        status_details: None,
        content: store.put_bytes(tenant, Bytes::from_static(ROWS.as_bytes())).await?,
        lint: None,
        reading: Default::default(),
        findings: None,
    })
}

pub fn model_facts() -> ModelFacts {
    ModelFacts {
        architecture: "llama".to_owned(),
        parameters: 1000,
        layers: 2,
        hidden_size: 8,
        vocab_size: 32,
        context_length: 64,
        linear_modules: vec![LinearModule { name: "q_proj".to_owned(), in_features: 8, out_features: 8 }],
        fixed_modules: Vec::new(),
        has_chat_template: true,
    }
}

/// Registers the base model (again is no error).
pub async fn model(store: &Store) -> Result<(), StoreError> {
    let model = NewBaseModel {
        name: MODEL.to_owned(),
        path: "models/tiny".into(),
        source: None,
        license: Some("apache-2.0".to_owned()),
        facts: model_facts(),
        sha256: MODEL_SHA256.to_owned(),
    };
    store.register_base_model(&model).await.map(drop)
}

/// A job to be made from a file.
pub fn new_job(training_file: FileId) -> Result<NewJob, StoreError> {
    let request = json!({"model": MODEL, "training_file": training_file.to_string(), "n_epochs": 1});
    let request = crate::convert::from_json("a job's request", request)?;
    Ok(NewJob { request, seed: 7, training_file, validation_file: None })
}

/// A job of the tenant, with everything that it needs.
pub async fn job(store: &Store, tenant: TenantId) -> Result<Job, StoreError> {
    model(store).await?;
    let file = file(store, tenant).await?;
    Ok(store.create_job(tenant, new_job(file)?, None).await?.into_inner())
}

/// A registered worker that has the base model.
pub async fn worker(store: &Store) -> Result<WorkerFacts, StoreError> {
    let facts = WorkerFacts {
        id: WorkerId::generate(),
        host: "test".to_owned(),
        version: "0".to_owned(),
        devices: json!(["cpu"]),
        threads: 1,
        instruction_set: "sse2".to_owned(),
        free_memory_bytes: 1 << 30,
        disk: PLENTY,
        models: vec![MODEL_SHA256.to_owned()],
    };
    store.register_worker(&facts).await?;
    Ok(facts)
}

/// What a validation of the job finds.
pub fn validated(job: &Job) -> Result<Validated, StoreError> {
    let dataset = DatasetFacts {
        train_rows: 16,
        held_out_rows: 2,
        train_tokens: 160,
        train_supervised_tokens: 80,
        longest_row_tokens: 10,
        truncated_rows: 0,
        dropped_rows: 0,
    };
    let refused = |error: finetuned_protocol::error::FieldError| StoreError::conflict(error.to_string());
    let tuning = resolve_tuning(&job.request, &model_facts(), None).map_err(refused)?;
    let preparation = resolve_preparation(&job.request, &tuning, &model_facts()).map_err(refused)?;
    let spec = resolve(&job.request, preparation, tuning, &dataset).map_err(refused)?;
    let estimate = Estimate {
        tokens: 160,
        steps: spec.total_steps,
        peak_memory_bytes: 1 << 20,
        seconds: 1,
        disk: Default::default(),
    };
    Ok(Validated { spec, dataset, estimate, events: Vec::new() })
}

/// A job of the tenant whose `train` task is leased by the worker. No other task may wait.
pub async fn training(store: &Store, tenant: TenantId, worker: &WorkerFacts) -> Result<Lease, StoreError> {
    let job = job(store, tenant).await?;
    let nothing = StoreError::NotFound { what: "task" };
    let lease = store.claim(worker, TaskKind::ALL).await?.ok_or(nothing)?;
    store.finish_validation(&lease.key, &validated(&job)?).await?;
    store.claim(worker, TaskKind::ALL).await?.ok_or(StoreError::NotFound { what: "task" })
}

/// What a training makes.
pub async fn trained(store: &Store, tenant: TenantId) -> Result<Trained, StoreError> {
    let content = store.put_bytes(tenant, Bytes::from_static(b"adapter")).await?;
    let likelihood = Likelihood {
        loss: 1.0,
        perplexity: 1f64.exp(),
        token_accuracy: 0.5,
        supervised_tokens: 8,
        rows: 2,
        bits_per_byte: None,
        preference: None,
    };
    Ok(Trained {
        artifacts: vec![StoredFile { name: "adapter_model.safetensors".to_owned(), content }],
        evaluation: EvaluationReport {
            held_out_source: HeldOutSource::Split,
            held_out_rows: 2,
            base: likelihood.clone(),
            tuned: likelihood,
            exported_weights: None,
            history: Vec::new(),
            answers: None,
        },
        parity: ParityCertificate {
            largest_reload_difference: 0.0,
            tolerance: 1e-5,
            largest_difference_from_base: 0.1,
            tokens: 8,
        },
        trained_tokens: 160,
        judging: None,
        results: store.put_bytes(tenant, Bytes::from_static(b"step,train_loss\n")).await?,
    })
}
