//! A language model of any architecture we have.

use std::ops::ControlFlow;

use finetuned_protocol::spec::ModelFacts;
use finetuned_torch::{Device, Kind, Tensor, tch};
use finetuned_weights::{Architecture, ModelSource};

use crate::{
    adapter::LoraAdapter,
    attention::Attend,
    cache::{CacheShape, KeyValueCache},
    context::{ForwardContext, Run},
    documents::Documents,
    error::ModelError,
    llama::Llama,
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

impl ModulePath {
    /// Last part of its path, such as `q_proj`.
    pub fn name(&self) -> &str {
        self.path.rsplit('.').next().unwrap_or(&self.path)
    }
}

/// A loaded model. Its weights are frozen unless [`Self::set_trainable`] says otherwise.
#[derive(Debug)]
pub struct CausalLm {
    facts: ModelFacts,
    modules: Vec<ModulePath>,
    network: Network,
    device: Device,
    kind: Kind,
}

#[derive(Debug)]
enum Network {
    Llama(Llama),
}

impl CausalLm {
    /// Loads the weights into tensors of `kind` on `device`. `progress` hears (tensors done, tensors in all) and can
    /// stop.
    ///
    /// # Errors
    /// Files that cannot be read, tensors that do not fit the config (all are listed), too little memory, or
    /// [`ModelError::Stopped`].
    pub fn load(
        source: &ModelSource,
        device: Device,
        kind: Kind,
        progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
    ) -> Result<Self, ModelError> {
        let _frozen = tch::no_grad_guard();
        let config = source.config();
        let mut weights = WeightsIn::new(source, (kind, device), progress);
        let mut modules = Vec::new();
        let network = match config.architecture {
            Architecture::Llama => Network::Llama(Llama::load(config, &mut weights, &mut modules, device)?),
        };
        weights.finish()?;
        Ok(Self { facts: source.facts(), modules, network, device, kind })
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
        Ok(hidden.f_linear(self.head(), None::<&Tensor>)?)
    }

    /// Every weight under its name in Hugging Face's checkpoints; tied ones once.
    pub fn parameters(&self) -> Vec<(String, Tensor)> {
        match &self.network {
            Network::Llama(llama) => llama.parameters(),
        }
    }

    /// Whether backward passes make gradients of the weights themselves.
    pub fn set_trainable(&self, trainable: bool) {
        for (_, parameter) in self.parameters() {
            let _ = parameter.set_requires_grad(trainable);
        }
    }

    fn layers(
        &self,
        documents: &Documents,
        adapter: Option<&LoraAdapter>,
        context: &ForwardContext,
    ) -> Result<Tensor, ModelError> {
        self.check_vocabulary(documents)?;
        let run = self.run(documents, adapter, context)?;
        self.forward(&documents.ids, &run, Attend::Documents { lengths: &documents.lengths })
    }

    /// Reads prompts into a cache; gives the hidden states of each one's last token, `[documents, hidden]`.
    pub(crate) fn prefill(
        &self,
        prompts: &Documents,
        adapter: Option<&LoraAdapter>,
        cache: &mut KeyValueCache,
    ) -> Result<Tensor, ModelError> {
        self.check_vocabulary(prompts)?;
        let run = Run { adapter, dropout: None, rotation: self.llama().rotary.at(&prompts.positions)? };
        let hidden = self.forward(&prompts.ids, &run, Attend::Prefill { lengths: &prompts.lengths, cache })?;
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
        let run = Run { adapter, dropout: None, rotation: self.llama().rotary.at(positions)? };
        self.final_norm(&self.forward(ids, &run, Attend::Cached { cache })?)
    }

    pub(crate) fn cache_shape(&self) -> CacheShape {
        self.llama().cache_shape
    }

    /// `[vocab, hidden]`
    pub(crate) fn head(&self) -> &Tensor {
        self.llama().head()
    }

    fn run<'a>(
        &self,
        documents: &'a Documents,
        adapter: Option<&'a LoraAdapter>,
        context: &'a ForwardContext,
    ) -> Result<Run<'a>, ModelError> {
        let has_dropout = adapter.is_some_and(|adapter| adapter.spec().dropout > 0.0);
        let dropout = context.dropout.as_ref().filter(|_| has_dropout).map(|keys| (keys, documents));
        Ok(Run { adapter, dropout, rotation: self.llama().rotary.at(&documents.positions)? })
    }

    fn forward(&self, ids: &Tensor, run: &Run, attend: Attend<'_>) -> Result<Tensor, ModelError> {
        match &self.network {
            Network::Llama(llama) => llama.forward(ids, run, attend),
        }
    }

    fn final_norm(&self, x: &Tensor) -> Result<Tensor, ModelError> {
        match &self.network {
            Network::Llama(llama) => llama.final_norm(x),
        }
    }

    fn llama(&self) -> &Llama {
        match &self.network {
            Network::Llama(llama) => llama,
        }
    }

    fn check_vocabulary(&self, documents: &Documents) -> Result<(), ModelError> {
        let (id, vocabulary) = (documents.largest_id, self.facts.vocab_size);
        if id < vocabulary {
            return Ok(());
        }
        Err(ModelError::Batch(format!("token {id} is outside the model's vocabulary of {vocabulary}")))
    }
}
