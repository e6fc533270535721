//! What the tests of several files need.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use finetuned_protocol::{
    engine::{DeviceRequest, EngineJob, FOLDER_VERSION},
    evaluation_spec::EvaluationSpec,
    ids::{JobId, TaskId},
    objective::ObjectiveSpec,
    optimization::{OptimizerSpec, ScheduleShape, ScheduleSpec},
    precision::BasePrecision,
    spec::{AnswersSpec, DatasetFacts, PreparationSpec, TemplateSpec, TrainingSpec},
    tuning::{AdapterSpec, LoraSpec, TuningSpec},
};

use crate::{
    checkpoint::{CheckpointState, Origin},
    selection::Selection,
};

/// A small adapter with dropout.
pub fn lora() -> LoraSpec {
    LoraSpec { dropout: 0.1, ..LoraSpec::plain(4, 8.0, ["q_proj", "v_proj", "down_proj"].map(str::to_owned).into()) }
}

/// Settings of a small job: 2 epochs of 12 rows in batches of 4.
pub fn spec() -> TrainingSpec {
    TrainingSpec {
        preparation: PreparationSpec {
            template: TemplateSpec::Chat,
            max_seq_len: 128,
            train_on_prompt: false,
            eval_fraction: 0.25,
            split_seed: 0,
            rows: Default::default(),
        },
        tuning: TuningSpec::Adapter(AdapterSpec::Lora(lora())),
        objective: ObjectiveSpec::Supervised,
        base_precision: BasePrecision::Auto,
        continue_from: None,
        optimizer: OptimizerSpec::adamw(5e-3, 0.01, [0.9, 0.95], 1e-8, 1.0),
        schedule: ScheduleSpec { shape: ScheduleShape::Cosine, warmup_ratio: 0.0, warmup_steps: 0 },
        neftune_noise_alpha: 0.0,
        label_smoothing: 0.0,
        early_stopping: None,
        weight_averaging: None,
        batch_size: 4,
        micro_batch_size: 2,
        n_epochs: 2,
        total_steps: 6,
        evaluate_every: 2,
        checkpoint_every: 2,
        seed: 7,
        answers: AnswersSpec { rows: 2, max_new_tokens: 5 },
        evaluation: EvaluationSpec::default(),
        export: Vec::new(),
    }
}

/// A state after four steps.
pub fn state() -> CheckpointState {
    CheckpointState {
        step: 4,
        updates: 4,
        skipped_in_a_row: 0,
        trained_tokens: 321,
        train_loss: Some(1.5),
        train_mean_token_accuracy: Some(0.5),
        history: Vec::new(),
        selection: Selection::Last,
        base_answers: None,
        threads: 2,
        micro_batch_size: 2,
        instruction_set: "avx2".into(),
        device: "cpu".into(),
        origin: Origin {
            base_model_sha256: "base".into(),
            training_file_sha256: "train".into(),
            validation_file_sha256: None,
            settings: serde_json::to_string(&spec()).unwrap(),
        },
    }
}

/// A job of [`spec`] on the CPU.
pub fn job() -> EngineJob {
    EngineJob {
        folder_version: FOLDER_VERSION,
        job_id: JobId::generate(),
        task_id: TaskId::generate(),
        epoch: 1,
        base_model: "tiny-llama".into(),
        base_model_sha256: "base".into(),
        training_file_sha256: "train".into(),
        validation_file_sha256: None,
        spec: spec(),
        device: DeviceRequest::Cpu,
        threads: 2,
        keepalive_timeout_seconds: 600,
    }
}

/// Figures of a small dataset.
pub fn facts() -> DatasetFacts {
    DatasetFacts {
        train_rows: 12,
        held_out_rows: 4,
        train_tokens: 100,
        train_supervised_tokens: 50,
        longest_row_tokens: 12,
        truncated_rows: 0,
        dropped_rows: 0,
    }
}
