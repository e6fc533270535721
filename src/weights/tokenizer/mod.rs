//! Text to token ids and back, with the model's chat template.

mod bytes;
mod folder;
mod save;

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use serde_json::{Map, Value};
use tokenizers::Tokenizer;

use crate::{
    error::WeightsError,
    jinja::{Conversation, ModelTemplate, render_user_template},
};

pub use folder::read as read_tokenizer;
pub(crate) use folder::{FILES, has_chat_template, read as read_folder};

/// Texts of the tokens with a role of their own.
#[derive(Debug, Clone, Default)]
pub(crate) struct SpecialTokens {
    pub(crate) bos: Option<String>,
    pub(crate) eos: Option<String>,
    pub(crate) unk: Option<String>,
    pub(crate) pad: Option<String>,
}

/// A model's tokenizer, special tokens and chat template. Cloning is cheap.
#[derive(Clone)]
pub struct TextTokenizer {
    inner: Arc<Inner>,
}

struct Inner {
    tokenizer: Tokenizer,
    /// The same, blind to special tokens; made when first asked for.
    ordinary: OnceLock<Tokenizer>,
    /// `tokenizer_config.json` as it came, or as it would be.
    details: Map<String, Value>,
    special: SpecialTokens,
    template: Option<ModelTemplate>,
}

impl fmt::Debug for TextTokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TextTokenizer").field("special", &self.inner.special).finish_non_exhaustive()
    }
}

fn failed(doing: &'static str) -> impl FnOnce(tokenizers::Error) -> WeightsError {
    move |error| WeightsError::Tokenizer { doing, reason: error.to_string() }
}

impl TextTokenizer {
    /// From the bytes of a `tokenizer.json`; ids must lie below `vocab_size`, the rows of the model's embeddings.
    pub(crate) fn new(
        json: &[u8],
        details: Map<String, Value>,
        special: SpecialTokens,
        template: Option<String>,
        vocab_size: u32,
    ) -> Result<Self, WeightsError> {
        let doing = "reading the tokenizer";
        let mut tokenizer = Tokenizer::from_bytes(json).map_err(failed(doing))?;
        // Length is cut and rows are packed elsewhere.
        tokenizer.with_truncation(None).map_err(failed(doing))?;
        tokenizer.with_padding(None);
        let largest = tokenizer.get_vocab(true).into_values().max();
        if let Some(id) = largest.filter(|id| *id >= vocab_size) {
            let reason = format!("it has the id {id}, and the model embeds ids below {vocab_size}");
            return Err(WeightsError::Tokenizer { doing, reason });
        }
        let template = template.map(ModelTemplate::new).transpose()?;
        let inner = Inner { tokenizer, ordinary: OnceLock::new(), details, special, template };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Token ids of a text in which the texts of special tokens count as those tokens. None are added.
    ///
    /// # Errors
    /// A text that the tokenizer refuses.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, WeightsError> {
        encode(&self.inner.tokenizer, text)
    }

    /// Token ids of a whole document: as [`Self::encode`], with the tokens around it that the tokenizer's own
    /// post-processor adds (Llama's and Gemma's begin a text with one), and closed by the token that ends a text, where
    /// the model has one.
    ///
    /// # Errors
    /// A text that the tokenizer refuses.
    pub fn encode_document(&self, text: &str) -> Result<Vec<u32>, WeightsError> {
        let encoding = self.inner.tokenizer.encode_fast(text, true).map_err(failed("encoding a text"))?;
        let mut ids = encoding.get_ids().to_vec();
        let eos = self.eos().and_then(|text| self.token_id(text));
        ids.extend(eos.filter(|eos| ids.last() != Some(eos)));
        Ok(ids)
    }

    /// As [`Self::encode`], but the texts of special tokens stay text, so that content cannot forge a turn.
    ///
    /// # Errors
    /// A text that the tokenizer refuses.
    pub fn encode_ordinary(&self, text: &str) -> Result<Vec<u32>, WeightsError> {
        let blind = || {
            let mut tokenizer = self.inner.tokenizer.clone();
            tokenizer.set_encode_special_tokens(true);
            tokenizer
        };
        encode(self.inner.ordinary.get_or_init(blind), text)
    }

