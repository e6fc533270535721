//! The body of `POST /v1/fine_tuning/jobs`: OpenAI's fields and ours beside them, each checked for its range.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use utoipa::ToSchema;

use crate::{
    error::FieldError,
    evaluation_spec::EvaluationRequest,
    export::ExportFormat,
    lint::ReadingSpec,
    objective::DpoRequest,
    optimization_request::{EarlyStoppingRequest, OptimizerRequest, ScheduleRequest, WeightAveragingRequest},
    precision::BasePrecision,
    spec::TemplateSpec,
    templates::{TEMPLATES, template_by_name},
    tuning_request::{FullRequest, Ia3Request, LoraRequest, PrefixTuningRequest, PromptTuningRequest},
};

/// A number, or `"auto"` for the service to choose.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Auto<T> {
    Auto,
    Value(T),
}

impl<T: Copy> Auto<T> {
    /// The number, where one was asked for.
    pub fn value(self) -> Option<T> {
        match self {
            Self::Auto => None,
            Self::Value(value) => Some(value),
        }
    }
}

/// The word `auto`, in descriptions of [`Auto`].
#[derive(ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AutoWord {
    Auto,
}

/// A whole number or `"auto"`: describes `Auto<u32>`.
#[derive(ToSchema)]
#[serde(untagged)]
pub enum AutoInteger {
    Auto(AutoWord),
    Value(u32),
}

/// A number or `"auto"`: describes `Auto<f64>`.
#[derive(ToSchema)]
#[serde(untagged)]
pub enum AutoNumber {
    Auto(AutoWord),
    Value(f64),
}

impl<T: Serialize> Serialize for Auto<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::Value(value) => value.serialize(serializer),
        }
    }
}

impl<'de, T: de::DeserializeOwned> Deserialize<'de> for Auto<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        if value.as_str() == Some("auto") {
            return Ok(Self::Auto);
        }
        serde_json::from_value(value)
            .map(Self::Value)
            .map_err(|error| de::Error::custom(format!("must be \"auto\" or a number ({error})")))
    }
}

/// Hyperparameters as OpenAI spells them, under `method.supervised` or, deprecated, at the top.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HyperparametersRequest {
    /// `"auto"` or 1 to 256.
    #[schema(value_type = Option<AutoInteger>)]
    pub batch_size: Option<Auto<u32>>,
    /// `"auto"` or a factor above 0 for the default learning rate.
    #[schema(value_type = Option<AutoNumber>)]
    pub learning_rate_multiplier: Option<Auto<f64>>,
    /// `"auto"` or 1 to 50.
    #[schema(value_type = Option<AutoInteger>)]
    pub n_epochs: Option<Auto<u32>>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SupervisedRequest {
    pub hyperparameters: Option<HyperparametersRequest>,
}

/// `method`: `supervised` or `dpo`; `reinforcement` is refused by name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MethodRequest {
    #[serde(rename = "type")]
    pub kind: String,
    pub supervised: Option<SupervisedRequest>,
    pub dpo: Option<DpoRequest>,
    #[schema(value_type = Option<Object>)]
    pub reinforcement: Option<serde_json::Value>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AnswersRequest {
    /// 0 to 256; default 64.
    pub rows: Option<u32>,
    /// 1 to 2048; default 128.
    pub max_new_tokens: Option<u32>,
}

/// Which checkpoints stay while a job goes on; the newest always does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct KeepCheckpointsRequest {
    /// So many of the newest, 1 to 1000.
    pub last: u32,
    /// Beside those, so many with the lowest validation loss, 0 to 1000; default 0.
    pub best: Option<u32>,
}

/// Ids of the two files of an adapter in peft's layout, uploaded with the purpose `user_data`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AdapterFilesRequest {
    /// The file `adapter_config.json`.
    pub adapter_config: String,
    /// The file `adapter_model.safetensors`.
    pub adapter_model: String,
}

