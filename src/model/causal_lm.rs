//! A language model of any architecture we have.

use std::ops::ControlFlow;

use finetuned_protocol::spec::ModelFacts;
use finetuned_torch::{Device, Kind, Tensor, tch};
use finetuned_weights::{Family, LinearSpec, ModelConfig, ModelSource};

use crate::{
    adapter::{BaseTraits, LoraAdapter},
    attention::Attend,
    cache::{CacheShape, KeyValueCache},
    context::{ForwardContext, Run},
    decoder::Decoder,
    documents::Documents,
    error::ModelError,
    gemma2, gemma3, gpt_neox, gpt2,
    head::Head,
    llama, mistral, mixtral, olmo2, phi3, qwen2, qwen3, smollm3,
    weights_in::WeightsIn,
};

/// A linear layer that can be adapted, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModulePath {
    /// Such as `model.layers.0.self_attn.q_proj`.
    pub path: String,
    pub in_features: i64,
    pub out_features: i64,
}

impl From<LinearSpec> for ModulePath {
    fn from(linear: LinearSpec) -> Self {
        Self { path: linear.path, in_features: linear.in_features.into(), out_features: linear.out_features.into() }
    }
}

impl ModulePath {
    /// Last part of its path, such as `q_proj`.
    pub fn name(&self) -> &str {
        self.path.rsplit('.').next().unwrap_or(&self.path)
    }

    /// Whether peft's `target_modules` mean it by `target`: its path, or the last parts of it.
    pub fn is_called(&self, target: &str) -> bool {
        let rest = self.path.strip_suffix(target);
        rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    }
}

/// A loaded model. Its weights are frozen unless [`Self::set_trainable`] says otherwise.
#[derive(Debug)]
pub struct CausalLm {
    facts: ModelFacts,
    modules: Vec<ModulePath>,
    traits: BaseTraits,
    parameters: Vec<(String, Tensor)>,
    decoder: Decoder,
    device: Device,
    kind: Kind,
}

impl CausalLm {
    /// Loads the weights into tensors of `kind` on `device`. `progress` hears (tensors done, tensors in all) and can
    /// stop.
    ///
    /// # Errors
    /// Files that cannot be read, too little memory, or [`ModelError::Stopped`].
    pub fn load(
        source: &ModelSource,
        device: Device,
        kind: Kind,
        progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
    ) -> Result<Self, ModelError> {
        let _frozen = tch::no_grad_guard();
        let config = source.config();
        let mut weights = WeightsIn::new(source, (kind, device), progress);
        let decoder = load_decoder(config, &mut weights)?;
        let linears = config.linears();
        Ok(Self {
            facts: source.facts(),
            traits: BaseTraits {
                fan_in_fan_out: linears.iter().any(|linear| linear.transposed),
                shares_names: config.is_part_of_a_larger_model(),
            },
            modules: linears.into_iter().map(ModulePath::from).collect(),
            parameters: weights.finish()?,
            decoder,
            device,
            kind,
        })
    }

    pub fn facts(&self) -> &ModelFacts {
        &self.facts
    }

    pub fn device(&self) -> Device {
        self.device
    }

    /// Type of the weights and activations.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Every linear layer that can be adapted, in the order of the layers.
    pub fn linear_modules(&self) -> &[ModulePath] {
        &self.modules
    }

    /// Hidden states after the final norm, `[tokens, hidden]`.
    ///
    /// # Errors
    /// A token outside the vocabulary, dropout keys that do not fit the documents, or too little memory.
    pub fn hidden(
        &self,
        documents: &Documents,
        adapter: Option<&LoraAdapter>,
        context: &ForwardContext,
    ) -> Result<Tensor, ModelError> {
        self.final_norm(&self.layers(documents, adapter, context)?)
    }

    /// Hidden states after the final norm of some token rows only, `[rows, hidden]`; `rows` is `[rows]`, i64.
    ///
    /// # Errors
    /// As [`Self::hidden`].
    pub fn hidden_rows(
        &self,
        documents: &Documents,
        rows: &Tensor,
        adapter: Option<&LoraAdapter>,
        context: &ForwardContext,
    ) -> Result<Tensor, ModelError> {
        self.final_norm(&self.layers(documents, adapter, context)?.f_index_select(0, rows)?)
    }

    /// Logits of hidden states, `[rows, vocab]`. Ask for the rows that are needed only: a vocabulary is wide.
    ///
    /// # Errors
    /// Too little memory.
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor, ModelError> {
        self.decoder.head.logits(hidden)
    }

    /// Every weight under its name in Hugging Face's checkpoints; tied ones once.
    pub fn parameters(&self) -> Vec<(String, Tensor)> {
        self.parameters.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect()
    }

    /// Whether backward passes make gradients of the weights themselves.
    pub fn set_trainable(&self, trainable: bool) {
        for (_, parameter) in &self.parameters {
            let _ = parameter.set_requires_grad(trainable);
        }
    }