    /// Text of token ids.
    ///
    /// # Errors
    /// Ids that the tokenizer refuses.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String, WeightsError> {
        self.inner.tokenizer.decode(ids, skip_special).map_err(failed("decoding token ids"))
    }

    /// Bytes that each id adds to a text; none for special tokens and for ids that no token has.
    ///
    /// # Errors
    /// A tokenizer that cannot be written as JSON, from which its way with bytes is read.
    pub fn token_bytes(&self) -> Result<Vec<Option<Vec<u8>>>, WeightsError> {
        let decoder = self.json()?["decoder"].to_string();
        let tokenizer = &self.inner.tokenizer;
        let added = tokenizer.get_added_tokens_decoder();
        let one = |id: u32| match added.get(&id) {
            Some(token) if token.special => None,
            Some(token) => Some(token.content.clone().into_bytes()),
            None => tokenizer.id_to_token(id).map(|token| bytes::of(&token, &decoder)),
        };
        let most = tokenizer.get_vocab(true).into_values().max().map_or(0, |id| id + 1);
        Ok((0..most).map(one).collect())
    }

    /// Number of ids, added tokens included.
    pub fn vocab_size(&self) -> usize {
        self.inner.tokenizer.get_vocab_size(true)
    }

    /// Source of the model's chat template.
    pub fn chat_template(&self) -> Option<&str> {
        self.inner.template.as_ref().map(ModelTemplate::source)
    }

    /// The turns as the model's own template writes them.
    ///
    /// # Errors
    /// A model without a template, or one that refuses these turns.
    pub fn render_chat<'a>(
        &self,
        chat: impl Into<Conversation<'a>>,
        add_generation_prompt: bool,
    ) -> Result<String, WeightsError> {
        match &self.inner.template {
            Some(template) => template.render(chat.into(), add_generation_prompt, &self.inner.special),
            None => Err(WeightsError::Template {
                doing: "rendering a chat",
                reason: "this model has no chat template".to_owned(),
            }),
        }
    }

    /// The turns as a user's Jinja text writes them; steps and output are limited.
    ///
    /// # Errors
    /// A template that does not compile, raises, or goes beyond the limits.
    pub fn render_jinja<'a>(
        &self,
        source: &str,
        chat: impl Into<Conversation<'a>>,
        add_generation_prompt: bool,
    ) -> Result<String, WeightsError> {
        render_user_template(source, chat.into(), add_generation_prompt, &self.inner.special)
    }

    /// Text of the token that begins a document, where the model has one.
    pub fn bos(&self) -> Option<&str> {
        self.inner.special.bos.as_deref()
    }

    /// Text of the token that ends a document or turn, where the model has one.
    pub fn eos(&self) -> Option<&str> {
        self.inner.special.eos.as_deref()
    }

    /// Its `tokenizer.json`.
    pub(crate) fn json(&self) -> Result<Value, WeightsError> {
        let doing = "writing the tokenizer";
        let text = self.inner.tokenizer.to_string(false).map_err(failed(doing))?;
        serde_json::from_str(&text).map_err(|error| WeightsError::Tokenizer { doing, reason: error.to_string() })
    }

    /// Whether other programs begin a text with the bos token; `json` is [`Self::json`].
    pub(crate) fn adds_bos(&self, json: &Value) -> bool {
        let Some(bos) = self.bos() else { return false };
        let begins = |processor: &Value| processor["single"][0]["SpecialToken"]["id"] == bos;
        let processor = &json["post_processor"];
        begins(processor) || processor["processors"].as_array().is_some_and(|parts| parts.iter().any(begins))
    }

    /// Id of a token by its exact text.
    pub fn token_id(&self, text: &str) -> Option<u32> {
        self.inner.tokenizer.token_to_id(text)
    }
}

fn encode(tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>, WeightsError> {
    let encoding = tokenizer.encode_fast(text, false).map_err(failed("encoding a text"))?;
    Ok(encoding.get_ids().to_vec())
}

#[cfg(test)]
mod tokenizer_tests;
