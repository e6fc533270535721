//! A language model of any architecture we have.

use std::{ops::ControlFlow, rc::Rc};

use finetuned_protocol::{spec::ModelFacts, tuning::names_module};
use finetuned_torch::{Device, FrozenMatrix, Kind, Tensor, tch};
use finetuned_weights::{Family, LinearSpec, ModelConfig, ModelSource, adapter_config::BaseTraits};

use crate::{
    adapter::Adapter,
    attention::Attend,
    cache::{CacheShape, KeyValueCache},
    context::{ForwardContext, Run},
    decoder::Decoder,
    documents::Documents,
    error::ModelError,
    gemma2, gemma3, gpt_neox, gpt2,
    head::Head,
    llama, mistral,
    mixed::MixedRows,
    mixtral, neftune, olmo2, phi3, qwen2, qwen3,
    slots::SlotPass,
    smollm3,
    weight::{Precision, Weight},
    weights_in::{Taken, WeightsIn},
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
        names_module(target, &self.path)
    }

    pub(crate) fn is_one_of(&self, targets: &[String]) -> bool {
        targets.iter().any(|target| self.is_called(target))
    }
}

/// Paths of the vocabulary matrices, such as `model.embed_tokens` and `lm_head`.
pub(crate) struct VocabularyPaths {
    pub embedding: String,
    pub head: String,
}

/// What the rows of a pass are computed with.
#[derive(Clone, Copy)]
pub(crate) enum RowAdapters<'a> {
    /// All with the same, or with the base alone.
    One(Option<&'a Adapter>),
    Mixed(&'a MixedRows<'a>),
}

/// A loaded model. Its weights are frozen unless [`Self::set_trainable`] says otherwise.
#[derive(Debug)]
pub struct CausalLm {
    facts: ModelFacts,
    traits: BaseTraits,
    /// Whether modules that are not computed here, such as a vision tower's, are called as ours are.
    shares_names: bool,
    modules: Vec<ModulePath>,
    parameters: Vec<(String, Tensor)>,
    /// Weights that are stored in few bits; `parameters` are the rest.
    frozen: Vec<(String, Rc<FrozenMatrix>)>,
    decoder: Decoder,
    device: Device,
    kind: Kind,
}

impl CausalLm {
    /// Loads the weights onto `device`, one after the other, so that no more of them than one is ever held otherwise than
    /// `precision` says. `progress` hears (tensors done, tensors in all) and can stop.
    ///
    /// # Errors
    /// Files that cannot be read, too little memory, or [`ModelError::Stopped`].
    pub fn load(
        source: &ModelSource,
        device: Device,
        precision: impl Into<Precision>,
        progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
    ) -> Result<Self, ModelError> {
        let _frozen = tch::no_grad_guard();
        let (config, precision) = (source.config(), precision.into());
        let mut weights = WeightsIn::new(source, (precision, device), progress);
        let decoder = load_decoder(config, &mut weights)?;
        let (linears, common) = (config.linears(), &config.common);
        let Taken { tensors, frozen } = weights.finish()?;
        Ok(Self {
            facts: source.facts(),
            traits: BaseTraits {
                num_layers: common.num_hidden_layers,
                hidden_size: common.hidden_size,
                num_attention_heads: common.num_attention_heads,
                num_key_value_heads: common.num_key_value_heads,
                head_dim: common.head_dim,
                fan_in_fan_out: linears.iter().any(|linear| linear.transposed),
            },
            shares_names: config.is_part_of_a_larger_model(),
            modules: linears.into_iter().map(ModulePath::from).collect(),
            parameters: tensors,
            frozen,
            decoder,
            device,
            kind: precision.compute,
        })
    }

    pub fn facts(&self) -> &ModelFacts {
        &self.facts
    }

    /// What peft has to be told of it.
    pub(crate) fn traits(&self) -> &BaseTraits {
        &self.traits
    }

    /// Whether modules that are not computed here, such as a vision tower's, are called as ours are.
    pub(crate) fn shares_names(&self) -> bool {
        self.shares_names
    }

