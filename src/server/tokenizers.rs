//! Tokenizers of base models, for whoever asks what a model will see. Reading one takes a second, so some are kept.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

use finetuned_store::{BaseModel, Caller, Model, StoreError};
use finetuned_weights::{ModelSource, TextTokenizer};

use crate::{
    http::error::{ApiError, Code},
    state::App,
};

const MOST_KEPT: usize = 4;

/// By the hash of the model, the one used last in front.
#[derive(Default)]
pub struct Tokenizers {
    kept: Mutex<VecDeque<(String, TextTokenizer)>>,
}

impl Tokenizers {
    fn get(&self, sha256: &str) -> Option<TextTokenizer> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let at = kept.iter().position(|(known, _)| known == sha256)?;
        let found = kept.remove(at)?;
        let tokenizer = found.1.clone();
        kept.push_front(found);
        Some(tokenizer)
    }

    fn keep(&self, sha256: String, tokenizer: TextTokenizer) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push_front((sha256, tokenizer));
        kept.truncate(MOST_KEPT);
    }

    /// The tokenizer of a base model.
    ///
    /// # Errors
    /// The model's files are not on this host, or are no model any more.
    pub async fn of(&self, model: &BaseModel) -> Result<TextTokenizer, ApiError> {
        if let Some(tokenizer) = self.get(&model.sha256) {
            return Ok(tokenizer);
        }
        let path = model.path.clone();
        let read = tokio::task::spawn_blocking(move || ModelSource::open(&path)?.tokenizer());
        let tokenizer = read.await.map_err(ApiError::internal)?.map_err(|error| {
            tracing::error!(model = model.name, %error, "a base model's tokenizer cannot be read on this host");
            let message = format!("the files of `{}` cannot be read on this server's host", model.name);
            ApiError::invalid("model", message)
        })?;
        self.keep(model.sha256.clone(), tokenizer.clone());
        Ok(tokenizer)
    }
}

/// A base model by its name, or by that of a tuned model that was made from it.
///
/// # Errors
/// There is none.
pub async fn base_model(app: &App, caller: &Caller, name: &str) -> Result<BaseModel, ApiError> {
    let unknown = || ApiError::invalid("model", format!("no model is called `{name}`")).code(Code::ModelNotFound);
    let mut found = app.store.get_model(caller.tenant, name).await;
    if let Ok(Model::Tuned(tuned)) = found {
        found = app.store.get_model(caller.tenant, &tuned.base_model).await;
    }
    match found {
        Ok(Model::Base(model)) => Ok(model),
        Ok(Model::Tuned(_)) | Err(StoreError::NotFound { .. }) => Err(unknown()),
        Err(error) => Err(error.into()),
    }
}
