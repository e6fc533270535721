//! peft's `adapter_config.json`.

mod fields;
mod lora;
mod other;

use finetuned_protocol::tuning::AdapterSpec;
use serde_json::{Map, Value, json};

use self::fields::{Fields, refused};
use crate::error::WeightsError;

/// Name of the file beside `adapter_model.safetensors`.
pub const FILE_NAME: &str = "adapter_config.json";

/// What an adapter is. Reading the file refuses, by name, what is not implemented.
#[derive(Debug, Clone, PartialEq)]
pub struct AdapterConfig {
    /// Public name of the base model, never a local path.
    pub base_model_name_or_path: Option<String>,
    pub spec: AdapterSpec,
}

/// What of the base model peft keeps with an adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BaseTraits {
    pub num_layers: u32,
    pub hidden_size: u32,
    pub num_attention_heads: u32,
    pub num_key_value_heads: u32,
    pub head_dim: u32,
    /// Whether linear weights are stored as `[in_features, out_features]`. The adapter's own are not, so that it has a
    /// bearing on merging only.
    pub fan_in_fan_out: bool,
}

/// Fields that any adapter has and that have no bearing on what it computes once it is trained.
const NO_BEARING: &[&str] = &[
    "auto_mapping",
    "base_model_name_or_path",
    "inference_mode",
    "peft_type",
    "peft_version",
    "revision",
    "runtime_config",
    "task_type",
];

impl AdapterConfig {
    /// Reads the file's text.
    ///
    /// # Errors
    /// Text that is no adapter's config, or asks for what is not implemented; the field is named.
    pub fn parse(text: &str) -> Result<Self, WeightsError> {
        let map: Map<String, Value> =
            serde_json::from_str(text).map_err(|error| refused("(all)", format!("cannot be read: {error}")))?;
        let fields = Fields(&map);
        if let Some(task) = fields.get("task_type")
            && task != "CAUSAL_LM"
        {
            return Err(refused("task_type", format!("is {task}; only \"CAUSAL_LM\" is supported")));
        }
        let spec = match fields.get("peft_type").and_then(Value::as_str) {
            Some(lora::PEFT_TYPE) => AdapterSpec::Lora(lora::read(&fields)?),
            Some(other::IA3) => AdapterSpec::Ia3(other::read_ia3(&fields)?),
            Some(other::PROMPT_TUNING) => AdapterSpec::PromptTuning(other::read_prompt(&fields)?),
            Some(other::PREFIX_TUNING) => AdapterSpec::PrefixTuning(other::read_prefix(&fields)?),
            _ => {
                let known = [lora::PEFT_TYPE, other::IA3, other::PROMPT_TUNING, other::PREFIX_TUNING].join(", ");
                let found = fields.get("peft_type").map_or("missing".to_owned(), Value::to_string);
                return Err(refused("peft_type", format!("is {found}; it must be one of {known}")));
            }
        };
        let base_model_name_or_path = fields.get("base_model_name_or_path").and_then(Value::as_str).map(str::to_owned);
        Ok(Self { base_model_name_or_path, spec })
    }

    /// The file's text for an adapter of a model of these traits, the same for the same config.
    ///
    /// # Errors
    /// A number that JSON cannot hold.
    pub fn to_json(&self, base: &BaseTraits) -> Result<String, WeightsError> {
        let own = match &self.spec {
            AdapterSpec::Lora(spec) => lora::fields(spec, base),
            AdapterSpec::Ia3(spec) => other::ia3_fields(spec, base),
            AdapterSpec::PromptTuning(spec) => other::prompt_fields(spec, base),
            AdapterSpec::PrefixTuning(spec) => other::prefix_fields(*spec, base),
        };
        let common = [
            ("auto_mapping", Value::Null),
            ("base_model_name_or_path", json!(self.base_model_name_or_path)),
            ("inference_mode", json!(true)),
            ("revision", Value::Null),
            ("task_type", json!("CAUSAL_LM")),
        ];
        let map: Map<String, Value> =
            own.into_iter().chain(common).map(|(name, value)| (name.to_owned(), value)).collect();
        serde_json::to_string_pretty(&map).map_err(|error| refused("(all)", format!("cannot be written: {error}")))
    }
}

#[cfg(test)]
mod adapter_config_tests;
