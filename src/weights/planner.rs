//! What a job is expected to take, from sizes alone.
//!
//! **Memory**, computed in f32 as on the CPU, is the sum of
//! - the frozen weights: 4 bytes a parameter, or for matrices what `base_precision` stores of each, and the largest one once
//!   more in f32, which is what it is computed with;
//! - the adapter: 8 bytes a parameter (weight, gradient) and the optimiser's state (two moments of AdamW: 8 bytes); or, where
//!   the model's own weights are trained, 8 bytes for each of those (gradient, and the bytes of the weights while a checkpoint
//!   is written), twice the optimiser's state for the same reason, and the model once more, which is reloaded at the end for
//!   comparison;
//! - the weights that early stopping or averaging keeps: 4 bytes a trained parameter, and again while a checkpoint is written;
//! - the activations of one micro-batch of the longest rows: 4 bytes times tokens, times layers, times what a layer keeps
//!   for its backward pass: the input and output of each linear module (the nonlinearities and attention keep those, too)
//!   and four more vectors of the hidden size for norms and residual sums;
//! - the loss: two chunks of [`LOSS_CHUNK_ROWS`] rows of logits and gradients;
//! - what the process holds before it loads anything, [`PROCESS_BYTES`].
//!
//! **Disk** is what `planner_disk.rs` adds up: checkpoints and exports.
//!
//! **Time** is matrix products over [`FLOPS_PER_SECOND`]. A token costs, with P the weights in linear modules (of experts,
//! the chosen ones) and L those of a low-rank adapter, `2P + 2L` forward; training adds `2P` for gradients that pass through
//! the weights (the trained layers' alone where only the last ones are), as much again for gradients of the weights
//! themselves, and `4L` for the adapter's; the output head costs `2 * vocab * hidden` forward and as much backward for each
//! supervised token. Evaluations cost one forward pass over the held-out rows, before, during and after. Generated answers
//! read all weights a token, for which [`BYTES_PER_SECOND`] is the limit. Attention's own products are left out: in rows of a
//! few thousand tokens they are a small part.

#[path = "planner_disk.rs"]
mod planner_disk;
#[path = "planner_state.rs"]
mod planner_state;

use finetuned_protocol::{
    precision::BasePrecision,
    spec::{DatasetFacts, Estimate, LinearModule, ModelFacts, TrainingSpec},
    tuning::{AdapterSpec, FullSpec, LoraSpec, TuningSpec},
};

use planner_disk::disk;
use planner_state::{kept_bytes, optimizer_bytes};

/// Sustained f32 matrix products of two CPU cores with AVX2, operations a second.
pub const FLOPS_PER_SECOND: f64 = 60e9;
/// Memory that two CPU cores read while weights stream past, bytes a second.
pub const BYTES_PER_SECOND: f64 = 8e9;
/// libtorch, its thread pools and the tokenizer.
pub const PROCESS_BYTES: u64 = 400 << 20;
/// Rows of logits that exist at once.
pub const LOSS_CHUNK_ROWS: u64 = 256;

const F32_BYTES: u64 = 4;
/// Weight and gradient.
const ADAPTER_BYTES: u64 = 8;
/// Gradient, and the bytes of the weight while a checkpoint is written.
const FULL_BYTES: u64 = 8;
/// In use, and once more while a checkpoint is written.
const COPIES_OF_STATE: u64 = 2;
/// Norms of a layer with a weight of the hidden size, about.
const NORMS_A_LAYER: u64 = 2;
/// Vectors of the hidden size that a layer keeps beside its linear modules' inputs and outputs.
const EXTRA_VECTORS: u64 = 4;
/// Answers are given twice, by the base model and by the tuned one.
const ANSWERING_MODELS: f64 = 2.0;

/// What a job is expected to take on two CPU cores. An estimate: right within a factor of about two. `kept_checkpoints`
/// is how many of them stay while the job goes on; `None` for all.
pub fn estimate(
    model: &ModelFacts,
    spec: &TrainingSpec,
    dataset: &DatasetFacts,
    kept_checkpoints: Option<u32>,
) -> Estimate {
    let work = Work::of(model, spec, dataset);
    Estimate {
        tokens: work.trained_tokens as u64,
        steps: spec.total_steps,
        peak_memory_bytes: peak_memory_bytes(model, spec, dataset),
        seconds: work.seconds(model, spec, dataset).ceil() as u64,
        disk: disk(model, spec, dataset, kept_checkpoints),
    }
}