/// The body of a job's creation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateJobRequest {
    /// Public name of a base model, as `GET /v1/models` lists it.
    pub model: String,
    /// Id of an uploaded file.
    pub training_file: String,
    pub validation_file: Option<String>,
    pub method: Option<MethodRequest>,
    /// Deprecated spelling of `method.supervised.hyperparameters`.
    pub hyperparameters: Option<HyperparametersRequest>,
    /// 1 to 64 letters, digits, `-`, `_` or `.`; becomes part of the tuned model's name.
    pub suffix: Option<String>,
    /// 0 to 2147483647; drawn by the server where absent.
    pub seed: Option<u32>,
    /// At most 16 pairs; keys up to 64, values up to 512 characters.
    pub metadata: Option<BTreeMap<String, String>>,
    #[schema(value_type = Option<Vec<Object>>)]
    pub integrations: Option<Vec<serde_json::Value>>,
    /// -100 to 100, default 0: of a tenant's waiting jobs, one of higher priority starts first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<i32>,

    /// Low-rank adaptation; the method where none of the next four is given.
    pub lora: Option<LoraRequest>,
    /// Train the model's own weights in place of an adapter.
    pub full: Option<FullRequest>,
    pub ia3: Option<Ia3Request>,
    pub prompt_tuning: Option<PromptTuningRequest>,
    pub prefix_tuning: Option<PrefixTuningRequest>,
    /// `auto` (default: `bf16` on CUDA, `f32` on the CPU), `f32`, `bf16`, `int8` or `nf4`: how the base model's frozen
    /// matrices are stored while an adapter is trained.
    pub base_precision: Option<BasePrecision>,
    /// Name of a tuned model, or id of the job that made it: training goes on from its adapter, with the adapter's
    /// settings. `model` is its base model, or its own name.
    pub continue_from: Option<String>,
    /// An adapter in peft's layout that was uploaded: training goes on from it, with its settings.
    pub continue_from_files: Option<AdapterFilesRequest>,
    pub optimizer: Option<OptimizerRequest>,
    pub schedule: Option<ScheduleRequest>,
    /// Uniform noise on the embeddings in training, scaled by `alpha / sqrt(tokens * hidden_size)` (NEFTune): 0 to 1000;
    /// default 0, 5 is usual.
    pub neftune_noise_alpha: Option<f64>,
    /// Share of each target's probability that is spread over the vocabulary in training: 0 or more, below 1; default 0.
    pub label_smoothing: Option<f64>,
    /// End when the held-out rows are predicted no better, and export the best weights seen.
    pub early_stopping: Option<EarlyStoppingRequest>,
    /// Export the mean of the last checkpoints' weights.
    pub weight_averaging: Option<WeightAveragingRequest>,
    /// `"auto"` or 8 tokens up to the model's context length.
    #[schema(value_type = Option<AutoInteger>)]
    pub max_seq_len: Option<Auto<u32>>,
    #[schema(value_type = Option<AutoInteger>)]
    pub batch_size: Option<Auto<u32>>,
    /// `"auto"` or 1 to `batch_size`.
    #[schema(value_type = Option<AutoInteger>)]
    pub micro_batch_size: Option<Auto<u32>>,
    #[schema(value_type = Option<AutoInteger>)]
    pub n_epochs: Option<Auto<u32>>,
    /// Optimiser steps, instead of `n_epochs`.
    pub max_steps: Option<u32>,
    /// Share of the training file to hold out where there is no validation file: above 0, at most 0.5; default 0.1.
    pub eval_fraction: Option<f64>,
    /// Steps between evaluations.
    #[schema(value_type = Option<AutoInteger>)]
    pub evaluate_every: Option<Auto<u32>>,
    /// Steps between checkpoints.
    #[schema(value_type = Option<AutoInteger>)]
    pub checkpoint_every: Option<Auto<u32>>,
    /// All checkpoints where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_checkpoints: Option<KeepCheckpointsRequest>,
    /// `chat`, `alpaca`, `chatml`, `llama-2`, `llama-3`, `mistral`, `gemma`, `phi`, `plain`, or a Jinja text; by default `chat` where the model has a chat template, else `alpaca`.
    pub template: Option<String>,
    /// How the training file is read; by default as at its upload.
    pub training_reading: Option<ReadingSpec>,
    /// How the validation file is read; by default as at its upload.
    pub validation_reading: Option<ReadingSpec>,
    /// Largest share of a file's rows that may break rules of severity `error`: 0 to 0.5; default 0. They are left out.
    pub invalid_row_tolerance: Option<f64>,
    /// False: the job stops after its validation, until `POST .../start`.
    pub auto_start: Option<bool>,
    pub train_on_prompt: Option<bool>,
    /// Answers of base and tuned to held-out prompts.
    pub answers: Option<AnswersRequest>,
    /// How those answers are judged.
    pub evaluation: Option<EvaluationRequest>,
    /// Further forms of what is trained, beside the adapter: `merged`, `gguf_f16`, `gguf_q8_0`, `gguf_lora`.
    pub export: Option<Vec<ExportFormat>>,
}