    pub fn device(&self) -> Device {
        self.device
    }

    /// Type of the activations, and of the weights that are not stored in few bits.
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

    /// Logits of hidden states that were computed with the same adapter, `[rows, vocab]`. Ask for the rows that are needed
    /// only: a vocabulary is wide.
    ///
    /// # Errors
    /// Too little memory.
    pub fn logits(&self, hidden: &Tensor, adapter: Option<&Adapter>) -> Result<Tensor, ModelError> {
        self.head(adapter)?.logits(hidden)
    }

    /// Every weight under its name in Hugging Face's checkpoints, but for those stored in few bits; tied ones once.
    pub fn parameters(&self) -> Vec<(String, Tensor)> {
        self.parameters.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect()
    }

    /// Whether backward passes make gradients of the weights themselves.
    pub fn set_trainable(&self, trainable: bool) {
        for (_, parameter) in &self.parameters {
            let _ = parameter.set_requires_grad(trainable);
        }
    }

    /// Whether some weights are stored in few bits, and so cannot be trained.
    pub fn has_frozen_matrices(&self) -> bool {
        !self.frozen.is_empty()
    }

    fn layers(
        &self,
        documents: &Documents,
        adapter: Option<&Adapter>,
        context: &ForwardContext,
    ) -> Result<Tensor, ModelError> {
        let behind = behind_virtual(documents, adapter)?;
        let placed = behind.as_ref().unwrap_or(documents);
        self.check(placed)?;
        let has_dropout = adapter.is_some_and(Adapter::has_dropout);
        let dropout = context.dropout.as_ref().filter(|_| has_dropout).map(|keys| (keys, placed));
        let noise = neftune::noise(documents, placed, context, self.facts.hidden_size.into())?;
        let run = Run { dropout, noise, ..self.run_over(placed, adapter)? };
        let prefix = run.prefix(self.embedding())?;
        let attend = Attend::Documents { lengths: &placed.lengths, prefix: prefix.as_ref() };
        let x = self.decoder.forward(&placed.ids, &run, attend)?;
        match &placed.virtual_rows {
            Some(rows) => Ok(x.f_index_select(0, &rows.real)?),
            None => Ok(x),
        }
    }

    /// Reads prompts, placed by [`behind_virtual`], into a cache; gives the hidden states of each one's last token,
    /// `[documents, hidden]`.
    pub(crate) fn prefill(
        &self,
        prompts: &Documents,
        adapter: Option<&Adapter>,
        cache: &mut KeyValueCache,
    ) -> Result<Tensor, ModelError> {
        self.check(prompts)?;
        let run = self.run_over(prompts, adapter)?;
        let prefix = run.prefix(self.embedding())?;
        let attend = Attend::Prefill { lengths: &prompts.lengths, prefix: prefix.as_ref(), cache };
        let hidden = self.decoder.forward(&prompts.ids, &run, attend)?;
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
        let run = self.run(adapter, positions, &positions.f_add_scalar(1)?)?;
        self.final_norm(&self.decoder.forward(ids, &run, Attend::Cached { cache })?)
    }

    /// New tokens of texts in slots: `ids`, `positions` and `lengths`, the tokens that each one's text then has, are
    /// `[tokens]`; gives the hidden states of the rows `last`, `[texts]`, as `[texts, hidden]`.
    pub(crate) fn advance(
        &self,
        [ids, positions, lengths, last]: [&Tensor; 4],
        adapter: RowAdapters<'_>,
        pass: SlotPass<'_>,
    ) -> Result<Tensor, ModelError> {
        let run = match adapter {
            RowAdapters::One(adapter) => self.run(adapter, positions, lengths)?,
            RowAdapters::Mixed(mixed) => Run { mixed: Some(mixed), ..self.run(None, positions, lengths)? },
        };
        let hidden = self.decoder.forward(ids, &run, Attend::Slots { pass })?;
        self.final_norm(&hidden.f_index_select(0, last)?)
    }

