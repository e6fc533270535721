//! A Llama in GGUF: its config from metadata, its tensors under Hugging Face's names.

use std::collections::BTreeMap;

use super::{
    GgufError, Info,
    kinds::Kind,
    malformed,
    metadata::{Metadata, Value, wrong},
    names, rope_factors,
};
use crate::{
    config::{
        Activation, CommonConfig, Family, ModelConfig, RopeConfig, RopeScaling, family::Llama, yarn_attention_factor,
    },
    error::WeightsError,
};

const ROPE_DIVISORS: &str = "rope_freqs.weight";

/// Keys of `llama.*` that are read or change nothing; `rope.*` keys of known scalings are checked where they are read.
const KNOWN: &[&str] = &[
    "block_count",
    "context_length",
    "embedding_length",
    "feed_forward_length",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "attention.layer_norm_rms_epsilon",
    "attention.causal",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.scale_linear",
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scaling.attn_factor",
    "rope.scaling.original_context_length",
    "rope.scaling.finetuned",
    "rope.scaling.yarn_beta_fast",
    "rope.scaling.yarn_beta_slow",
    "vocab_size",
    "tensor_data_layout",
];

/// Renames the tensors, reads the config and checks that they agree.
pub(super) fn assemble(
    metadata: &Metadata,
    mut stored: BTreeMap<String, Info>,
    bytes: &[u8],
) -> Result<(BTreeMap<String, Info>, ModelConfig), GgufError> {
    refuse_unknown(metadata)?;
    let divisors = stored.remove(ROPE_DIVISORS).map(|info| read_f32(&info, bytes)).transpose()?;
    let mut tensors = BTreeMap::new();
    let mut unknown = Vec::new();
    for (name, info) in stored {
        match names::to_hugging_face(&name) {
            Some(renamed) => _ = tensors.insert(renamed, info),
            None => unknown.push(name),
        }
    }
    if !unknown.is_empty() {
        let supported = "the tensors of a dense Llama";
        return Err(WeightsError::unsupported("GGUF tensor", unknown.join(", "), supported).into());
    }
    let config = read_config(metadata, &tensors, divisors.as_deref(), bytes)?;
    config.common.check()?;
    check_tensors(&config, &tensors)?;
    Ok((tensors, config))
}

fn refuse_unknown(metadata: &Metadata) -> Result<(), GgufError> {
    let neutral = |value: Option<&Value>| match value {
        Some(Value::Whole(number)) => *number == 0,
        Some(Value::Flag(flag)) => !flag,
        _ => false,
    };
    for key in metadata.keys() {
        let Some(name) = key.strip_prefix("llama.") else { continue };
        if !KNOWN.contains(&name) && !neutral(metadata.get(key)) {
            let reason = "may change what the model computes and is not implemented";
            return Err(WeightsError::config(key, reason).into());
        }
    }
    if metadata.flag("llama.attention.causal")? == Some(false) {
        return Err(WeightsError::config("llama.attention.causal", "must be true").into());
    }
    Ok(())
}

fn read_f32(info: &Info, bytes: &[u8]) -> Result<Vec<f32>, GgufError> {
    if info.kind != Kind::F32 {
        return malformed(format!("tensor `{ROPE_DIVISORS}` is not F32"));
    }
    let stored = bytes.get(info.start..info.start + info.bytes).unwrap_or_default();
    Ok(stored.chunks_exact(4).map(|four| f32::from_le_bytes([four[0], four[1], four[2], four[3]])).collect())
}

/// A number that some converters write once a layer.
fn uniform(metadata: &Metadata, key: &str, bytes: &[u8]) -> Result<Option<u32>, GgufError> {
    if !matches!(metadata.get(key), Some(Value::Array(_))) {
        return metadata.u32(key);
    }
    let list = metadata.wholes(key, bytes)?.unwrap_or_default();
    match list.first() {
        Some(first) if list.iter().all(|item| item == first) => {
            u32::try_from(*first).map(Some).or_else(|_| wrong(key, "a whole number below 2^32"))
        }
        _ => Err(WeightsError::config(key, "differs between layers, which is not implemented").into()),
    }
}

