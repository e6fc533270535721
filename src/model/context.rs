//! What a forward pass is for, and what its layers share.

use finetuned_torch::Tensor;

use crate::{adapter::LoraAdapter, documents::Documents, rotary::Rotation};

/// What a forward pass is for. The default is evaluation: nothing random.
#[derive(Debug, Clone, Default)]
pub struct ForwardContext {
    /// In training, what the adapter's dropout is drawn from.
    pub dropout: Option<DropoutKeys>,
}

/// What a dropout mask is a function of, beside the token's position and the module's name.
#[derive(Debug, Clone)]
pub struct DropoutKeys {
    pub seed: u32,
    pub epoch: u32,
    /// Line of each document in its file, in the order of packing.
    pub lines: Vec<u64>,
}

/// What all layers of one forward pass share.
pub(crate) struct Run<'a> {
    pub adapter: Option<&'a LoraAdapter>,
    /// In training with dropout, its keys and the documents they belong to.
    pub dropout: Option<(&'a DropoutKeys, &'a Documents)>,
    /// `[tokens]`, i64: place of each token in its text.
    pub positions: &'a Tensor,
    /// One for each of the model's rotary embeddings.
    pub rotations: Vec<Rotation>,
}
