//! Chat templates: the model's own, which the operator trusts, and a user's, which nobody does.

mod growth;
mod user;

use hf_chat_template::{ChatTemplate, Civil, Clock};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::{error::WeightsError, tokenizer::SpecialTokens};

pub use user::check as check_user_template;
pub(crate) use user::render as render_user_template;

/// One turn as a chat template sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatMessage {
    pub role: String,
    pub content: String,
}

/// What every template sees.
fn context(messages: &[ChatMessage], add_generation_prompt: bool, special: &SpecialTokens) -> Map<String, Value> {
    let mut context = Map::new();
    for (name, text) in [
        ("bos_token", &special.bos),
        ("eos_token", &special.eos),
        ("unk_token", &special.unk),
        ("pad_token", &special.pad),
    ] {
        if let Some(text) = text {
            context.insert(name.to_owned(), text.as_str().into());
        }
    }
    let turns = messages.iter().map(|turn| json!({"role": turn.role, "content": turn.content})).collect();
    context.insert("messages".to_owned(), Value::Array(turns));
    context.insert("add_generation_prompt".to_owned(), add_generation_prompt.into());
    context
}

/// Today, for templates that write the date: always the same day, or a resumed job would see other tokens than the one
/// it resumes. It is the day that Llama 3's template itself falls back to, 26 July 2024.
struct StandingClock;

impl Clock for StandingClock {
    fn now(&self) -> Civil {
        Civil::from_unix_secs(1_721_952_000)
    }
}

/// A model's own template, compiled.
pub(crate) struct ModelTemplate {
    source: String,
    compiled: ChatTemplate,
}

impl ModelTemplate {
    pub(crate) fn new(source: String) -> Result<Self, WeightsError> {
        let compiled = ChatTemplate::builder(&source).clock(StandingClock).build().map_err(|error| {
            WeightsError::Template { doing: "compiling the model's chat template", reason: error.to_string() }
        })?;
        Ok(Self { source, compiled })
    }

    pub(crate) fn source(&self) -> &str {
        &self.source
    }

    pub(crate) fn render(
        &self,
        messages: &[ChatMessage],
        add_generation_prompt: bool,
        special: &SpecialTokens,
    ) -> Result<String, WeightsError> {
        self.compiled.render_context(&context(messages, add_generation_prompt, special)).map_err(|error| {
            WeightsError::Template { doing: "rendering the model's chat template", reason: error.to_string() }
        })
    }
}

#[cfg(test)]
mod jinja_tests;
