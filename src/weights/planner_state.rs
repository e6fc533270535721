//! Bytes that an optimiser remembers, and what is kept for the choice of weights at the end.

use finetuned_protocol::{
    optimization::{AdamWSpec, Algorithm, MomentType},
    spec::{LinearModule, ModelFacts, TrainingSpec},
    tuning::{AdapterSpec, FullSpec, TuningSpec},
};

const F32_BYTES: u64 = 4;
/// Elements that share a scale where moments have eight bits.
const BLOCK: u64 = 256;

/// Bytes of the optimiser's state for `trained` parameters.
pub fn optimizer_bytes(model: &ModelFacts, spec: &TrainingSpec, trained: u64) -> u64 {
    match &spec.optimizer.algorithm {
        Algorithm::Adamw(adamw) => moments(adamw, trained),
        Algorithm::Sgd(sgd) if sgd.momentum == 0.0 => 0,
        Algorithm::Sgd(_) => trained.saturating_mul(F32_BYTES),
        Algorithm::Muon(muon) => {
            let matrices = layer_matrices(model, &spec.tuning).min(trained);
            matrices.saturating_mul(F32_BYTES).saturating_add(moments(&muon.rest, trained - matrices))
        }
        Algorithm::Adafactor(_) => match &spec.tuning {
            TuningSpec::Full { full } => factored(model, full),
            // At most: an adapter's matrices are thin, and vectors are not factored.
            TuningSpec::Adapter(_) => trained.saturating_mul(F32_BYTES),
        },
    }
}

/// Bytes of the best weights, or of the sum that a mean is made of.
pub fn kept_bytes(spec: &TrainingSpec, trained: u64) -> u64 {
    match (&spec.early_stopping, &spec.weight_averaging) {
        (None, None) => 0,
        _ => trained.saturating_mul(F32_BYTES),
    }
}

/// Two moments. Small tensors that are not quantised are left out.
fn moments(spec: &AdamWSpec, count: u64) -> u64 {
    let one = match spec.moments {
        MomentType::F32 => count.saturating_mul(F32_BYTES),
        MomentType::Bf16 => count.saturating_mul(2),
        MomentType::Blocks8Bit => count.saturating_add(count.div_ceil(BLOCK).saturating_mul(F32_BYTES)),
    };
    one.saturating_mul(2)
}

fn trained_layers(model: &ModelFacts, full: &FullSpec) -> u64 {
    full.last_layers.unwrap_or(model.layers).into()
}

/// Elements of the matrices between hidden states, of those that are trained.
fn layer_matrices(model: &ModelFacts, tuning: &TuningSpec) -> u64 {
    let modules = || model.linear_modules.iter().chain(&model.fixed_modules);
    match tuning {
        TuningSpec::Full { full } => {
            let elements = |module: &LinearModule| u64::from(module.in_features) * u64::from(module.out_features);
            modules().map(elements).sum::<u64>().saturating_mul(trained_layers(model, full))
        }
        // All of an adapter but its rows of the vocabulary.
        TuningSpec::Adapter(AdapterSpec::Lora(lora)) => {
            let whole = lora.modules_to_save.len() as u64 * u64::from(model.vocab_size);
            let rows = whole + lora.trainable_token_indices.len() as u64;
            let all = super::trainable_parameters(model, tuning);
            all.saturating_sub(rows.saturating_mul(model.hidden_size.into()))
        }
        TuningSpec::Adapter(_) => 0,
    }
}

/// A mean for each row and each column of every matrix.
fn factored(model: &ModelFacts, full: &FullSpec) -> u64 {
    let modules = model.linear_modules.iter().chain(&model.fixed_modules);
    let sides = modules.map(|module| u64::from(module.in_features) + u64::from(module.out_features)).sum::<u64>();
    let vocabulary = match full.last_layers {
        None => 2 * (u64::from(model.vocab_size) + u64::from(model.hidden_size)),
        Some(_) => 0,
    };
    sides.saturating_mul(trained_layers(model, full)).saturating_add(vocabulary).saturating_mul(F32_BYTES)
}
