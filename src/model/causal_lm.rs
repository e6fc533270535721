//! A language model of any architecture we have.

use std::ops::ControlFlow;

use finetuned_protocol::spec::ModelFacts;
use finetuned_torch::{Device, Kind, Tensor, tch};
use finetuned_weights::{Architecture, ModelSource, adapter_config::BaseShape};

use crate::{
    adapter::Adapter,
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

/// Paths of the vocabulary matrices, such as `model.embed_tokens` and `lm_head`.
pub(crate) struct VocabularyPaths {
    pub embedding: String,
    pub head: String,
}

/// A loaded model. Its weights are frozen unless [`Self::set_trainable`] says otherwise.
#[derive(Debug)]
pub struct CausalLm {
    facts: ModelFacts,
    shape: BaseShape,
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
        let shape = BaseShape {
            num_layers: config.num_hidden_layers,
            hidden_size: config.hidden_size,
            num_attention_heads: config.num_attention_heads,
            num_key_value_heads: config.num_key_value_heads,
            head_dim: config.head_dim,
        };
        Ok(Self { facts: source.facts(), shape, modules, network, device, kind })
    }

    pub fn facts(&self) -> &ModelFacts {
        &self.facts
    }

    pub(crate) fn shape(&self) -> &BaseShape {
        &self.shape
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
        adapter: Option<&Adapter>,
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
        adapter: Option<&Adapter>,
        context: &ForwardContext,
    ) -> Result<Tensor, ModelError> {
        self.final_norm(&self.layers(documents, adapter, context)?.f_index_select(0, rows)?)
    }

    /// Logits of hidden states that were computed with the same adapter, `[rows, vocab]`. Ask for the rows that are needed only: a vocabulary is wide.
    ///
    /// # Errors
    /// Too little memory.
    pub fn logits(&self, hidden: &Tensor, adapter: Option<&Adapter>) -> Result<Tensor, ModelError> {
        Ok(hidden.f_linear(&self.head(adapter)?, None::<&Tensor>)?)
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
        adapter: Option<&Adapter>,
        context: &ForwardContext,
    ) -> Result<Tensor, ModelError> {
        self.check_vocabulary(documents)?;
        let behind = behind_virtual(documents, adapter)?;
        let placed = behind.as_ref().unwrap_or(documents);
        let run = self.run(placed, adapter, context)?;
        let prefix = run.prefix(self.embedding())?;
        let attend = Attend::Documents { lengths: &placed.lengths, prefix: prefix.as_ref() };
        let x = self.forward(&placed.ids, &run, attend)?;
        match &placed.virtual_rows {
            Some(rows) => Ok(x.f_index_select(0, &rows.real)?),
            None => Ok(x),
        }
    }

    /// Reads prompts, placed by [`behind_virtual`], into a cache; gives the hidden states of each one's last token, `[documents, hidden]`.
    pub(crate) fn prefill(
        &self,
        prompts: &Documents,
        adapter: Option<&Adapter>,
        cache: &mut KeyValueCache,
    ) -> Result<Tensor, ModelError> {
        self.check_vocabulary(prompts)?;
        let rotation = self.llama().rotary.at(&prompts.positions)?;
        let run = Run { adapter, dropout: None, rotation, virtual_rows: prompts.virtual_rows.as_ref() };
        let prefix = run.prefix(self.embedding())?;
        let attend = Attend::Prefill { lengths: &prompts.lengths, prefix: prefix.as_ref(), cache };
        let hidden = self.forward(&prompts.ids, &run, attend)?;
        let last: Vec<i64> = prompts.starts().zip(&prompts.lengths).map(|(start, length)| start + length - 1).collect();
        let last = Tensor::f_from_slice(&last)?.f_to_device(self.device)?;
        self.final_norm(&hidden.f_index_select(0, &last)?)
    }

    /// One more token a row: `ids` and `positions` are `[batch]`; gives `[batch, hidden]`.
    pub(crate) fn decode(
        &self,
        (ids, positions): (&Tensor, &Tensor),
        adapter: Option<&Adapter>,
        cache: &mut KeyValueCache,
    ) -> Result<Tensor, ModelError> {
        cache.next_column();
        let run = Run { adapter, dropout: None, rotation: self.llama().rotary.at(positions)?, virtual_rows: None };
        self.final_norm(&self.forward(ids, &run, Attend::Cached { cache })?)
    }

    pub(crate) fn cache_shape(&self) -> CacheShape {
        self.llama().cache_shape
    }

    /// The output head with an adapter, `[vocab, hidden]`.
    pub(crate) fn head(&self, adapter: Option<&Adapter>) -> Result<Tensor, ModelError> {
        let own = self.llama().head();
        match adapter {
            Some(adapter) => adapter.head(own),
            None => Ok(own.shallow_clone()),
        }
    }

    /// `[vocab, hidden]`
    pub(crate) fn embedding(&self) -> &Tensor {
        self.llama().embedding()
    }

    /// Whether the output head is the embedding matrix.
    pub(crate) fn is_tied(&self) -> bool {
        self.llama().head().data_ptr() == self.embedding().data_ptr()
    }

    /// A tied head is a module of the same name in Hugging Face's classes, though no checkpoint holds it.
    pub(crate) fn vocabulary_paths(&self) -> VocabularyPaths {
        let path_of = |tensor: &Tensor| {
            let found = self.parameters().into_iter().find(|(_, other)| other.data_ptr() == tensor.data_ptr());
            found.map(|(name, _)| name.trim_end_matches(".weight").to_owned()).unwrap_or_default()
        };
        let head = if self.is_tied() { "lm_head".to_owned() } else { path_of(self.llama().head()) };
        VocabularyPaths { embedding: path_of(self.embedding()), head }
    }

    /// Weight of the linear module at `path`, `[out_features, in_features]`.
    pub(crate) fn weight_of(&self, path: &str) -> Result<Tensor, ModelError> {
        let wanted = format!("{path}.weight");
        let found = self.parameters().into_iter().find(|(name, _)| *name == wanted);
        found.map(|(_, weight)| weight).ok_or_else(|| ModelError::Batch(format!("`{wanted}` is no weight")))
    }

    fn run<'a>(
        &self,
        documents: &'a Documents,
        adapter: Option<&'a Adapter>,
        context: &'a ForwardContext,
    ) -> Result<Run<'a>, ModelError> {
        let has_dropout = adapter.is_some_and(Adapter::has_dropout);
        let dropout = context.dropout.as_ref().filter(|_| has_dropout).map(|keys| (keys, documents));
        let rotation = self.llama().rotary.at(&documents.positions)?;
        Ok(Run { adapter, dropout, rotation, virtual_rows: documents.virtual_rows.as_ref() })
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

/// The documents as an adapter needs them, where that is not as they are: behind its virtual tokens.
pub(crate) fn behind_virtual(
    documents: &Documents,
    adapter: Option<&Adapter>,
) -> Result<Option<Documents>, ModelError> {
    match adapter.map_or(0, Adapter::virtual_tokens) {
        0 => Ok(None),
        count => documents.behind_virtual(count).map(Some),
    }
}