/// Numbers that training changes.
pub fn trainable_parameters(model: &ModelFacts, tuning: &TuningSpec) -> u64 {
    let (layers, hidden) = (u64::from(model.layers), u64::from(model.hidden_size));
    match tuning {
        TuningSpec::Full { full: FullSpec { last_layers: None } } => model.parameters,
        TuningSpec::Full { full: FullSpec { last_layers: Some(trained) } } => {
            let weights = |module: &LinearModule| u64::from(module.in_features) * u64::from(module.out_features);
            let listed = model.linear_modules.iter().map(weights).sum::<u64>() + NORMS_A_LAYER * hidden;
            // A layer has more where it holds experts that a token does not go through.
            let vocabulary = 2_u64.saturating_mul(model.vocab_size.into()).saturating_mul(hidden);
            let shared = model.parameters.saturating_sub(vocabulary) / layers.max(1);
            listed.max(shared).saturating_mul((*trained).into())
        }
        TuningSpec::Adapter(AdapterSpec::Lora(spec)) => lora_parameters(model, spec),
        TuningSpec::Adapter(AdapterSpec::Ia3(spec)) => {
            let modules = model.linear_modules.iter().filter(|module| spec.target_modules.contains(&module.name));
            let size = |module: &LinearModule| match spec.feedforward_modules.contains(&module.name) {
                true => u64::from(module.in_features),
                false => u64::from(module.out_features),
            };
            modules.map(size).sum::<u64>().saturating_mul(layers)
        }
        TuningSpec::Adapter(AdapterSpec::PromptTuning(spec)) => u64::from(spec.num_virtual_tokens) * hidden,
        TuningSpec::Adapter(AdapterSpec::PrefixTuning(spec)) => {
            // As wide as the keys, where they are a module of their own.
            let keys = model.linear_modules.iter().find(|module| module.name == "k_proj");
            let width = keys.map_or(hidden, |module| module.out_features.into());
            2 * u64::from(spec.num_virtual_tokens) * layers * width
        }
    }
}

/// `r * (in + out)` for each adapted module of each adapted layer, DoRA's magnitudes, and what is trained of the
/// vocabulary.
fn lora_parameters(model: &ModelFacts, spec: &LoraSpec) -> u64 {
    let mut sum = 0_u64;
    for layer in 0..model.layers {
        if spec.layers_to_transform.as_ref().is_some_and(|layers| !layers.contains(&layer)) {
            continue;
        }
        for module in model.linear_modules.iter().filter(|module| spec.target_modules.contains(&module.name)) {
            // Facts have no whole paths; a longer key of a pattern is rare, and this is an estimate.
            let rank = u64::from(spec.rank_of(&module.name));
            let (inputs, outputs) = (u64::from(module.in_features), u64::from(module.out_features));
            let magnitudes = if spec.use_dora { outputs } else { 0 };
            sum = sum.saturating_add(rank.saturating_mul(inputs + outputs) + magnitudes);
        }
    }
    let rows =
        spec.modules_to_save.len() as u64 * u64::from(model.vocab_size) + spec.trainable_token_indices.len() as u64;
    sum.saturating_add(rows.saturating_mul(model.hidden_size.into()))
}

fn peak_memory_bytes(model: &ModelFacts, spec: &TrainingSpec, dataset: &DatasetFacts) -> u64 {
    let row_tokens = u64::from(dataset.longest_row_tokens.min(spec.preparation.max_seq_len)) + virtual_tokens(spec);
    let tokens = u64::from(spec.micro_batch_size).saturating_mul(row_tokens);
    let kept: u64 = model
        .linear_modules
        .iter()
        .chain(&model.fixed_modules)
        .map(|module| u64::from(module.in_features) + u64::from(module.out_features))
        .sum::<u64>()
        .saturating_add(EXTRA_VECTORS * u64::from(model.hidden_size));
    let activations = F32_BYTES.saturating_mul(tokens).saturating_mul(kept).saturating_mul(model.layers.into());
    let loss = 2 * F32_BYTES * LOSS_CHUNK_ROWS * u64::from(model.vocab_size);
    let trained = trainable_parameters(model, &spec.tuning);
    let state = optimizer_bytes(model, spec, trained);
    let kept = kept_bytes(spec, trained);
    let training = match spec.tuning {
        TuningSpec::Adapter(_) => trained.saturating_mul(ADAPTER_BYTES).saturating_add(state).saturating_add(kept),
        // The weight itself counts among the model's.
        TuningSpec::Full { .. } => {
            let copies = state.saturating_add(kept).saturating_mul(COPIES_OF_STATE);
            let rest = trained.saturating_mul(FULL_BYTES).saturating_add(copies);
            rest.saturating_add(model.parameters.saturating_mul(F32_BYTES))
        }
    };
    [weight_bytes(model, spec.base_precision), training, activations, loss, PROCESS_BYTES]
        .into_iter()
        .fold(0, u64::saturating_add)
}

