//! From the names in a model's files to those that a loaded model has in transformers.

use std::borrow::Cow;

use super::{Family, ModelConfig};

/// Buffers that old checkpoints carry along; every implementation computes them anew.
const BUFFERS: &[&str] =
    &[".rotary_emb.inv_freq", ".attn.bias", ".attn.masked_bias", ".attention.bias", ".attention.masked_bias"];

impl ModelConfig {
    /// What a stored tensor is called in the model, or nothing where the model has no use for it.
    pub(crate) fn tensor_name<'a>(&self, stored: &'a str) -> Option<Cow<'a, str>> {
        if BUFFERS.iter().any(|buffer| stored.ends_with(buffer)) {
            return None;
        }
        let name = match &self.family {
            _ if self.is_part_of_a_larger_model() => text_part(stored)?,
            Family::Gpt2(_) if !stored.starts_with("transformer.") && stored != "lm_head.weight" => {
                format!("transformer.{stored}").into()
            }
            _ => stored.into(),
        };
        // A head beside the embeddings it is tied to.
        let is_head = matches!(name.as_ref(), "lm_head.weight" | "embed_out.weight");
        (!self.common.tie_word_embeddings || !is_head).then_some(name)
    }
}

/// The language model's tensors of a model that also sees, whose older files begin with `language_model.` and whose
/// newer ones with `model.language_model.`.
fn text_part(stored: &str) -> Option<Cow<'_, str>> {
    let vision = ["vision_tower.", "multi_modal_projector."];
    let inner = stored.strip_prefix("model.").unwrap_or(stored);
    if vision.iter().any(|prefix| inner.starts_with(prefix)) {
        return None;
    }
    if let Some(rest) = stored.strip_prefix("language_model.model.") {
        return Some(format!("model.language_model.{rest}").into());
    }
    Some(stored.strip_prefix("language_model.").unwrap_or(stored).into())
}