    fn layers(
        &self,
        documents: &Documents,
        adapter: Option<&LoraAdapter>,
        context: &ForwardContext,
    ) -> Result<Tensor, ModelError> {
        self.check(documents)?;
        let has_dropout = adapter.is_some_and(|adapter| adapter.spec().dropout > 0.0);
        let dropout = context.dropout.as_ref().filter(|_| has_dropout).map(|keys| (keys, documents));
        let run = Run { dropout, ..self.run(adapter, &documents.positions, &documents.text_lengths)? };
        self.decoder.forward(&documents.ids, &run, Attend::Documents { lengths: &documents.lengths })
    }

    /// Reads prompts into a cache; gives the hidden states of each one's last token, `[documents, hidden]`.
    pub(crate) fn prefill(
        &self,
        prompts: &Documents,
        adapter: Option<&LoraAdapter>,
        cache: &mut KeyValueCache,
    ) -> Result<Tensor, ModelError> {
        self.check(prompts)?;
        let run = self.run(adapter, &prompts.positions, &prompts.text_lengths)?;
        let hidden = self.decoder.forward(&prompts.ids, &run, Attend::Prefill { lengths: &prompts.lengths, cache })?;
        let last: Vec<i64> = prompts.starts().zip(&prompts.lengths).map(|(start, length)| start + length - 1).collect();
        let last = Tensor::f_from_slice(&last)?.f_to_device(self.device)?;
        self.final_norm(&hidden.f_index_select(0, &last)?)
    }

    /// One more token a row: `ids` and `positions` are `[batch]`; gives `[batch, hidden]`.
    pub(crate) fn decode(
        &self,
        (ids, positions): (&Tensor, &Tensor),
        adapter: Option<&LoraAdapter>,
        cache: &mut KeyValueCache,
    ) -> Result<Tensor, ModelError> {
        cache.next_column();
        let run = self.run(adapter, positions, &positions.f_add_scalar(1)?)?;
        self.final_norm(&self.decoder.forward(ids, &run, Attend::Cached { cache })?)
    }

    pub(crate) fn cache_shape(&self) -> CacheShape {
        self.decoder.cache_shape
    }

    pub(crate) fn head(&self) -> &Head {
        &self.decoder.head
    }

    pub(crate) fn traits(&self) -> BaseTraits {
        self.traits
    }

    /// Tokens of the longest text that can be computed, where there is a limit.
    pub(crate) fn longest_text(&self) -> Option<i64> {
        self.decoder.longest_text()
    }

    /// Whether what is kept of a text of `tokens` tokens is of no use once it has grown by one: the rotary embedding of
    /// all of it changes there.
    pub(crate) fn outgrows_cache(&self, tokens: i64) -> bool {
        self.decoder.rotaries.iter().any(|rotary| rotary.holds_up_to() == Some(tokens))
    }

    fn run<'a>(
        &self,
        adapter: Option<&'a LoraAdapter>,
        positions: &'a Tensor,
        text_lengths: &Tensor,
    ) -> Result<Run<'a>, ModelError> {
        let rotations = self.decoder.rotaries.iter().map(|rotary| rotary.at(positions, text_lengths));
        Ok(Run { adapter, dropout: None, positions, rotations: rotations.collect::<Result<_, _>>()? })
    }

    fn final_norm(&self, x: &Tensor) -> Result<Tensor, ModelError> {
        self.decoder.final_norm(x)
    }

    fn check(&self, documents: &Documents) -> Result<(), ModelError> {
        let (id, vocabulary) = (documents.largest_id, self.facts.vocab_size);
        if id >= vocabulary {
            let reason = format!("token {id} is outside the model's vocabulary of {vocabulary}");
            return Err(ModelError::Batch(reason));
        }
        self.decoder.check(documents)
    }
}

/// The one place that knows every architecture.
fn load_decoder(config: &ModelConfig, weights: &mut WeightsIn<'_>) -> Result<Decoder, ModelError> {
    let common = &config.common;
    match &config.family {
        Family::Llama(family) => llama::load(common, family, weights),
        Family::Mistral(family) => mistral::load(common, family, weights),
        Family::Qwen2(family) => qwen2::load(common, family, weights),
        Family::Qwen3(family) => qwen3::load(common, family, weights),
        Family::Gemma2(family) => gemma2::load(common, family, weights),
        Family::Gemma3(family) => gemma3::load(common, family, weights),
        Family::Phi3(family) => phi3::load(common, family, weights),
        Family::Olmo2(family) => olmo2::load(common, family, weights),
        Family::SmolLm3(family) => smollm3::load(common, family, weights),
        Family::Gpt2(family) => gpt2::load(common, family, weights),
        Family::GptNeoX(family) => gpt_neox::load(common, family, weights),
        Family::Mixtral(family) => mixtral::load(common, family, weights),
    }
}