    /// Whether what is kept of a text stays of use however long the text grows.
    pub(crate) fn keeps_prefixes(&self) -> bool {
        self.decoder.rotaries.iter().all(|rotary| rotary.holds_up_to().is_none())
    }

    pub(crate) fn cache_shape(&self) -> CacheShape {
        self.decoder.cache_shape
    }

    /// The output head with an adapter.
    pub(crate) fn head(&self, adapter: Option<&Adapter>) -> Result<Head, ModelError> {
        let Head { weight, soft_cap } = &self.decoder.head;
        let weight = match adapter {
            Some(adapter) => adapter.head(weight)?,
            None => weight.shallow_clone(),
        };
        Ok(Head { weight, soft_cap: *soft_cap })
    }

    /// `[vocab, hidden]`
    pub(crate) fn embedding(&self) -> &Tensor {
        &self.decoder.embedding
    }

    /// Whether linear layers are stored as transformers' Conv1D has them.
    pub(crate) fn is_transposed(&self) -> bool {
        self.traits.fan_in_fan_out
    }

    /// Whether the output head is the embedding matrix.
    pub(crate) fn is_tied(&self) -> bool {
        self.decoder.head.weight.data_ptr() == self.embedding().data_ptr()
    }

    /// Refuses what `field` asks for where embeddings are scaled: peft's rows are then of other sizes in one version of
    /// transformers than in another.
    pub(crate) fn refuse_scaled_embeddings(&self, field: &'static str) -> Result<(), ModelError> {
        if self.decoder.embedding_scale.is_none() {
            return Ok(());
        }
        let reason = format!("is not supported for `{}`, which scales its embeddings", self.facts.architecture);
        Err(ModelError::Setting { field, reason })
    }

    /// A tied head is a module of its own in Hugging Face's classes, though no checkpoint holds it.
    pub(crate) fn vocabulary_paths(&self) -> VocabularyPaths {
        let same = |(_, other): &&(String, Tensor)| other.data_ptr() == self.embedding().data_ptr();
        let embedding = self.parameters.iter().find(same).map(|(name, _)| name.trim_end_matches(".weight").to_owned());
        let [_, head] = self.facts.vocabulary_modules();
        VocabularyPaths { embedding: embedding.unwrap_or_default(), head: head.to_owned() }
    }

    /// Weight of the linear module at `path` in f32, `[out_features, in_features]`, however it is stored.
    pub(crate) fn weight_of(&self, path: &str) -> Result<Tensor, ModelError> {
        let wanted = format!("{path}.weight");
        let plain = self.parameters.iter().find(|(name, _)| *name == wanted);
        let frozen = self.frozen.iter().find(|(name, _)| *name == wanted);
        let weight = match (plain, frozen) {
            (Some((_, weight)), _) if self.traits.fan_in_fan_out => Weight::Transposed(weight.shallow_clone()),
            (Some((_, weight)), _) => Weight::Plain(weight.shallow_clone()),
            (None, Some((_, frozen))) => Weight::Frozen(Rc::clone(frozen)),
            (None, None) => return Err(ModelError::Batch(format!("`{wanted}` is no weight"))),
        };
        weight.matrix_f32()
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

    /// What the layers share of a pass over documents, but for dropout.
    fn run_over<'a>(&self, documents: &'a Documents, adapter: Option<&'a Adapter>) -> Result<Run<'a>, ModelError> {
        let run = self.run(adapter, &documents.positions, &documents.text_lengths)?;
        Ok(Run { virtual_rows: documents.virtual_rows.as_ref(), ..run })
    }

    fn run<'a>(
        &self,
        adapter: Option<&'a Adapter>,
        positions: &'a Tensor,
        text_lengths: &Tensor,
    ) -> Result<Run<'a>, ModelError> {
        let rotations = self.decoder.rotaries.iter().map(|rotary| rotary.at(positions, text_lengths));
        let rotations = rotations.collect::<Result<_, _>>()?;
        Ok(Run { adapter, mixed: None, dropout: None, noise: None, positions, rotations, virtual_rows: None })
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
