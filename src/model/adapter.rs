//! What is trained beside a frozen model: one of several kinds of adapter.

use std::ops::ControlFlow;

use finetuned_protocol::tuning::AdapterSpec;
use finetuned_torch::{Kind, Tensor, tch};

use crate::{
    adapter_source::AdapterSource,
    causal_lm::CausalLm,
    error::ModelError,
    ia3::Ia3,
    linear::Linear,
    lora::Lora,
    virtual_tokens::{PrefixTuning, PromptTuning},
};

/// Tensors that training changes, f32, and how they change what the model computes.
#[derive(Debug)]
pub enum Adapter {
    Lora(Box<Lora>),
    Ia3(Ia3),
    PromptTuning(PromptTuning),
    PrefixTuning(PrefixTuning),
}

impl Adapter {
    /// A fresh adapter. What is random in it is drawn from the seed and the tensor's name.
    ///
    /// # Errors
    /// Settings that this model cannot meet, such as a target that none of its modules is called.
    pub fn new(model: &CausalLm, spec: &AdapterSpec, seed: u64) -> Result<Self, ModelError> {
        Self::new_with_progress(model, spec, seed, &mut |_, _| ControlFlow::Continue(()))
    }

    /// As [`Self::new`]; `progress` hears (modules done, modules in all) and can stop.
    ///
    /// # Errors
    /// As [`Self::new`], or [`ModelError::Stopped`].
    pub(crate) fn new_with_progress(
        model: &CausalLm,
        spec: &AdapterSpec,
        seed: u64,
        progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
    ) -> Result<Self, ModelError> {
        Self::build(model, spec, &mut AdapterSource::fresh(seed, progress))
    }

    pub(crate) fn build(model: &CausalLm, spec: &AdapterSpec, source: &mut AdapterSource) -> Result<Self, ModelError> {
        Ok(match spec {
            AdapterSpec::Lora(spec) => Self::Lora(Box::new(Lora::build(model, spec, source)?)),
            AdapterSpec::Ia3(spec) => Self::Ia3(Ia3::build(model, spec, source)?),
            AdapterSpec::PromptTuning(spec) => Self::PromptTuning(PromptTuning::build(model, spec, source)?),
            AdapterSpec::PrefixTuning(spec) => Self::PrefixTuning(PrefixTuning::build(model, *spec, source)?),
        })
    }

    /// The settings it was made by.
    pub fn spec(&self) -> AdapterSpec {
        match self {
            Self::Lora(lora) => AdapterSpec::Lora(lora.spec().clone()),
            Self::Ia3(ia3) => AdapterSpec::Ia3(ia3.spec().clone()),
            Self::PromptTuning(prompt) => AdapterSpec::PromptTuning(prompt.spec().clone()),
            Self::PrefixTuning(prefix) => AdapterSpec::PrefixTuning(prefix.spec()),
        }
    }

    /// Every trained tensor under its key in peft's files, in the order of the layers. The tensors are the adapter's own:
    /// what is done to them in place is done to it.
    pub fn named_parameters(&self) -> Vec<(String, Tensor)> {
        match self {
            Self::Lora(lora) => lora.named_parameters(),
            Self::Ia3(ia3) => ia3.named_parameters(),
            Self::PromptTuning(prompt) => prompt.named_parameters(),
            Self::PrefixTuning(prefix) => prefix.named_parameters(),
        }
    }

    /// Tensors that are not trained and that the adapter cannot be continued without.
    pub fn named_constants(&self) -> Vec<(String, Tensor)> {
        match self {
            Self::Lora(lora) => lora.named_constants(),
            _ => Vec::new(),
        }
    }

    /// Numbers that training changes.
    pub fn trainable_parameters(&self) -> u64 {
        self.named_parameters().iter().map(|(_, tensor)| tensor.numel() as u64).sum()
    }

    /// The learning rate of the parameter `name` over that of the rest.
    pub fn learning_rate_ratio(&self, name: &str) -> f64 {
        match self {
            Self::Lora(lora) => lora.learning_rate_ratio(name),
            _ => 1.0,
        }
    }

    /// Rows that stand before each document in the layers; none of them is a token.
    pub fn virtual_tokens(&self) -> i64 {
        match self {
            Self::Lora(_) | Self::Ia3(_) => 0,
            Self::PromptTuning(prompt) => prompt.spec().num_virtual_tokens.into(),
            Self::PrefixTuning(prefix) => prefix.spec().num_virtual_tokens.into(),
        }
    }

    /// Whether it can be stacked with others: its change of each linear module is a product of two matrices, or nothing.
    pub(crate) fn stacks(&self) -> bool {
        match self {
            Self::Lora(lora) => !lora.spec().use_dora,
            Self::Ia3(_) => false,
            Self::PromptTuning(_) | Self::PrefixTuning(_) => true,
        }
    }

    /// Whether it changes embeddings of tokens or the output head.
    pub(crate) fn has_vocabulary(&self) -> bool {
        matches!(self, Self::Lora(lora) if !lora.vocabulary().is_the_models_own())
    }

    /// What `linear` gives for `x`, `[tokens, in_features]`, outside of training.
    pub(crate) fn linear(&self, linear: &Linear, x: &Tensor) -> Result<Tensor, ModelError> {
        match self {
            Self::Lora(lora) => lora.apply(linear, x, None),
            Self::Ia3(ia3) => ia3.apply(linear, x),
            Self::PromptTuning(_) | Self::PrefixTuning(_) => linear.plain(x),
        }
    }

    /// Whether a training pass draws masks.
    pub(crate) fn has_dropout(&self) -> bool {
        matches!(self, Self::Lora(lora) if lora.spec().dropout > 0.0)
    }

    /// The output head, `[vocab, hidden]`, of a model whose own is `head`.
    pub(crate) fn head(&self, head: &Tensor) -> Result<Tensor, ModelError> {
        match self {
            Self::Lora(lora) => lora.vocabulary().head(head),
            _ => Ok(head.shallow_clone()),
        }
    }

    /// Embeddings of `ids`, `[tokens]`, in a model whose embedding matrix is `weight`: `[tokens, hidden]`.
    pub(crate) fn embed(&self, weight: &Tensor, ids: &Tensor) -> Result<Tensor, ModelError> {
        match self {
            Self::Lora(lora) => lora.vocabulary().embed(weight, ids),
            _ => Ok(Tensor::f_embedding(weight, ids, -1, false, false)?),
        }
    }
}

/// Makes a tensor one that is trained, in f32 on the model's device.
pub(crate) fn trained(tensor: &Tensor, model: &CausalLm) -> Result<Tensor, ModelError> {
    Ok(constant(tensor, model)?.f_set_requires_grad(true)?)
}

/// A copy of a tensor, whatever it was a view of, in f32 on the model's device.
pub(crate) fn constant(tensor: &Tensor, model: &CausalLm) -> Result<Tensor, ModelError> {
    let _detached = tch::no_grad_guard();
    let mut own = Tensor::f_empty(tensor.size(), (Kind::Float, model.device()))?;
    own.f_copy_(tensor)?;
    Ok(own)
}
