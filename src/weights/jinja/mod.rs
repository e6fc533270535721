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
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatMessage {
    pub role: String,
    pub content: String,
    /// Functions that an assistant calls.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ChatCall>,
    /// The call that a tool answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
    /// The function that a tool is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl ChatMessage {
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into(), ..Self::default() }
    }

    /// Bytes of all its texts.
    fn text_bytes(&self) -> usize {
        let calls = self.tool_calls.iter().map(|call| call.name.len() + call.arguments.to_string().len() + 64);
        self.role.len() + self.content.len() + calls.sum::<usize>()
    }
}

/// A call of a function, as a chat template sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatCall {
    pub id: Option<String>,
    pub name: String,
    /// An object; templates for transformers write it as JSON themselves.
    pub arguments: Value,
}

/// What a template writes: the messages so far, and the functions that may be called.
#[derive(Debug, Clone, Copy)]
pub struct Conversation<'a> {
    pub messages: &'a [ChatMessage],
    /// In OpenAI's form: `{"type": "function", "function": {"name", "description", "parameters"}}`.
    pub tools: &'a [Value],
}

impl<'a> From<&'a [ChatMessage]> for Conversation<'a> {
    fn from(messages: &'a [ChatMessage]) -> Self {
        Self { messages, tools: &[] }
    }
}

impl<'a> From<&'a Vec<ChatMessage>> for Conversation<'a> {
    fn from(messages: &'a Vec<ChatMessage>) -> Self {
        messages.as_slice().into()
    }
}

impl<'a, const N: usize> From<&'a [ChatMessage; N]> for Conversation<'a> {
    fn from(messages: &'a [ChatMessage; N]) -> Self {
        messages.as_slice().into()
    }
}

/// What every template sees. As with transformers, `tools` is none where there are none, and a message has the fields of
/// calls only where it has calls.
fn context(chat: Conversation<'_>, add_generation_prompt: bool, special: &SpecialTokens) -> Map<String, Value> {
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
    context.insert("messages".to_owned(), chat.messages.iter().map(message).collect());
    context.insert("tools".to_owned(), if chat.tools.is_empty() { Value::Null } else { chat.tools.into() });
    context.insert("add_generation_prompt".to_owned(), add_generation_prompt.into());
    context
}

fn message(turn: &ChatMessage) -> Value {
    let mut message = json!({"role": turn.role, "content": turn.content});
    if !turn.tool_calls.is_empty() {
        let call = |call: &ChatCall| {
            let function = json!({"name": call.name, "arguments": call.arguments});
            match &call.id {
                Some(id) => json!({"id": id, "type": "function", "function": function}),
                None => json!({"type": "function", "function": function}),
            }
        };
        message["tool_calls"] = turn.tool_calls.iter().map(call).collect();
    }
    for (field, text) in [("tool_call_id", &turn.tool_call_id), ("name", &turn.name)] {
        if let Some(text) = text {
            message[field] = text.as_str().into();
        }
    }
    message
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
        chat: Conversation<'_>,
        add_generation_prompt: bool,
        special: &SpecialTokens,
    ) -> Result<String, WeightsError> {
        self.compiled.render_context(&context(chat, add_generation_prompt, special)).map_err(|error| {
            WeightsError::Template { doing: "rendering the model's chat template", reason: error.to_string() }
        })
    }
}

#[cfg(test)]
mod jinja_tests;
