//! peft's `adapter_config.json` for LoRA.

use finetuned_protocol::spec::LoraSpec;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::error::WeightsError;

/// Name of the file beside `adapter_model.safetensors`.
pub const FILE_NAME: &str = "adapter_config.json";

/// What an adapter is, in peft's terms. Its JSON is the whole file; reading it refuses, by name, what is not implemented.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Map<String, Value>", into = "Map<String, Value>")]
pub struct AdapterConfig {
    /// Public name of the base model, never a local path.
    pub base_model_name_or_path: Option<String>,
    pub r: u32,
    pub lora_alpha: f64,
    pub lora_dropout: f64,
    /// Last parts of the adapted modules' paths, or whole paths, sorted.
    pub target_modules: Vec<String>,
    pub use_rslora: bool,
    /// Whether the base stores its linear weights as `[in_features, out_features]`. The adapter's own are not, so that
    /// it has a bearing on merging only.
    pub fan_in_fan_out: bool,
}

/// Fields that have no bearing on what the adapter computes once it is trained.
const NO_BEARING: &[&str] = &[
    "auto_mapping",
    "base_model_name_or_path",
    "ensure_weight_tying",
    "fan_in_fan_out",
    "inference_mode",
    "loftq_config",
    "lora_alpha",
    "lora_dropout",
    "megatron_core",
    "peft_type",
    "peft_version",
    "qalora_group_size",
    "r",
    "revision",
    "runtime_config",
    "target_modules",
    "task_type",
    "use_rslora",
];

/// Ways to set the first weights that leave the base model's as they are.
const PLAIN_INITS: &[&str] = &["gaussian", "orthogonal"];

impl AdapterConfig {
    /// The config of an adapter trained by `spec` on the base model publicly named `base`.
    pub fn new(spec: &LoraSpec, base: &str, fan_in_fan_out: bool) -> Self {
        let mut target_modules = spec.target_modules.clone();
        target_modules.sort();
        Self {
            base_model_name_or_path: Some(base.to_owned()),
            r: spec.r,
            lora_alpha: spec.alpha,
            lora_dropout: spec.dropout,
            target_modules,
            use_rslora: spec.use_rslora,
            fan_in_fan_out,
        }
    }

    /// Reads the file's text.
    ///
    /// # Errors
    /// Text that is no LoRA config, or asks for what is not implemented; the field is named.
    pub fn parse(text: &str) -> Result<Self, WeightsError> {
        let map: Map<String, Value> =
            serde_json::from_str(text).map_err(|error| refused("(all)", format!("cannot be read: {error}")))?;
        Self::try_from(map)
    }

    /// The file's text, the same for the same config.
    ///
    /// # Errors
    /// A number that JSON cannot hold.
    pub fn to_json(&self) -> Result<String, WeightsError> {
        let map = Map::from(self.clone());
        serde_json::to_string_pretty(&map).map_err(|error| refused("(all)", format!("cannot be written: {error}")))
    }

    /// The settings it was trained with.
    pub fn lora_spec(&self) -> LoraSpec {
        LoraSpec {
            r: self.r,
            alpha: self.lora_alpha,
            dropout: self.lora_dropout,
            target_modules: self.target_modules.clone(),
            use_rslora: self.use_rslora,
        }
    }
}

fn refused(field: impl Into<String>, reason: impl Into<String>) -> WeightsError {
    WeightsError::AdapterConfig { field: field.into(), reason: reason.into() }
}

impl TryFrom<Map<String, Value>> for AdapterConfig {
    type Error = WeightsError;

