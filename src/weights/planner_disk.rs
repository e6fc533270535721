//! Bytes on disk that a training writes: checkpoints and what is exported.

use finetuned_protocol::{
    export::ExportFormat,
    objective::ObjectiveSpec,
    spec::{DatasetFacts, DiskEstimate, ModelFacts, TrainingSpec},
    tuning::TuningSpec,
};

use super::{
    planner_state::{kept_bytes, optimizer_bytes},
    trainable_parameters,
};

const F32_BYTES: u64 = 4;
const F16_BYTES: u64 = 2;
/// Q8_0 stores 32 numbers in 34 bytes.
const Q8_0_BLOCK: (u64, u64) = (32, 34);
/// Checkpoints in an attempt's folder at once: the one that it went on from or that is on its way into the store, the one
/// after it, and the one that is being written.
const CHECKPOINTS_AT_WORK: u64 = 3;
/// An entry of a tokenizer's files, about.
const TOKENIZER_BYTES_A_TOKEN: u64 = 100;
/// A line of an engine's events, about.
const STEP_BYTES: u64 = 400;
/// What a checkpoint's state has for each evaluation.
const EVALUATION_BYTES: u64 = 300;
/// What it has of a token that the base model answered.
const ANSWER_BYTES_A_TOKEN: u64 = 8;
/// Log-probabilities of both answers of a row, as the reference model gives them.
const REFERENCE_BYTES_A_ROW: u64 = 16;
/// Configs, the model card, heads of files, log lines.
const SMALL_FILES_BYTES: u64 = 256 << 10;

/// What is written by a training that keeps `kept_checkpoints`, or all of them.
pub fn disk(
    model: &ModelFacts,
    spec: &TrainingSpec,
    dataset: &DatasetFacts,
    kept_checkpoints: Option<u32>,
) -> DiskEstimate {
    let trained = trainable_parameters(model, &spec.tuning);
    let log = u64::from(spec.total_steps).saturating_mul(STEP_BYTES);
    let evaluations = u64::from(spec.total_steps / spec.evaluate_every.max(1)) + 1;
    let answers = u64::from(spec.answers.rows) * u64::from(spec.answers.max_new_tokens) * ANSWER_BYTES_A_TOKEN;
    let reference = match &spec.objective {
        ObjectiveSpec::Dpo(_) => dataset.train_rows.saturating_mul(REFERENCE_BYTES_A_ROW),
        _ => 0,
    };
    let checkpoint = [
        trained.saturating_mul(F32_BYTES),
        optimizer_bytes(model, spec, trained),
        kept_bytes(spec, trained),
        reference,
        evaluations * EVALUATION_BYTES,
        answers,
        SMALL_FILES_BYTES,
    ]
    .into_iter()
    .fold(0, u64::saturating_add);
    let exported = exported_bytes(model, spec, trained);
    // One before the first step, and one at the end wherever that falls.
    let made = u64::from(spec.total_steps.div_ceil(spec.checkpoint_every.max(1))) + 1;
    // The older one goes once the newer one is stored.
    let kept = kept_checkpoints.map_or(made, |kept| made.min(u64::from(kept) + 1));
    DiskEstimate {
        work_bytes: checkpoint
            .saturating_mul(CHECKPOINTS_AT_WORK.min(made))
            .saturating_add(exported)
            .saturating_add(log.saturating_add(SMALL_FILES_BYTES)),
        stored_bytes: checkpoint.saturating_mul(kept).saturating_add(exported),
    }
}

/// The adapter or the model, with its tokenizer, and the further forms that are asked for.
fn exported_bytes(model: &ModelFacts, spec: &TrainingSpec, trained: u64) -> u64 {
    let weights = match spec.tuning {
        TuningSpec::Adapter(_) => trained,
        TuningSpec::Full { .. } => model.parameters,
    };
    let (block, block_bytes) = Q8_0_BLOCK;
    let form = |format: &ExportFormat| match format {
        ExportFormat::Merged => model.parameters.saturating_mul(F32_BYTES),
        ExportFormat::GgufF16 => model.parameters.saturating_mul(F16_BYTES),
        ExportFormat::GgufQ8_0 => (model.parameters / block + 1).saturating_mul(block_bytes),
        ExportFormat::GgufLora => trained.saturating_mul(F32_BYTES),
    };
    let tokenizer = u64::from(model.vocab_size) * TOKENIZER_BYTES_A_TOKEN * (1 + spec.export.len() as u64);
    let forms = spec.export.iter().map(form).fold(0, u64::saturating_add);
    [weights.saturating_mul(F32_BYTES), forms, tokenizer, SMALL_FILES_BYTES].into_iter().fold(0, u64::saturating_add)
}