/// # Errors
/// A number out of its range.
pub fn check_answers(answers: &AnswersRequest) -> Result<(), FieldError> {
    range(answers.rows, "answers.rows", 0, 256)?;
    range(answers.max_new_tokens, "answers.max_new_tokens", 1, 2048)
}

/// A template by its name or its text.
///
/// # Errors
/// Neither a known name nor a Jinja text, or one that is too long.
pub fn parse_template(text: &str) -> Result<TemplateSpec, FieldError> {
    match text {
        "chat" => Ok(TemplateSpec::Chat),
        "alpaca" => Ok(TemplateSpec::Alpaca),
        text if text.len() > MAX_TEMPLATE_BYTES => {
            Err(FieldError::new("template", format!("`template` is longer than {MAX_TEMPLATE_BYTES} bytes")))
        }
        text if text.contains("{{") || text.contains("{%") => Ok(TemplateSpec::Jinja { source: text.to_owned() }),
        name => match template_by_name(name) {
            Some(source) => Ok(TemplateSpec::Jinja { source: source.to_owned() }),
            None => {
                let names: Vec<String> = TEMPLATES.iter().map(|(name, _)| format!("`{name}`")).collect();
                let message = format!(
                    "`template` must be `chat`, `alpaca`, {}, or a Jinja text (with `{{{{` or `{{%`)",
                    names.join(", ")
                );
                Err(FieldError::new("template", message))
            }
        },
    }
}

/// Longest Jinja text that is accepted.
pub const MAX_TEMPLATE_BYTES: usize = 64 * 1024;

/// The range of a job's priority.
///
/// # Errors
/// A number outside of it.
pub fn check_priority(priority: Option<i32>) -> Result<(), FieldError> {
    range(priority, "priority", -100, 100)
}

pub(crate) fn require(holds: bool, param: &str, rule: &str) -> Result<(), FieldError> {
    if holds { Ok(()) } else { Err(FieldError::new(param, format!("`{param}` must be {rule}"))) }
}

pub(crate) fn range<T: PartialOrd + Copy + std::fmt::Display>(
    value: Option<T>,
    param: &str,
    low: T,
    high: T,
) -> Result<(), FieldError> {
    match value {
        Some(value) => {
            require(value >= low && value <= high, param, &format!("between {low} and {high}; it is {value}"))
        }
        None => Ok(()),
    }
}

/// The single value of a setting that can be written in several places.
fn one_of<T: PartialEq + Copy>(places: &[(&str, Option<Auto<T>>)]) -> Result<Option<T>, FieldError> {
    let mut found: Option<(&str, T)> = None;
    for (param, value) in places {
        let Some(value) = value.and_then(Auto::value) else { continue };
        match found {
            Some((first, other)) if other != value => {
                return Err(FieldError::new(
                    *param,
                    format!("`{param}` and `{first}` name different values; give one of them"),
                ));
            }
            _ => found = Some((param, value)),
        }
    }
    Ok(found.map(|(_, value)| value))
}

impl CreateJobRequest {
    /// Checkpoints that stay while the job goes on; `None` for all.
    pub fn kept_checkpoints(&self) -> Option<u32> {
        self.keep_checkpoints.as_ref().map(|keep| keep.last.saturating_add(keep.best.unwrap_or(0)))
    }

    fn supervised(&self) -> HyperparametersRequest {
        let method = self.method.as_ref().and_then(|method| method.supervised.as_ref());
        method.and_then(|supervised| supervised.hyperparameters.clone()).unwrap_or_default()
    }

    fn deprecated(&self) -> HyperparametersRequest {
        self.hyperparameters.clone().unwrap_or_default()
    }

    /// Rows an optimiser step, where the client chose.
    pub fn chosen_batch_size(&self) -> Result<Option<u32>, FieldError> {
        one_of(&[
            ("batch_size", self.batch_size),
            ("method.supervised.hyperparameters.batch_size", self.supervised().batch_size),
            ("method.dpo.hyperparameters.batch_size", self.dpo().common().batch_size),
            ("hyperparameters.batch_size", self.deprecated().batch_size),
        ])
    }