    fn try_from(map: Map<String, Value>) -> Result<Self, WeightsError> {
        let get = |field: &str| map.get(field).filter(|value| !value.is_null());
        expect(get("peft_type"), "peft_type", "LORA")?;
        if get("task_type").is_some() {
            expect(get("task_type"), "task_type", "CAUSAL_LM")?;
        }
        map.iter().try_for_each(|(field, value)| refuse_unimplemented(field, value))?;
        let number = |field: &str, default: f64| match get(field) {
            None => Ok(default),
            Some(value) => value.as_f64().filter(|n| n.is_finite()).ok_or_else(|| refused(field, "must be a number")),
        };
        let r = get("r").and_then(Value::as_u64).and_then(|r| u32::try_from(r).ok()).filter(|r| *r > 0);
        let lora_dropout = number("lora_dropout", 0.0)?;
        if !(0.0..1.0).contains(&lora_dropout) {
            return Err(refused("lora_dropout", "must be at least 0 and below 1"));
        }
        Ok(Self {
            base_model_name_or_path: get("base_model_name_or_path").and_then(Value::as_str).map(str::to_owned),
            r: r.ok_or_else(|| refused("r", "must be a whole number of at least 1"))?,
            lora_alpha: number("lora_alpha", 8.0)?,
            lora_dropout,
            target_modules: target_modules(get("target_modules"))?,
            use_rslora: get("use_rslora").and_then(Value::as_bool).unwrap_or(false),
            fan_in_fan_out: get("fan_in_fan_out").and_then(Value::as_bool).unwrap_or(false),
        })
    }
}

fn expect(value: Option<&Value>, field: &str, wanted: &str) -> Result<(), WeightsError> {
    match value {
        Some(Value::String(text)) if text == wanted => Ok(()),
        Some(other) => Err(refused(field, format!("is {other}; only \"{wanted}\" is supported"))),
        None => Err(refused(field, format!("is missing; it must be \"{wanted}\""))),
    }
}

/// Every field that is not known to have no bearing must be off.
fn refuse_unimplemented(field: &str, value: &Value) -> Result<(), WeightsError> {
    let off = match value {
        _ if NO_BEARING.contains(&field) => true,
        Value::Null | Value::Bool(false) => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(items) => items.is_empty(),
        Value::String(text) if field == "bias" => text == "none",
        Value::Bool(_) if field == "init_lora_weights" => true,
        Value::String(text) if field == "init_lora_weights" => PLAIN_INITS.contains(&text.as_str()),
        _ => false,
    };
    match off {
        true => Ok(()),
        false => Err(refused(field, format!("is {value}, which is not supported"))),
    }
}

fn target_modules(value: Option<&Value>) -> Result<Vec<String>, WeightsError> {
    let field = "target_modules";
    let Some(Value::Array(items)) = value else {
        return Err(refused(field, "must be a list of module names; a pattern is not supported"));
    };
    let plain = |item: &Value| item.as_str().filter(|name| !name.is_empty()).map(str::to_owned);
    let names: Option<Vec<_>> = items.iter().map(plain).collect();
    let mut names = names.ok_or_else(|| refused(field, "must hold plain module names such as `q_proj`"))?;
    names.sort();
    names.dedup();
    if names.is_empty() {
        return Err(refused(field, "names no module"));
    }
    Ok(names)
}

/// A whole number where it is one: peft's own field is an integer.
fn whole_if_possible(number: f64) -> Value {
    if number.fract() == 0.0 && number.abs() < 9e15 { json!(number as i64) } else { json!(number) }
}

impl From<AdapterConfig> for Map<String, Value> {
    fn from(config: AdapterConfig) -> Self {
        let fields = [
            ("alpha_pattern", json!({})),
            ("auto_mapping", Value::Null),
            ("base_model_name_or_path", json!(config.base_model_name_or_path)),
            ("bias", json!("none")),
            ("fan_in_fan_out", json!(config.fan_in_fan_out)),
            ("inference_mode", json!(true)),
            ("init_lora_weights", json!(true)),
            ("layer_replication", Value::Null),
            ("layers_pattern", Value::Null),
            ("layers_to_transform", Value::Null),
            ("lora_alpha", whole_if_possible(config.lora_alpha)),
            ("lora_dropout", json!(config.lora_dropout)),
            ("modules_to_save", Value::Null),
            ("peft_type", json!("LORA")),
            ("r", json!(config.r)),
            ("rank_pattern", json!({})),
            ("revision", Value::Null),
            ("target_modules", json!(config.target_modules)),
            ("task_type", json!("CAUSAL_LM")),
            ("use_dora", json!(false)),
            ("use_rslora", json!(config.use_rslora)),
        ];
        fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

#[cfg(test)]
#[path = "adapter_config_tests.rs"]
mod adapter_config_tests;
