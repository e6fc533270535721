//! Fields of a Llama `config.json`. Defaults are those of transformers' `LlamaConfig`.

use serde_json::Value;

use super::{
    Architecture, ModelConfig,
    fields::{Fields, brief},
    rope,
};
use crate::{error::WeightsError, tensor::HostDtype};

pub(super) fn read(fields: &Fields<'_>) -> Result<ModelConfig, WeightsError> {
    refuse_unimplemented(fields)?;
    let hidden_size = fields.u32("hidden_size")?;
    let num_attention_heads = fields.u32("num_attention_heads")?;
    let head_dim = match fields.maybe_u32("head_dim")? {
        Some(given) => given,
        None => even_share(hidden_size, num_attention_heads)?,
    };
    let max_position_embeddings = fields.maybe_u32("max_position_embeddings")?.unwrap_or(2048);
    Ok(ModelConfig {
        architecture: Architecture::Llama,
        vocab_size: fields.u32("vocab_size")?,
        hidden_size,
        intermediate_size: fields.u32("intermediate_size")?,
        num_hidden_layers: fields.u32("num_hidden_layers")?,
        num_attention_heads,
        num_key_value_heads: fields.maybe_u32("num_key_value_heads")?.unwrap_or(num_attention_heads),
        head_dim,
        max_position_embeddings,
        rms_norm_eps: fields.maybe_f64("rms_norm_eps")?.unwrap_or(1e-6),
        rope: rope::read(fields, max_position_embeddings)?,
        attention_bias: fields.maybe_bool("attention_bias")?.unwrap_or(false),
        mlp_bias: fields.maybe_bool("mlp_bias")?.unwrap_or(false),
        tie_word_embeddings: fields.maybe_bool("tie_word_embeddings")?.unwrap_or(false),
        dtype: dtype(fields)?,
        bos_token_id: fields.maybe_u32("bos_token_id")?,
        eos_token_ids: fields.ids("eos_token_id")?,
        // Some configs write -1 for "none".
        pad_token_id: fields.get("pad_token_id").and_then(Value::as_u64).and_then(|id| u32::try_from(id).ok()),
    })
}

fn even_share(hidden_size: u32, heads: u32) -> Result<u32, WeightsError> {
    if heads == 0 || !hidden_size.is_multiple_of(heads) {
        let reason = format!("must be divisible by num_attention_heads ({heads}); it is {hidden_size}");
        return Err(WeightsError::config("hidden_size", reason));
    }
    Ok(hidden_size / heads)
}

/// The newer `dtype` or the older `torch_dtype`; other types than ours say nothing about the files, which name their own.
fn dtype(fields: &Fields<'_>) -> Result<Option<HostDtype>, WeightsError> {
    let name = match fields.maybe_text("dtype")? {
        Some(name) => Some(name),
        None => fields.maybe_text("torch_dtype")?,
    };
    Ok(match name.as_deref().map(|name| name.trim_start_matches("torch.")) {
        Some("float32") => Some(HostDtype::F32),
        Some("float16") => Some(HostDtype::F16),
        Some("bfloat16") => Some(HostDtype::Bf16),
        _ => None,
    })
}

/// Settings of other Llama-like models that change what is computed, each with the value that leaves it as it is here.
const NEUTRAL: &[(&str, f64)] = &[
    ("attention_dropout", 0.0),
    ("partial_rotary_factor", 1.0),
    ("embedding_multiplier", 1.0),
    ("residual_multiplier", 1.0),
    ("attention_multiplier", 1.0),
    ("logits_scaling", 1.0),
    ("logit_scale", 1.0),
    ("scale_emb", 1.0),
    ("num_experts", 0.0),
    ("num_local_experts", 0.0),
    ("n_routed_experts", 0.0),
];

/// Settings that must be absent, null, false or empty.
const ABSENT: &[&str] = &[
    "quantization_config",
    "sliding_window",
    "final_logit_softcapping",
    "attn_logit_softcapping",
    "query_pre_attn_scalar",
    "use_qk_norm",
    "qk_norm",
    "qk_layernorm",
    "no_rope_layers",
    "rope_interleaved",
    "rope_interleave",
    "use_sliding_window",
    "is_encoder_decoder",
    "add_cross_attention",
    "use_bidirectional_attention",
    "auto_map",
];

fn refuse_unimplemented(fields: &Fields<'_>) -> Result<(), WeightsError> {
    for (field, neutral) in NEUTRAL {
        if let Some(value) = fields.maybe_f64(field)?.filter(|value| value != neutral) {
            return Err(not_implemented(fields, field, value.into()));
        }
    }
    for field in ABSENT {
        if let Some(value) = fields.get(field).filter(|value| !is_empty(value)) {
            return Err(not_implemented(fields, field, value.clone()));
        }
    }
    if let Some(act) = fields.maybe_text("hidden_act")?.filter(|act| act != "silu" && act != "swish") {
        return Err(not_implemented(fields, "hidden_act", act.into()));
    }
    let full = |kind: &Value| kind.as_str() == Some("full_attention");
    match fields.get("layer_types") {
        Some(Value::Array(kinds)) if kinds.iter().all(full) => {}
        Some(other) => return Err(not_implemented(fields, "layer_types", other.clone())),
        None => {}
    }
    match fields.get("architectures") {
        Some(Value::Array(names)) if names.iter().any(|name| name == "LlamaForCausalLM") => Ok(()),
        Some(other) => Err(not_implemented(fields, "architectures", other.clone())),
        None => Ok(()),
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Bool(flag) => !flag,
        Value::Array(items) => items.is_empty(),
        Value::Object(items) => items.is_empty(),
        _ => false,
    }
}

fn not_implemented(fields: &Fields<'_>, field: &str, value: Value) -> WeightsError {
    let reason =
        format!("has the value {}, which changes what the model computes and is not implemented", brief(&value));
    WeightsError::config(fields.name(field), reason)
}
