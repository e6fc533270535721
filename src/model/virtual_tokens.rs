//! Prompt tuning and prefix tuning: trained rows before each document that are no tokens.
//!
//! In both, each document is computed behind as many rows of its own, at the positions before its first token. Prompt
//! tuning sets what those rows are embedded as; prefix tuning sets their keys and values in every layer, so that what else
//! is computed in them reaches nobody.

use finetuned_protocol::tuning::{PrefixTuningSpec, PromptInit, PromptTuningSpec};
use finetuned_torch::{Kind, Tensor};

use crate::{
    adapter::trained,
    adapter_source::{AdapterSource, normal},
    attention::Rule,
    cache::CacheShape,
    causal_lm::CausalLm,
    documents::VirtualRows,
    error::ModelError,
    random::Key,
    rotary::Rotation,
};

/// The one tensor of either method in peft's files.
const KEY: &str = "prompt_embeddings";

/// Prompt tuning (Lester et al. 2021).
#[derive(Debug)]
pub struct PromptTuning {
    spec: PromptTuningSpec,
    /// `[virtual tokens, hidden]`
    embeddings: Tensor,
}

impl PromptTuning {
    pub(crate) fn build(
        model: &CausalLm,
        spec: &PromptTuningSpec,
        source: &mut AdapterSource,
    ) -> Result<Self, ModelError> {
        check(model, spec.num_virtual_tokens, "prompt_tuning.num_virtual_tokens")?;
        model.refuse_scaled_embeddings("prompt_tuning")?;
        let shape = [i64::from(spec.num_virtual_tokens), model.embedding().size2()?.1];
        let embeddings = source.take(KEY, &shape, |key| match spec.init {
            PromptInit::Random => normal(key.with_name(KEY), shape),
            PromptInit::SampleVocab => sampled(model.embedding(), key.with_name(KEY), shape[0]),
        })?;
        Ok(Self { spec: spec.clone(), embeddings: trained(&embeddings, model)? })
    }

    pub(crate) fn spec(&self) -> &PromptTuningSpec {
        &self.spec
    }

    pub(crate) fn named_parameters(&self) -> Vec<(String, Tensor)> {
        vec![(KEY.to_owned(), self.embeddings.shallow_clone())]
    }

    /// Sets the virtual rows of `x`, `[rows, hidden]`.
    pub(crate) fn place(&self, x: &Tensor, rows: &VirtualRows) -> Result<Tensor, ModelError> {
        let embeddings = self.embeddings.f_to_kind(x.f_kind()?)?.f_repeat([rows.documents, 1])?;
        Ok(x.f_index_copy(0, &rows.rows, &embeddings)?)
    }
}

/// Embeddings of `count` tokens drawn from the vocabulary.
fn sampled(embedding: &Tensor, key: Key, count: i64) -> Result<Tensor, ModelError> {
    let vocabulary = embedding.size2()?.0;
    let ids: Vec<i64> = (0..count as u64).map(|index| (key.uniform(index) * vocabulary as f64) as i64).collect();
    let ids = Tensor::f_from_slice(&ids)?.f_to_device(embedding.device())?;
    Ok(embedding.f_detach()?.f_index_select(0, &ids)?)
}

/// Prefix tuning (Li & Liang 2021), its keys and values trained themselves.
#[derive(Debug)]
pub struct PrefixTuning {
    spec: PrefixTuningSpec,
    shape: CacheShape,
    /// `[virtual tokens, layers * 2 * kv_heads * head_dim]`, in peft's order: of each layer its keys, as they are after
    /// rotation, then its values.
    embeddings: Tensor,
}

impl PrefixTuning {
    pub(crate) fn build(
        model: &CausalLm,
        spec: PrefixTuningSpec,
        source: &mut AdapterSource,
    ) -> Result<Self, ModelError> {
        check(model, spec.num_virtual_tokens, "prefix_tuning.num_virtual_tokens")?;
        let cache = model.cache_shape();
        let width = 2 * cache.layers as i64 * cache.kv_heads * cache.head_dim;
        let shape = [i64::from(spec.num_virtual_tokens), width];
        let embeddings = source.take(KEY, &shape, |key| normal(key.with_name(KEY), shape))?;
        Ok(Self { spec, shape: cache, embeddings: trained(&embeddings, model)? })
    }

    pub(crate) fn spec(&self) -> PrefixTuningSpec {
        self.spec
    }

    pub(crate) fn named_parameters(&self) -> Vec<(String, Tensor)> {
        vec![(KEY.to_owned(), self.embeddings.shallow_clone())]
    }

    /// Keys and values for the virtual rows of a pass whose queries and keys one of `rotations` turns in each layer.
    pub(crate) fn place<'a>(
        &self,
        rows: &VirtualRows,
        rotations: &'a [Rotation],
        kind: Kind,
    ) -> Result<Prefix<'a>, ModelError> {
        let CacheShape { layers, kv_heads, head_dim } = self.shape;
        let tokens = i64::from(self.spec.num_virtual_tokens);
        let size = [tokens, 2 * layers as i64, kv_heads, head_dim];
        let all = self.embeddings.f_to_kind(kind)?.f_view(size)?.f_repeat([rows.documents, 1, 1, 1])?;
        let layer = |index: i64| -> Result<(Tensor, Tensor), ModelError> {
            Ok((all.f_select(1, 2 * index)?, all.f_select(1, 2 * index + 1)?))
        };
        let layers = (0..layers as i64).map(layer).collect::<Result<_, _>>()?;
        Ok(Prefix { rows: rows.rows.shallow_clone(), layers, rotations })
    }
}

/// Keys and values that stand in the virtual rows of one pass.
pub(crate) struct Prefix<'a> {
    /// `[documents * virtual tokens]`, i64.
    rows: Tensor,
    /// Of each layer, `[documents * virtual tokens, kv_heads, head_dim]`, in the order of Hugging Face's checkpoints.
    layers: Vec<(Tensor, Tensor)>,
    rotations: &'a [Rotation],
}

impl Prefix<'_> {
    /// Sets the virtual rows of a layer's keys and values, `[rows, kv_heads, head_dim]`.
    pub fn put(&self, rule: &Rule, k: &Tensor, v: &Tensor) -> Result<(Tensor, Tensor), ModelError> {
        let (keys, values) = &self.layers[rule.layer];
        let keys = match rule.rotary {
            Some(rotary) => self.rotations[rotary].reorder(keys)?,
            None => keys.shallow_clone(),
        };
        Ok((k.f_index_copy(0, &self.rows, &keys)?, v.f_index_copy(0, &self.rows, values)?))
    }
}

fn check(model: &CausalLm, count: u32, field: &'static str) -> Result<(), ModelError> {
    let most = model.facts().context_length;
    if (1..most).contains(&count) {
        return Ok(());
    }
    let reason = format!("must be at least 1 and below {most}, the context length of this model; it is {count}");
    Err(ModelError::Setting { field, reason })
}
