//! What a job is expected to take, from sizes alone.
//!
//! **Memory**, all of it f32 as on the CPU, is the sum of
//! - the frozen weights: 4 bytes a parameter;
//! - the adapter: 16 bytes a parameter (weight, gradient and the two moments of AdamW);
//! - the activations of one micro-batch of the longest rows: 4 bytes times tokens, times layers, times what a layer keeps
//!   for its backward pass: the input and output of each linear module (the nonlinearities and attention keep those, too)
//!   and four more vectors of the hidden size for norms and residual sums;
//! - the loss: two chunks of [`LOSS_CHUNK_ROWS`] rows of logits and gradients;
//! - what the process holds before it loads anything, [`PROCESS_BYTES`].
//!
//! **Time** is matrix products over [`FLOPS_PER_SECOND`]. A token costs, with P the weights in linear modules (of experts, the chosen ones) and L those of
//! the adapter, `2P + 2L` forward; training adds `2P` for gradients that pass through the frozen weights (they have none of
//! their own) and `4L` for the adapter's; the output head costs `2 * vocab * hidden` forward and as much backward for each
//! supervised token. Evaluations cost one forward pass over the held-out rows, before, during and after. Generated answers
//! read all weights a token, for which [`BYTES_PER_SECOND`] is the limit. Attention's own products are left out: in rows of a
//! few thousand tokens they are a small part.

use finetuned_protocol::spec::{DatasetFacts, Estimate, ModelFacts, TrainingSpec};

/// Sustained f32 matrix products of two CPU cores with AVX2, operations a second.
pub const FLOPS_PER_SECOND: f64 = 60e9;
/// Memory that two CPU cores read while weights stream past, bytes a second.
pub const BYTES_PER_SECOND: f64 = 8e9;
/// libtorch, its thread pools and the tokenizer.
pub const PROCESS_BYTES: u64 = 400 << 20;
/// Rows of logits that exist at once.
pub const LOSS_CHUNK_ROWS: u64 = 256;

const F32_BYTES: u64 = 4;
/// Weight, gradient, first and second moment.
const ADAPTER_BYTES: u64 = 16;
/// Vectors of the hidden size that a layer keeps beside its linear modules' inputs and outputs.
const EXTRA_VECTORS: u64 = 4;
/// Answers are given twice, by the base model and by the tuned one.
const ANSWERING_MODELS: f64 = 2.0;

/// What a job is expected to take on two CPU cores. An estimate: right within a factor of about two.
pub fn estimate(model: &ModelFacts, spec: &TrainingSpec, dataset: &DatasetFacts) -> Estimate {
    let work = Work::of(model, spec, dataset);
    Estimate {
        tokens: work.trained_tokens as u64,
        steps: spec.total_steps,
        peak_memory_bytes: peak_memory_bytes(model, spec, dataset),
        seconds: work.seconds(model, spec, dataset).ceil() as u64,
    }
}

/// Parameters of the adapter: `r * (in + out)` for each adapted module of each layer.
pub fn adapter_parameters(model: &ModelFacts, spec: &TrainingSpec) -> u64 {
    let adapted = |name: &String| spec.lora.target_modules.contains(name);
    let modules = model.linear_modules.iter().filter(|module| adapted(&module.name));
    let sizes: u64 = modules.map(|module| u64::from(module.in_features) + u64::from(module.out_features)).sum();
    sizes.saturating_mul(spec.lora.r.into()).saturating_mul(model.layers.into())
}

fn peak_memory_bytes(model: &ModelFacts, spec: &TrainingSpec, dataset: &DatasetFacts) -> u64 {
    let row_tokens = dataset.longest_row_tokens.min(spec.preparation.max_seq_len);
    let tokens = u64::from(spec.micro_batch_size).saturating_mul(row_tokens.into());
    let kept: u64 = model
        .linear_modules
        .iter()
        .chain(&model.fixed_modules)
        .map(|module| u64::from(module.in_features) + u64::from(module.out_features))
        .sum::<u64>()
        .saturating_add(EXTRA_VECTORS * u64::from(model.hidden_size));
    let activations = F32_BYTES.saturating_mul(tokens).saturating_mul(kept).saturating_mul(model.layers.into());
    let loss = 2 * F32_BYTES * LOSS_CHUNK_ROWS * u64::from(model.vocab_size);
    [
        model.parameters.saturating_mul(F32_BYTES),
        adapter_parameters(model, spec).saturating_mul(ADAPTER_BYTES),
        activations,
        loss,
        PROCESS_BYTES,
    ]
    .into_iter()
    .fold(0, u64::saturating_add)
}

/// Tokens and parameters that the time depends on.
struct Work {
    trained_tokens: f64,
    trained_supervised: f64,
    linear_parameters: f64,
    adapter_parameters: f64,
    head_parameters: f64,
}

impl Work {
    fn of(model: &ModelFacts, spec: &TrainingSpec, dataset: &DatasetFacts) -> Self {
        let rows = dataset.train_rows.max(1) as f64;
        let most = f64::from(spec.n_epochs) * rows;
        let passes = (f64::from(spec.total_steps) * f64::from(spec.batch_size)).min(most) / rows;
        let linear = |module: &finetuned_protocol::spec::LinearModule| {
            f64::from(module.in_features) * f64::from(module.out_features)
        };
        Self {
            trained_tokens: (dataset.train_tokens as f64 * passes).round(),
            trained_supervised: dataset.train_supervised_tokens as f64 * passes,
            linear_parameters: model.linear_modules.iter().chain(&model.fixed_modules).map(linear).sum::<f64>()
                * f64::from(model.layers),
            adapter_parameters: adapter_parameters(model, spec) as f64,
            head_parameters: f64::from(model.vocab_size) * f64::from(model.hidden_size),
        }
    }

    fn seconds(&self, model: &ModelFacts, spec: &TrainingSpec, dataset: &DatasetFacts) -> f64 {
        let forward = 2.0 * (self.linear_parameters + self.adapter_parameters);
        let backward = 2.0 * self.linear_parameters + 4.0 * self.adapter_parameters;
        let training =
            self.trained_tokens * (forward + backward) + self.trained_supervised * 4.0 * self.head_parameters;

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