    /// Passes over the data, where the client chose.
    pub fn chosen_n_epochs(&self) -> Result<Option<u32>, FieldError> {
        one_of(&[
            ("n_epochs", self.n_epochs),
            ("method.supervised.hyperparameters.n_epochs", self.supervised().n_epochs),
            ("method.dpo.hyperparameters.n_epochs", self.dpo().common().n_epochs),
            ("hyperparameters.n_epochs", self.deprecated().n_epochs),
        ])
    }

    /// Factor of the default learning rate, where the client chose.
    pub fn chosen_learning_rate_multiplier(&self) -> Result<Option<f64>, FieldError> {
        one_of(&[
            ("method.supervised.hyperparameters.learning_rate_multiplier", self.supervised().learning_rate_multiplier),
            ("method.dpo.hyperparameters.learning_rate_multiplier", self.dpo().common().learning_rate_multiplier),
            ("hyperparameters.learning_rate_multiplier", self.deprecated().learning_rate_multiplier),
        ])
    }

    /// The template, where the client chose.
    pub fn chosen_template(&self) -> Result<Option<TemplateSpec>, FieldError> {
        self.template.as_deref().map(parse_template).transpose()
    }

    /// Checks all that can be known from the request alone.
    ///
    /// # Errors
    /// The first field that is out of its range, not built yet, or at odds with another.
    pub fn check(&self) -> Result<(), FieldError> {
        self.check_openai_fields()?;
        self.check_objective()?;
        self.check_tuning()?;
        self.check_optimization()?;
        self.check_base_precision()?;
        self.check_loop()
    }

    fn check_openai_fields(&self) -> Result<(), FieldError> {
        require(!self.model.is_empty(), "model", "the name of a base model; GET /v1/models lists them")?;
        range(self.seed, "seed", 0, 2_147_483_647)?;
        check_priority(self.priority)?;
        if let Some(suffix) = &self.suffix {
            let allowed = suffix.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
            require(allowed && (1..=64).contains(&suffix.len()), "suffix", "1 to 64 letters, digits, `-`, `_` or `.`")?;
        }
        if let Some(metadata) = &self.metadata {
            require(metadata.len() <= 16, "metadata", "at most 16 pairs")?;
            for (key, value) in metadata {
                require(key.chars().count() <= 64, "metadata", "pairs with keys of at most 64 characters")?;
                require(value.chars().count() <= 512, "metadata", "pairs with values of at most 512 characters")?;
            }
        }
        let integrations = self.integrations.as_deref().unwrap_or_default();
        require(
            integrations.is_empty(),
            "integrations",
            "absent or empty: no integration is built; read the job's metrics instead",
        )
    }

    fn check_loop(&self) -> Result<(), FieldError> {
        let batch_size = self.chosen_batch_size()?;
        range(batch_size, "batch_size", 1, 256)?;
        let micro_batch_size = self.micro_batch_size.and_then(Auto::value);
        range(micro_batch_size, "micro_batch_size", 1, batch_size.unwrap_or(256))?;
        let n_epochs = self.chosen_n_epochs()?;
        range(n_epochs, "n_epochs", 1, 50)?;
        range(self.max_steps, "max_steps", 1, 1_000_000)?;
        require(self.max_steps.is_none() || n_epochs.is_none(), "max_steps", "absent where `n_epochs` is a number")?;
        range(self.max_seq_len.and_then(Auto::value), "max_seq_len", 8, 1 << 20)?;
        require(self.eval_fraction.is_none_or(|f| f > 0.0 && f <= 0.5), "eval_fraction", "above 0 and at most 0.5")?;
        require(
            self.eval_fraction.is_none() || self.validation_file.is_none(),
            "eval_fraction",
            "absent where a `validation_file` is given",
        )?;
        range(self.invalid_row_tolerance, "invalid_row_tolerance", 0.0, 0.5)?;
        require(
            self.validation_reading.is_none() || self.validation_file.is_some(),
            "validation_reading",
            "absent where no `validation_file` is given",
        )?;
        range(self.evaluate_every.and_then(Auto::value), "evaluate_every", 1, 1_000_000)?;
        range(self.checkpoint_every.and_then(Auto::value), "checkpoint_every", 1, 1_000_000)?;
        let keep = self.keep_checkpoints.as_ref();
        range(keep.map(|keep| keep.last), "keep_checkpoints.last", 1, 1000)?;
        range(keep.and_then(|keep| keep.best), "keep_checkpoints.best", 0, 1000)?;
        check_answers(&self.answers.clone().unwrap_or_default())?;
        self.evaluation.clone().unwrap_or_default().resolve()?;
        self.chosen_template().map(|_| ())
    }
}
