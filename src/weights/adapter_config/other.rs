//! The fields of (IA)³, prompt tuning and prefix tuning.

use finetuned_protocol::tuning::{Ia3Spec, PrefixTuningSpec, PromptInit, PromptTuningSpec};
use serde_json::{Value, json};

use super::{
    BaseTraits,
    fields::{Fields, refused},
};
use crate::error::WeightsError;

pub(super) const IA3: &str = "IA3";
pub(super) const PROMPT_TUNING: &str = "PROMPT_TUNING";
pub(super) const PREFIX_TUNING: &str = "PREFIX_TUNING";

/// Sizes that peft keeps: the tensor's own shape says the same, and it is compared with the model.
const SIZES: &[&str] = &["num_attention_heads", "num_layers", "num_virtual_tokens", "token_dim"];
/// How the first prompt was made.
const PROMPT_START: &[&str] =
    &["prompt_tuning_init", "prompt_tuning_init_text", "tokenizer_kwargs", "tokenizer_name_or_path"];

pub(super) fn read_ia3(fields: &Fields) -> Result<Ia3Spec, WeightsError> {
    // How the vectors were started is over once they are trained.
    let read = ["fan_in_fan_out", "feedforward_modules", "init_ia3_weights", "target_modules"];
    fields.refuse_others(&read, |_, _| false)?;
    let spec = Ia3Spec {
        target_modules: fields.some_paths("target_modules")?,
        feedforward_modules: fields.paths("feedforward_modules")?,
    };
    match spec.feedforward_modules.iter().find(|name| !spec.target_modules.contains(name)) {
        Some(name) => Err(refused("feedforward_modules", format!("has `{name}`, which is no target module"))),
        None => Ok(spec),
    }
}

pub(super) fn ia3_fields(spec: &Ia3Spec, base: &BaseTraits) -> Vec<(&'static str, Value)> {
    let sorted = |names: &[String]| {
        let mut names = names.to_vec();
        names.sort();
        json!(names)
    };
    vec![
        ("exclude_modules", Value::Null),
        ("fan_in_fan_out", json!(base.fan_in_fan_out)),
        ("feedforward_modules", sorted(&spec.feedforward_modules)),
        ("init_ia3_weights", json!(true)),
        ("modules_to_save", Value::Null),
        ("peft_type", json!(IA3)),
        ("target_modules", sorted(&spec.target_modules)),
    ]
}

pub(super) fn read_prompt(fields: &Fields) -> Result<PromptTuningSpec, WeightsError> {
    fields.refuse_others(&[SIZES, PROMPT_START].concat(), one_submodule)?;
    Ok(PromptTuningSpec { num_virtual_tokens: fields.count("num_virtual_tokens")?, init: PromptInit::Random })
}

pub(super) fn prompt_fields(spec: &PromptTuningSpec, base: &BaseTraits) -> Vec<(&'static str, Value)> {
    vec![
        ("modules_to_save", Value::Null),
        ("num_attention_heads", json!(base.num_attention_heads)),
        ("num_layers", json!(base.num_layers)),
        ("num_transformer_submodules", json!(1)),
        ("num_virtual_tokens", json!(spec.num_virtual_tokens)),
        ("peft_type", json!(PROMPT_TUNING)),
        // The trained rows replace whatever a loader starts with; this start needs no tokenizer.
        ("prompt_tuning_init", json!("RANDOM")),
        ("prompt_tuning_init_text", Value::Null),
        ("token_dim", json!(base.hidden_size)),
        ("tokenizer_kwargs", Value::Null),
        ("tokenizer_name_or_path", Value::Null),
    ]
}

pub(super) fn read_prefix(fields: &Fields) -> Result<PrefixTuningSpec, WeightsError> {
    // Without a projection its width has no bearing, nor how the first prefix was made.
    let read = [SIZES, &["encoder_hidden_size", "init_weights"]].concat();
    fields.refuse_others(&read, one_submodule)?;
    Ok(PrefixTuningSpec { num_virtual_tokens: fields.count("num_virtual_tokens")? })
}

pub(super) fn prefix_fields(spec: PrefixTuningSpec, base: &BaseTraits) -> Vec<(&'static str, Value)> {
    // Keys and values are what is trained, so their heads are meant.
    let width = base.num_key_value_heads * base.head_dim;
    vec![
        ("encoder_hidden_size", json!(width)),
        ("modules_to_save", Value::Null),
        ("num_attention_heads", json!(base.num_key_value_heads)),
        ("num_layers", json!(base.num_layers)),
        ("num_transformer_submodules", json!(1)),
        ("num_virtual_tokens", json!(spec.num_virtual_tokens)),
        ("peft_type", json!(PREFIX_TUNING)),
        ("prefix_projection", json!(false)),
        ("token_dim", json!(width)),
    ]
}

/// A decoder is one submodule; two are an encoder and a decoder.
fn one_submodule(field: &str, value: &Value) -> bool {
    field == "num_transformer_submodules" && *value == json!(1)
}
