//! An adapter put into the weights of its model.

use finetuned_torch::{Kind, Tensor, tch};
use finetuned_weights::GgufLora;

use crate::{adapter::Adapter, causal_lm::CausalLm, error::ModelError};

/// A linear layer as an adapter changes it.
pub(crate) struct MergedLinear {
    /// Path of the module.
    pub path: String,
    /// `[out_features, in_features]`, f32.
    pub weight: Tensor,
    /// What the bias is multiplied by, `[out_features]`, where the adapter changes it too.
    pub bias_factor: Option<Tensor>,
}

/// The weights of a model with an adapter put in.
#[derive(Debug)]
pub struct MergedWeights {
    /// By their names in the model's checkpoints, f32; those the adapter leaves alone are the model's own.
    pub tensors: Vec<(String, Tensor)>,
    /// Whether the output head, which was the embedding matrix, is now one of its own.
    pub head_untied: bool,
}

impl Adapter {
    /// The weights with which the model alone computes what it computes with this adapter.
    ///
    /// # Errors
    /// Prompt and prefix tuning, which are no change of weights; or too little memory.
    pub fn merged(&self, model: &CausalLm) -> Result<MergedWeights, ModelError> {
        let _detached = tch::no_grad_guard();
        let changed = match self {
            Self::Lora(lora) => lora.merged_linears(model)?,
            Self::Ia3(ia3) => ia3.merged_linears(model)?,
            Self::PromptTuning(_) => return Err(no_weights("prompt_tuning")),
            Self::PrefixTuning(_) => return Err(no_weights("prefix_tuning")),
        };
        let mut tensors = model.parameters();
        for MergedLinear { path, weight, bias_factor } in changed {
            for (name, tensor) in &mut tensors {
                let Some(part) = name.strip_prefix(&path) else { continue };
                match (part, &bias_factor) {
                    (".weight", _) if model.is_transposed() => *tensor = weight.f_tr()?.f_contiguous()?,
                    (".weight", _) => *tensor = weight.shallow_clone(),
                    (".bias", Some(factor)) => *tensor = tensor.f_to_kind(Kind::Float)?.f_mul(factor)?,
                    _ => {}
                }
            }
        }
        let head_untied = self.merge_vocabulary(model, &mut tensors)?;
        let tensors = tensors.into_iter().map(|(name, tensor)| Ok((name, tensor.f_detach()?.f_to_kind(Kind::Float)?)));
        Ok(MergedWeights { tensors: tensors.collect::<Result<_, ModelError>>()?, head_untied })
    }

    /// Puts in what stands in place of the vocabulary matrices; says whether the head is untied by that.
    fn merge_vocabulary(&self, model: &CausalLm, tensors: &mut Vec<(String, Tensor)>) -> Result<bool, ModelError> {
        let Self::Lora(lora) = self else { return Ok(false) };
        let paths = model.vocabulary_paths();
        let embedding = lora.vocabulary().embedding(model.embedding())?;
        let head = lora.vocabulary().head(&model.head(None)?.weight)?;
        let same = embedding.f_equal(&head)?;
        let untied = model.is_tied() && !same;
        for (path, matrix, is_there) in [(paths.embedding, embedding, true), (paths.head, head, !model.is_tied())] {
            let name = format!("{path}.weight");
            match tensors.iter_mut().find(|(known, _)| *known == name) {
                Some((_, tensor)) => *tensor = matrix,
                None if !is_there && untied => tensors.push((name, matrix)),
                None => {}
            }
        }
        Ok(untied)
    }

    /// The change of each adapted module, as llama.cpp applies it beside the model, and the alpha it is told.
    ///
    /// # Errors
    /// Whatever of an adapter is no product of two matrices, by name.
    pub fn gguf_lora(&self) -> Result<(f64, Vec<GgufLora>), ModelError> {
        let _detached = tch::no_grad_guard();
        let refuse = |what: &str| {
            let reason = format!("cannot be told to llama.cpp as LoRA ({what}); export the merged model");
            Err(ModelError::Setting { field: "adapter", reason })
        };
        match self {
            Self::Lora(lora) if lora.spec().use_dora => refuse("use_dora"),
            Self::Lora(lora) if !lora.spec().modules_to_save.is_empty() => refuse("modules_to_save"),
            Self::Lora(lora) if !lora.spec().trainable_token_indices.is_empty() => refuse("trainable_token_indices"),
            Self::Lora(lora) => Ok((lora.spec().alpha, lora.as_gguf()?)),
            Self::Ia3(_) => refuse("ia3"),
            Self::PromptTuning(_) => refuse("prompt_tuning"),
            Self::PrefixTuning(_) => refuse("prefix_tuning"),
        }
    }
}

fn no_weights(method: &str) -> ModelError {
    let reason = format!("is one of {method}, which adds tokens and changes no weight: it cannot be merged");
    ModelError::Setting { field: "adapter", reason }
}

#[cfg(test)]
#[path = "merge_tests.rs"]
mod tests;
