//! Vocabulary matrices trained with a low-rank adapter: whole (peft's `modules_to_save`), or some rows of the embedding
//! (peft's `trainable_token_indices`).

use finetuned_protocol::tuning::LoraSpec;
use finetuned_torch::{Kind, Tensor, tch};

use crate::{
    adapter::trained,
    adapter_source::AdapterSource,
    causal_lm::{CausalLm, VocabularyPaths},
    error::ModelError,
};

/// What stands in place of the model's own matrices; nothing by default.
#[derive(Debug)]
pub(crate) struct Vocabulary {
    embedding: Embedding,
    head: Option<Saved>,
}

#[derive(Debug)]
enum Embedding {
    Own,
    Whole(Saved),
    Rows(Rows),
}

/// A matrix that is trained whole.
#[derive(Debug)]
struct Saved {
    key: String,
    /// `[vocab, hidden]`
    weight: Tensor,
}

/// Rows that are trained.
#[derive(Debug)]
struct Rows {
    key: String,
    /// `[rows]`, i64: their tokens.
    ids: Tensor,
    /// `[vocab]`, i64: place of each token in `values`, -1 where it has none.
    places: Tensor,
    /// `[rows, hidden]`
    values: Tensor,
    /// Whether the output head is the embedding matrix, and so changes with it.
    tied: bool,
}

impl Vocabulary {
    pub fn build(model: &CausalLm, spec: &LoraSpec, source: &mut AdapterSource) -> Result<Self, ModelError> {
        let VocabularyPaths { embedding: embedding_path, head: head_path } = model.vocabulary_paths();
        let name = |path: &str| path.rsplit('.').next().unwrap_or(path).to_owned();
        let (embedding_name, head_name) = (name(&embedding_path), name(&head_path));
        let wanted = |name: &String| spec.modules_to_save.contains(name);
        if let Some(other) = spec.modules_to_save.iter().find(|other| ![&embedding_name, &head_name].contains(other)) {
            let reason = format!("names `{other}`; `{embedding_name}` and `{head_name}` can be trained whole");
            return Err(ModelError::Setting { field: "lora.modules_to_save", reason });
        }
        if !spec.trainable_token_indices.is_empty() {
            model.refuse_scaled_embeddings("lora.trainable_token_indices")?;
        }
        let mut saved = |path: &str, own: &Tensor| -> Result<Saved, ModelError> {
            let key = format!("base_model.model.{path}.weight");
            let weight = source.take(&key, &own.size(), |_| Ok(own.shallow_clone()))?;
            Ok(Saved { key, weight: trained(&weight, model)? })
        };
        let head = if wanted(&head_name) { Some(saved(&head_path, &model.head(None)?.weight)?) } else { None };
        let embedding = match (wanted(&embedding_name), spec.trainable_token_indices.as_slice()) {
            (false, []) => Embedding::Own,
            (true, []) => Embedding::Whole(saved(&embedding_path, model.embedding())?),
            (false, ids) => Embedding::Rows(Rows::build(model, &embedding_path, ids, source)?),
            (true, _) => {
                let reason = format!("cannot be given where `{embedding_name}` is trained whole");
                return Err(ModelError::Setting { field: "lora.trainable_token_indices", reason });
            }
        };
        Ok(Self { embedding, head })
    }

    /// Whether it changes nothing.
    pub fn is_the_models_own(&self) -> bool {
        self.head.is_none() && matches!(self.embedding, Embedding::Own)
    }

    pub fn named_parameters(&self) -> Vec<(String, Tensor)> {
        let embedding = match &self.embedding {
            Embedding::Own => None,
            Embedding::Whole(saved) => Some((saved.key.clone(), saved.weight.shallow_clone())),
            Embedding::Rows(rows) => Some((rows.key.clone(), rows.values.shallow_clone())),
        };
        let head = self.head.as_ref().map(|saved| (saved.key.clone(), saved.weight.shallow_clone()));
        embedding.into_iter().chain(head).collect()
    }

    /// The head in place of the model's own, `own`, and of its type.
    pub fn head(&self, own: &Tensor) -> Result<Tensor, ModelError> {
        match (&self.head, &self.embedding) {
            (Some(saved), _) => Ok(saved.weight.f_to_kind(own.f_kind()?)?),
            (None, Embedding::Rows(rows)) if rows.tied => {
                Ok(own.f_index_copy(0, &rows.ids, &rows.values.f_to_kind(own.f_kind()?)?)?)
            }
            _ => Ok(own.shallow_clone()),
        }
    }

    /// The embedding matrix in place of the model's own, `own`.
    pub fn embedding(&self, own: &Tensor) -> Result<Tensor, ModelError> {
        match &self.embedding {
            Embedding::Own => Ok(own.shallow_clone()),
            Embedding::Whole(saved) => Ok(saved.weight.shallow_clone()),
            Embedding::Rows(rows) => Ok(own.f_index_copy(0, &rows.ids, &rows.values.f_to_kind(own.f_kind()?)?)?),
        }
    }

    /// Embeddings of `ids`, `[tokens]`, where the model's own matrix is `own`: `[tokens, hidden]`.
    pub fn embed(&self, own: &Tensor, ids: &Tensor) -> Result<Tensor, ModelError> {
        let lookup = |weight: &Tensor| Tensor::f_embedding(weight, ids, -1, false, false);
        match &self.embedding {
            Embedding::Own => Ok(lookup(own)?),
            Embedding::Whole(saved) => Ok(lookup(&saved.weight)?.f_to_kind(own.f_kind()?)?),
            Embedding::Rows(rows) => rows.replace(&lookup(own)?, ids),
        }
    }
}

impl Rows {
    fn build(model: &CausalLm, path: &str, ids: &[u32], source: &mut AdapterSource) -> Result<Self, ModelError> {
        let _detached = tch::no_grad_guard();
        let (vocabulary, hidden) = model.embedding().size2()?;
        if let Some(id) = ids.iter().find(|&&id| i64::from(id) >= vocabulary) {
            let reason = format!("has {id}, which is outside the vocabulary of {vocabulary}");
            return Err(ModelError::Setting { field: "lora.trainable_token_indices", reason });
        }
        let count = ids.len() as i64;
        let ids: Vec<i64> = ids.iter().map(|&id| i64::from(id)).collect();
        let ids = Tensor::f_from_slice(&ids)?.f_to_device(model.device())?;
        let order = Tensor::f_arange(count, (Kind::Int64, model.device()))?;
        let places = Tensor::f_full([vocabulary], -1, (Kind::Int64, model.device()))?.f_index_copy(0, &ids, &order)?;
        let key = format!("base_model.model.{path}.token_adapter.trainable_tokens_delta");
        let own = |_| Ok(model.embedding().f_index_select(0, &ids)?);
        let values = trained(&source.take(&key, &[count, hidden], own)?, model)?;
        Ok(Self { key, ids, places, values, tied: model.is_tied() })
    }

    /// Puts the trained rows into `x`, `[tokens, hidden]`, wherever one of their tokens stands in `ids`.
    fn replace(&self, x: &Tensor, ids: &Tensor) -> Result<Tensor, ModelError> {
        let places = self.places.f_index_select(0, ids)?; // [tokens]
        let tokens = places.f_ge(0)?.f_nonzero()?.f_squeeze_dim(1)?;
        let values = self.values.f_index_select(0, &places.f_index_select(0, &tokens)?)?;
        Ok(x.f_index_copy(0, &tokens, &values.f_to_kind(x.f_kind()?)?)?)
    }
}