/// The model's weights as they are stored, and the largest matrix made dense.
fn weight_bytes(model: &ModelFacts, precision: BasePrecision) -> u64 {
    let size = |module: &LinearModule| u64::from(module.in_features).saturating_mul(module.out_features.into());
    let modules = || model.linear_modules.iter().chain(&model.fixed_modules).map(size);
    let listed = modules().fold(0, u64::saturating_add).saturating_mul(model.layers.into());
    // A layer has more where it holds experts that a token does not go through.
    let vocabulary = 2_u64.saturating_mul(model.vocab_size.into()).saturating_mul(model.hidden_size.into());
    let matrices = listed.max(model.parameters.saturating_sub(vocabulary)).min(model.parameters);
    let rest = (model.parameters - matrices).saturating_mul(F32_BYTES);
    let dense = match precision.is_smaller_than_f32() {
        true => modules().max().unwrap_or(0).saturating_mul(F32_BYTES),
        false => 0,
    };
    precision.bytes(matrices, model.hidden_size.into()).saturating_add(rest).saturating_add(dense)
}

/// Rows that an adapter puts before each document.
fn virtual_tokens(spec: &TrainingSpec) -> u64 {
    match &spec.tuning {
        TuningSpec::Adapter(adapter) => adapter.num_virtual_tokens().into(),
        TuningSpec::Full { .. } => 0,
    }
}

/// Tokens and parameters that the time depends on.
struct Work {
    trained_tokens: f64,
    /// Those and the rows before each document that are no tokens.
    computed_tokens: f64,
    trained_supervised: f64,
    linear_parameters: f64,
    /// Of those, the ones that gradients pass through.
    passed_parameters: f64,
    /// Of those, the ones that are trained themselves.
    trained_linear_parameters: f64,
    /// What an adapter adds to them.
    adapter_parameters: f64,
    head_parameters: f64,
}

impl Work {
    fn of(model: &ModelFacts, spec: &TrainingSpec, dataset: &DatasetFacts) -> Self {
        let rows = dataset.train_rows.max(1) as f64;
        let most = f64::from(spec.n_epochs) * rows;
        let passes = (f64::from(spec.total_steps) * f64::from(spec.batch_size)).min(most) / rows;
        let linear = |module: &LinearModule| f64::from(module.in_features) * f64::from(module.out_features);
        let layer = model.linear_modules.iter().chain(&model.fixed_modules).map(linear).sum::<f64>();
        let all = layer * f64::from(model.layers);
        let (passed, trained, adapter) = match &spec.tuning {
            TuningSpec::Full { full: FullSpec { last_layers } } => {
                let trained = last_layers.map_or(all, |layers| layer * f64::from(layers));
                (trained, trained, 0.0)
            }
            TuningSpec::Adapter(AdapterSpec::Lora(lora)) => (all, 0.0, lora_parameters(model, lora) as f64),
            TuningSpec::Adapter(_) => (all, 0.0, 0.0),
        };
        let row_tokens = dataset.train_tokens as f64 + rows * virtual_tokens(spec) as f64;
        Self {
            trained_tokens: (dataset.train_tokens as f64 * passes).round(),
            computed_tokens: row_tokens * passes,
            trained_supervised: dataset.train_supervised_tokens as f64 * passes,
            linear_parameters: all,
            passed_parameters: passed,
            trained_linear_parameters: trained,
            adapter_parameters: adapter,
            head_parameters: f64::from(model.vocab_size) * f64::from(model.hidden_size),
        }
    }

    fn seconds(&self, model: &ModelFacts, spec: &TrainingSpec, dataset: &DatasetFacts) -> f64 {
        let forward = 2.0 * (self.linear_parameters + self.adapter_parameters);
        let backward =
            2.0 * self.passed_parameters + 2.0 * self.trained_linear_parameters + 4.0 * self.adapter_parameters;
        let training =
            self.computed_tokens * (forward + backward) + self.trained_supervised * 4.0 * self.head_parameters;

        let evaluations = f64::from(spec.total_steps / spec.evaluate_every.max(1)) + 1.0;
        // Held-out rows are like the others, as far as is known here.
        let rows = dataset.train_rows.max(1) as f64;
        let held_out = dataset.held_out_rows as f64 / rows;
        let evaluation = evaluations
            * held_out
            * (dataset.train_tokens as f64 * forward
                + dataset.train_supervised_tokens as f64 * 2.0 * self.head_parameters);

        let answers = f64::from(spec.answers.rows).min(dataset.held_out_rows as f64) * ANSWERING_MODELS;
        let generated = answers * f64::from(spec.answers.max_new_tokens);
        let reading = generated * (model.parameters * F32_BYTES) as f64 / BYTES_PER_SECOND;
        (training + evaluation) / FLOPS_PER_SECOND + reading
    }
}

#[cfg(test)]
#[path = "planner_tests.rs"]
mod planner_tests;