fn read_config(
    metadata: &Metadata,
    tensors: &BTreeMap<String, Info>,
    divisors: Option<&[f32]>,
    bytes: &[u8],
) -> Result<ModelConfig, GgufError> {
    let hidden_size = metadata.required_u32("llama.embedding_length")?;
    let Some(heads) = uniform(metadata, "llama.attention.head_count", bytes)?.filter(|heads| *heads > 0) else {
        return wrong("llama.attention.head_count", "a whole number above 0");
    };
    let head_dim = match metadata.u32("llama.attention.key_length")? {
        Some(length) => length,
        None if hidden_size.is_multiple_of(heads) => hidden_size / heads,
        None => return wrong("llama.embedding_length", "divisible by llama.attention.head_count"),
    };
    if metadata.u32("llama.attention.value_length")?.is_some_and(|length| length != head_dim) {
        return wrong("llama.attention.value_length", "the same as llama.attention.key_length");
    }
    let max_position_embeddings = metadata.required_u32("llama.context_length")?;
    let feed_forward = uniform(metadata, "llama.feed_forward_length", bytes)?;
    let kv_heads = uniform(metadata, "llama.attention.head_count_kv", bytes)?;
    let attention_bias = tensors.contains_key("model.layers.0.self_attn.q_proj.bias");
    let mlp_bias = tensors.contains_key("model.layers.0.mlp.gate_proj.bias");
    let rope = rope(metadata, head_dim, max_position_embeddings, divisors)?;
    rope.check()?;
    let common = CommonConfig {
        vocab_size: vocab_size(tensors)?,
        hidden_size,
        intermediate_size: feed_forward.map_or_else(|| wrong("llama.feed_forward_length", "there"), Ok)?,
        num_hidden_layers: metadata.required_u32("llama.block_count")?,
        num_attention_heads: heads,
        num_key_value_heads: kv_heads.unwrap_or(heads),
        head_dim,
        max_position_embeddings,
        norm_epsilon: metadata
            .f64("llama.attention.layer_norm_rms_epsilon")?
            .map_or_else(|| wrong("llama.attention.layer_norm_rms_epsilon", "there"), Ok)?,
        activation: Activation::Silu,
        tie_word_embeddings: !tensors.contains_key("lm_head.weight"),
        dtype: tensors.values().find_map(|info| info.kind.plain().filter(|_| info.shape.len() > 1)),
        bos_token_id: metadata.u32("tokenizer.ggml.bos_token_id")?,
        eos_token_ids: eos_ids(metadata)?,
        pad_token_id: metadata.u32("tokenizer.ggml.padding_token_id")?,
    };
    Ok(ModelConfig { common, family: Family::Llama(Llama { rope, attention_bias, mlp_bias }) })
}

/// The end of a text and the end of a turn, where the file tells them apart.
fn eos_ids(metadata: &Metadata) -> Result<Vec<u32>, GgufError> {
    let mut ids = Vec::new();
    for key in ["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"] {
        ids.extend(metadata.u32(key)?.filter(|id| !ids.contains(id)));
    }
    Ok(ids)
}

/// Rows of the embedding matrix; `llama.vocab_size` is often absent.
fn vocab_size(tensors: &BTreeMap<String, Info>) -> Result<u32, GgufError> {
    let rows = tensors.get("model.embed_tokens.weight").and_then(|info| info.shape.first());
    match rows.and_then(|rows| u32::try_from(*rows).ok()) {
        Some(rows) => Ok(rows),
        None => malformed("tensor `token_embd.weight` is missing or too large"),
    }
}

fn rope(
    metadata: &Metadata,
    head_dim: u32,
    max_positions: u32,
    divisors: Option<&[f32]>,
) -> Result<RopeConfig, GgufError> {
    if metadata.u32("llama.rope.dimension_count")?.is_some_and(|rotated| rotated != head_dim) {
        let reason =
            format!("must equal the head's {head_dim} dimensions; partial rotary embedding is not implemented");
        return Err(WeightsError::config("llama.rope.dimension_count", reason).into());
    }
    let theta = metadata.f64("llama.rope.freq_base")?.unwrap_or(10_000.0);
    let kind = metadata.text("llama.rope.scaling.type")?;
    let factor = match metadata.f64("llama.rope.scaling.factor")? {
        Some(factor) => Some(factor),
        None => metadata.f64("llama.rope.scale_linear")?,
    };
    let scaling = match (kind.as_deref(), factor) {
        (None | Some("linear"), Some(factor)) if factor != 0.0 && factor != 1.0 => RopeScaling::Linear { factor },
        (None | Some("none" | "linear"), _) => RopeScaling::Default,
        (Some("yarn"), Some(factor)) => yarn(metadata, factor, max_positions)?,
        (Some(other), _) => {
            let what = "GGUF rotary scaling";
            return Err(WeightsError::unsupported(what, other, "none, linear, yarn (with its factor)").into());
        }
    };
    match (divisors, scaling) {
        (None, scaling) => Ok(RopeConfig { theta, dim: head_dim, scaling }),
        (Some(divisors), RopeScaling::Default) => {
            Ok(RopeConfig { theta, dim: head_dim, scaling: rope_factors::recognise(divisors, theta, head_dim)? })
        }
        (Some(_), _) => malformed(format!("`{ROPE_DIVISORS}` and another rotary scaling are given at once")),
    }
}

fn yarn(metadata: &Metadata, factor: f64, max_positions: u32) -> Result<RopeScaling, GgufError> {
    let original = metadata.u32("llama.rope.scaling.original_context_length")?;
    // llama.cpp multiplies its own 0.1 ln(factor) + 1 by this.
    let extra = metadata.f64("llama.rope.scaling.attn_factor")?.unwrap_or(1.0);
    Ok(RopeScaling::Yarn {
        factor,
        beta_fast: metadata.f64("llama.rope.scaling.yarn_beta_fast")?.unwrap_or(32.0),
        beta_slow: metadata.f64("llama.rope.scaling.yarn_beta_slow")?.unwrap_or(1.0),
        original_max_position_embeddings: original.unwrap_or(max_positions),
        attention_factor: extra * yarn_attention_factor(factor, 1.0),
        truncate: true,
    })
}

/// Every tensor that the config calls for is there in its shape, and no other.
fn check_tensors(config: &ModelConfig, tensors: &BTreeMap<String, Info>) -> Result<(), GgufError> {
    let shapes = tensors.iter().map(|(name, info)| (name.as_str(), info.shape.as_slice()));
    crate::tensor::check_shapes(&config.tensors(), shapes).or_else(malformed)
}
