//! What a forward pass is for, and what its layers share.

use finetuned_torch::Tensor;

use crate::{
    adapter::Adapter,
    documents::{Documents, VirtualRows},
    error::ModelError,
    mixed::MixedRows,
    rotary::Rotation,
    virtual_tokens::Prefix,
};

/// What a forward pass is for. The default is evaluation: nothing random, nothing smoothed.
#[derive(Debug, Clone, Default)]
pub struct ForwardContext {
    /// In training, what the adapter's dropout and the noise are drawn from.
    pub dropout: Option<DropoutKeys>,
    /// Of the noise on the embeddings in training (NEFTune); 0 for none.
    pub neftune_noise_alpha: f64,
    /// Share of each target's probability that is spread over the vocabulary.
    pub label_smoothing: f64,
}

/// What a dropout mask or noise is a function of, beside the token's position and the module's name.
#[derive(Debug, Clone)]
pub struct DropoutKeys {
    pub seed: u32,
    pub epoch: u32,
    /// Line of each document in its file, in the order of packing.
    pub lines: Vec<u64>,
}

/// What all layers of one forward pass share.
pub(crate) struct Run<'a> {
    pub adapter: Option<&'a Adapter>,
    /// In place of `adapter`, where the rows have different ones.
    pub mixed: Option<&'a MixedRows<'a>>,
    /// In training with dropout, its keys and the documents they belong to.
    pub dropout: Option<(&'a DropoutKeys, &'a Documents)>,
    /// In training with NEFTune, what is added to the embeddings, `[tokens, hidden]`, f32.
    pub noise: Option<Tensor>,
    /// `[tokens]`, i64: place of each token in its text.
    pub positions: &'a Tensor,
    /// One for each of the model's rotary embeddings.
    pub rotations: Vec<Rotation>,
    /// Rows that are no tokens, where the adapter has such.
    pub virtual_rows: Option<&'a VirtualRows>,
}

impl Run<'_> {
    /// Embeddings of `ids`, `[tokens]`, by the model's own matrix `weight` as the adapter changes it: `[tokens, hidden]`.
    /// Every architecture embeds by this, before anything else is done to the embeddings.
    pub fn embed(&self, weight: &Tensor, ids: &Tensor) -> Result<Tensor, ModelError> {
        if let Some(mixed) = self.mixed {
            return mixed.embed(weight, ids);
        }
        match (self.adapter, self.virtual_rows) {
            (None, _) => Ok(Tensor::f_embedding(weight, ids, -1, false, false)?),
            (Some(Adapter::PromptTuning(prompt)), Some(rows)) => {
                prompt.place(&Tensor::f_embedding(weight, ids, -1, false, false)?, rows)
            }
            (Some(adapter), _) => adapter.embed(weight, ids),
        }
    }

    /// Keys and values of the virtual rows, with prefix tuning; `like` has their type.
    pub fn prefix(&self, like: &Tensor) -> Result<Option<Prefix<'_>>, ModelError> {
        match (self.adapter, self.virtual_rows) {
            (Some(Adapter::PrefixTuning(prefix)), Some(rows)) => {
                prefix.place(rows, &self.rotations, like.f_kind()?).map(Some)
            }
            _ => Ok(None),
        }
    }
}
