//! From GGUF's tensor names and row order to Hugging Face's, and back.

use crate::config::ModelConfig;

const OUTER: &[(&str, &str)] =
    &[("token_embd.", "model.embed_tokens."), ("output_norm.", "model.norm."), ("output.", "lm_head.")];

const INNER: &[(&str, &str)] = &[
    ("attn_norm.", "input_layernorm."),
    ("ffn_norm.", "post_attention_layernorm."),
    ("attn_q.", "self_attn.q_proj."),
    ("attn_k.", "self_attn.k_proj."),
    ("attn_v.", "self_attn.v_proj."),
    ("attn_output.", "self_attn.o_proj."),
    ("ffn_gate.", "mlp.gate_proj."),
    ("ffn_up.", "mlp.up_proj."),
    ("ffn_down.", "mlp.down_proj."),
];

/// Hugging Face's name of a Llama tensor (`blk.3.attn_q.weight`: `model.layers.3.self_attn.q_proj.weight`).
pub(crate) fn to_hugging_face(name: &str) -> Option<String> {
    let rename = |name: &str, table: &[(&str, &str)]| {
        let (from, to) = table.iter().find(|(from, _)| name.starts_with(from))?;
        let rest = &name[from.len()..];
        matches!(rest, "weight" | "bias").then(|| format!("{to}{rest}"))
    };
    let Some(rest) = name.strip_prefix("blk.") else { return rename(name, OUTER) };
    let (layer, rest) = rest.split_once('.')?;
    let number: u32 = layer.parse().ok()?;
    Some(format!("model.layers.{number}.{}", rename(rest, INNER)?))
}

/// GGUF's name of a tensor of a dense decoder: the other way round, with Qwen 3's norms of queries and keys.
pub(crate) fn from_hugging_face(name: &str) -> Option<String> {
    const HEAD_NORMS: &[(&str, &str)] = &[("attn_q_norm.", "self_attn.q_norm."), ("attn_k_norm.", "self_attn.k_norm.")];
    let rename = |name: &str, tables: &[&[(&str, &str)]]| {
        let (to, from) = tables.iter().copied().flatten().find(|(_, from)| name.starts_with(from))?;
        let rest = &name[from.len()..];
        matches!(rest, "weight" | "bias").then(|| format!("{to}{rest}"))
    };
    let Some(rest) = name.strip_prefix("model.layers.") else { return rename(name, &[OUTER]) };
    let (layer, rest) = rest.split_once('.')?;
    Some(format!("blk.{layer}.{}", rename(rest, &[INNER, HEAD_NORMS])?))
}

/// Number of heads whose rows GGUF stores in another order; none for tensors that rotary embedding does not touch.
pub(crate) fn rotary_heads(name: &str, config: &ModelConfig) -> Option<usize> {
    let of = |module: &str| name.contains(module).then_some(());
    let heads = of(".self_attn.q_proj.").map(|()| config.common.num_attention_heads);
    heads.or_else(|| of(".self_attn.k_proj.").map(|()| config.common.num_key_value_heads)).map(|heads| heads as usize)
}

/// Puts rows back from the order of interleaved pairs `(0, d/2, 1, d/2 + 1, ...)` within each head, which llama.cpp's
/// rotary embedding wants, into the order of halves that Hugging Face's wants.
pub(crate) fn undo_permutation(bytes: &[u8], heads: usize, head_dim: usize) -> Vec<u8> {
    let rows = heads * head_dim;
    let row_bytes = bytes.len() / rows.max(1);
    let mut out = Vec::with_capacity(bytes.len());
    for head in 0..heads {
        for half in 0..2 {
            for pair in 0..head_dim / 2 {
                let from = (head * head_dim + 2 * pair + half) * row_bytes;
                out.extend_from_slice(&bytes[from..from + row_bytes]);
            }
        }
    }
    out
}

/// Puts rows, of whatever width, from the order of halves into that of interleaved pairs: undone by [`undo_permutation`].
pub(crate) fn permute(values: &[f32], heads: usize, head_dim: usize) -> Vec<f32> {
    let width = values.len() / (heads * head_dim).max(1);
    let mut out = Vec::with_capacity(values.len());
    for head in 0..heads {
        for pair in 0..head_dim / 2 {
            for half in 0..2 {
                let from = (head * head_dim + half * head_dim / 2 + pair) * width;
                out.extend_from_slice(&values[from..from + width]);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn names_are_those_of_hugging_face() {
        for (from, to) in [
            ("token_embd.weight", Some("model.embed_tokens.weight")),
            ("output.weight", Some("lm_head.weight")),
            ("output_norm.weight", Some("model.norm.weight")),
            ("blk.11.attn_output.bias", Some("model.layers.11.self_attn.o_proj.bias")),
            ("blk.0.ffn_norm.weight", Some("model.layers.0.post_attention_layernorm.weight")),
            ("blk.0.attn_q_norm.weight", None),
            ("blk.x.attn_q.weight", None),
            ("blk.0.attn_q.scale", None),
            ("rope_freqs.weight", None),
        ] {
            assert_eq!(to_hugging_face(from).as_deref(), to, "{from}");
            if let Some(to) = to {
                assert_eq!(from_hugging_face(to).as_deref(), Some(from));
            }
        }
        let norm = from_hugging_face("model.layers.2.self_attn.q_norm.weight");
        assert_eq!(norm.as_deref(), Some("blk.2.attn_q_norm.weight"));
        assert_eq!(from_hugging_face("model.layers.2.mlp.experts.gate_up_proj"), None);
    }

    #[test]
    fn rows_of_each_head_return_to_halves() {
        // Two heads of four rows of one byte; the converter wrote rows 0 2 1 3 of each.
        assert_eq!(undo_permutation(&[0, 2, 1, 3, 4, 6, 5, 7], 2, 4), [0, 1, 2, 3, 4, 5, 6, 7]);
        let halves = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0];
        assert_eq!(permute(&halves, 2, 4), [0.0, 2.0, 1.0, 3.0, 4.0, 6.0, 5.0, 7.0]);
        // Rows of two bytes, one head of six: halves (0 1 2) and (3 4 5) interleaved.
        assert_eq!(undo_permutation(&[0, 0, 3, 3, 1, 1, 4, 4, 2, 2, 5, 5], 1, 6), [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]);
    }
}
