//! The fields of LoRA.

use std::collections::BTreeMap;

use finetuned_protocol::tuning::{LoraInit, LoraSpec, is_plain_key};
use serde_json::{Value, json};

use super::{
    BaseTraits,
    fields::{Fields, refused},
};
use crate::error::WeightsError;

pub(super) const PEFT_TYPE: &str = "LORA";

/// Fields that are read below, and those that say nothing of what is computed.
const READ: &[&str] = &[
    "alpha_pattern",
    "ensure_weight_tying",
    "fan_in_fan_out",
    "layers_to_transform",
    "loftq_config",
    "lora_alpha",
    "lora_dropout",
    "megatron_core",
    "modules_to_save",
    "qalora_group_size",
    "r",
    "rank_pattern",
    "target_modules",
    "trainable_token_indices",
    "use_dora",
    "use_rslora",
];

/// Ways to set the first weights that leave the base model's as they are.
const PLAIN_INITS: &[&str] = &["gaussian", "orthogonal"];

pub(super) fn read(fields: &Fields) -> Result<LoraSpec, WeightsError> {
    fields.refuse_others(READ, |field, value| match (field, value) {
        ("bias", Value::String(text)) => text == "none",
        ("init_lora_weights", Value::Bool(_)) => true,
        ("init_lora_weights", Value::String(text)) => PLAIN_INITS.contains(&text.as_str()),
        _ => false,
    })?;
    let dropout = fields.number("lora_dropout", 0.0)?;
    if !(0.0..1.0).contains(&dropout) {
        return Err(refused("lora_dropout", "must be at least 0 and below 1"));
    }
    let rank = |value: &Value| value.as_u64().and_then(|r| u32::try_from(r).ok()).filter(|r| *r > 0);
    let alpha = |value: &Value| value.as_f64().filter(|alpha| alpha.is_finite());
    Ok(LoraSpec {
        r: fields.count("r")?,
        alpha: fields.number("lora_alpha", 8.0)?,
        dropout,
        target_modules: fields.some_paths("target_modules")?,
        use_rslora: fields.flag("use_rslora")?,
        use_dora: fields.flag("use_dora")?,
        rank_pattern: pattern(fields, "rank_pattern", rank)?,
        alpha_pattern: pattern(fields, "alpha_pattern", alpha)?,
        layers_to_transform: fields.indices("layers_to_transform")?.filter(|layers| !layers.is_empty()),
        modules_to_save: fields.names("modules_to_save")?,
        trainable_token_indices: fields.indices("trainable_token_indices")?.unwrap_or_default(),
        init: LoraInit::Default,
        loraplus_lr_ratio: 1.0,
    })
}

/// Values by the end of a module's path. peft takes the keys for regular expressions; only those are read that are none.
fn pattern<T>(
    fields: &Fields,
    field: &str,
    read: impl Fn(&Value) -> Option<T>,
) -> Result<BTreeMap<String, T>, WeightsError> {
    let Some(value) = fields.get(field) else { return Ok(BTreeMap::new()) };
    let map = value.as_object().ok_or_else(|| refused(field, "must map module names to numbers"))?;
    let entry = |(key, value): (&String, &Value)| {
        if !is_plain_key(key) {
            return Err(refused(field, format!("has `{key}`; only the end of a module's path is supported")));
        }
        let value = read(value).ok_or_else(|| refused(field, format!("has {value} for `{key}`")))?;
        Ok((key.clone(), value))
    };
    map.iter().map(entry).collect()
}

/// A whole number where it is one: peft's own field is an integer.
fn whole_if_possible(number: f64) -> Value {
    if number.fract() == 0.0 && number.abs() < 9e15 { json!(number as i64) } else { json!(number) }
}

fn null_if_empty<T: serde::Serialize>(items: &[T]) -> Value {
    if items.is_empty() { Value::Null } else { json!(items) }
}

pub(super) fn fields(spec: &LoraSpec, base: &BaseTraits) -> Vec<(&'static str, Value)> {
    let mut target_modules = spec.target_modules.clone();
    target_modules.sort();
    let alphas: BTreeMap<_, _> =
        spec.alpha_pattern.iter().map(|(key, alpha)| (key, whole_if_possible(*alpha))).collect();
    vec![
        ("alpha_pattern", json!(alphas)),
        ("bias", json!("none")),
        ("fan_in_fan_out", json!(base.fan_in_fan_out)),
        ("init_lora_weights", json!(true)),
        ("layer_replication", Value::Null),
        ("layers_pattern", Value::Null),
        ("layers_to_transform", json!(spec.layers_to_transform)),
        ("lora_alpha", whole_if_possible(spec.alpha)),
        ("lora_dropout", json!(spec.dropout)),
        ("modules_to_save", null_if_empty(&spec.modules_to_save)),
        ("peft_type", json!(PEFT_TYPE)),
        ("r", json!(spec.r)),
        ("rank_pattern", json!(spec.rank_pattern)),
        ("target_modules", json!(target_modules)),
        ("trainable_token_indices", null_if_empty(&spec.trainable_token_indices)),
        ("use_dora", json!(spec.use_dora)),
        ("use_rslora", json!(spec.use_rslora)),
    ]
}
