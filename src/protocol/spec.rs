//! The resolved settings of a job: every `auto` a number, every default spelled out. Echoed as `effective` and handed to
//! the engine, so that what a client reads is what was trained.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    evaluation_spec::EvaluationSpec,
    export::ExportFormat,
    lint::ReadingSpec,
    objective::ObjectiveSpec,
    optimization::{EarlyStoppingSpec, OptimizerSpec, ScheduleSpec, WeightAveragingSpec},
    precision::BasePrecision,
    tuning::TuningSpec,
};

/// How a row becomes text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum TemplateSpec {
    /// The base model's own chat template.
    Chat,
    /// The prompt published with Stanford Alpaca.
    Alpaca,
    /// The user's Jinja text, which sees `messages` and `add_generation_prompt` as a chat template does.
    Jinja { source: String },
}

/// What turns files into token rows; needed before the number of steps is known.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PreparationSpec {
    pub template: TemplateSpec,
    /// Longest row in tokens; what is beyond is cut off.
    pub max_seq_len: u32,
    /// Whether prompt tokens carry loss too.
    pub train_on_prompt: bool,
    /// Share of the training file that is held out; zero where a validation file is given.
    pub eval_fraction: f64,
    /// Seed of the hash that chooses held-out rows. Apart from the job's seed, so that a file always splits the same way.
    pub split_seed: u64,
    #[serde(default, skip_serializing_if = "RowsSpec::is_default")]
    pub rows: RowsSpec,
}

/// How the files are read, and how many bad rows are let pass.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RowsSpec {
    #[serde(default, skip_serializing_if = "ReadingSpec::is_default")]
    pub training: ReadingSpec,
    #[serde(default, skip_serializing_if = "ReadingSpec::is_default")]
    pub validation: ReadingSpec,
    /// Largest share of a file's rows that may be broken and are left out; beyond it the job is refused.
    #[serde(default)]
    pub invalid_row_tolerance: f64,
}

impl RowsSpec {
    /// Whether nothing is asked for.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// What the evaluation at the end asks of both models.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AnswersSpec {
    /// Held-out prompts to answer, at most; zero asks for none.
    pub rows: u32,
    pub max_new_tokens: u32,
}

/// Everything the engine needs to know about the training itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TrainingSpec {
    pub preparation: PreparationSpec,
    #[serde(default)]
    pub objective: ObjectiveSpec,
    /// `lora`, `ia3`, `prompt_tuning`, `prefix_tuning` or `full`.
    #[serde(flatten)]
    pub tuning: TuningSpec,
    /// How the base model's frozen weights are stored.
    #[serde(default)]
    pub base_precision: BasePrecision,
    /// The job, or the uploaded file, whose adapter training goes on from; null starts afresh.
    #[serde(default)]
    pub continue_from: Option<String>,
    pub optimizer: OptimizerSpec,
    pub schedule: ScheduleSpec,
    /// Noise on the embeddings in training (NEFTune: Jain et al. 2023); 0 for none.
    #[serde(default)]
    pub neftune_noise_alpha: f64,
    /// Share of each target's probability that is spread over the vocabulary in training (Szegedy et al. 2016).
    #[serde(default)]
    pub label_smoothing: f64,
    #[serde(default)]
    pub early_stopping: Option<EarlyStoppingSpec>,
    #[serde(default)]
    pub weight_averaging: Option<WeightAveragingSpec>,
    /// Rows an optimiser step.
    pub batch_size: u32,
    /// Rows computed at once; gradients of `batch_size / micro_batch_size` of them are added up.
    pub micro_batch_size: u32,
    /// Passes over the training rows, the last one perhaps not whole.
    pub n_epochs: u32,
    /// Optimiser steps.
    pub total_steps: u32,
    /// Steps between evaluations on the held-out rows.
    pub evaluate_every: u32,
    /// Steps between checkpoints.
    pub checkpoint_every: u32,
    pub seed: u32,
    pub answers: AnswersSpec,
    /// How the answers are judged.
    #[serde(default)]
    pub evaluation: EvaluationSpec,
    /// Further forms in which the result is left.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub export: Vec<ExportFormat>,
}

/// A linear layer that can be adapted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LinearModule {
    /// Last part of its name, such as `q_proj`.
    pub name: String,
    pub in_features: u32,
    pub out_features: u32,
}

/// What the service knows of a base model without loading its weights.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ModelFacts {
    /// `model_type` of its config, such as `llama`.
    pub architecture: String,
    pub parameters: u64,
    pub layers: u32,
    pub hidden_size: u32,
    pub vocab_size: u32,
    /// Longest sequence it was made for, in tokens.
    pub context_length: u32,
    /// Adaptable linear modules of one layer.
    pub linear_modules: Vec<LinearModule>,
    /// Other matrices of one layer that each token goes through and no adapter changes, such as its experts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fixed_modules: Vec<LinearModule>,
    pub has_chat_template: bool,
}

impl ModelFacts {
    /// Whether it multiplies its embeddings before the first layer.
    pub fn scales_embeddings(&self) -> bool {
        matches!(self.architecture.as_str(), "gemma2" | "gemma3" | "gemma3_text")
    }

    /// Whether it is the language model of a larger one, whose other weights are left alone.
    pub fn is_part_of_a_larger_model(&self) -> bool {
        self.architecture == "gemma3"
    }

    /// Names of the embedding and of the output head in Hugging Face's classes.
    pub fn vocabulary_modules(&self) -> [&'static str; 2] {
        match self.architecture.as_str() {
            "gpt2" => ["wte", "lm_head"],
            "gpt_neox" => ["embed_in", "embed_out"],
            _ => ["embed_tokens", "lm_head"],
        }
    }
}

/// What preparing the files found; with [`ModelFacts`] it settles every `auto`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DatasetFacts {
    /// Rows to train on; of documents, the pieces of at most `max_seq_len` tokens that they are cut into.
    pub train_rows: u64,
    /// Likewise.
    pub held_out_rows: u64,
    /// Of a pair, both answers with their prompts.
    pub train_tokens: u64,
    /// Of a pair, those of the better answer.
    pub train_supervised_tokens: u64,
    /// Of a pair, both answers with their prompts.
    pub longest_row_tokens: u32,
    /// Rows that lost part of their answer to `max_seq_len`.
    pub truncated_rows: u64,
    /// Rows left out because no supervised token was left.
    pub dropped_rows: u64,
}

/// What a job is expected to take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Estimate {
    pub tokens: u64,
    pub steps: u32,
    pub peak_memory_bytes: u64,
    /// Seconds of training on the slowest supported device, two CPU cores.
    pub seconds: u64,
    /// Estimates from before there was one reserve nothing.
    #[serde(default)]
    pub disk: DiskEstimate,
}

/// Room on disks that a training is expected to take, beside its datasets. It is reserved before an attempt starts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DiskEstimate {
    /// In the folder of an attempt: checkpoints on their way into the store, and what is exported.
    pub work_bytes: u64,
    /// In the store: the checkpoints that are kept, and what is exported.
    pub stored_bytes: u64,
}
