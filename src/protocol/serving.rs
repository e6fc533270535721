//! What crosses between an API node, a worker and the resident engine that answers.
//!
//! An API node sends a worker one [`ServingRequest`] and reads [`ServingLine`]s, one JSON object a line, whose `id` is the
//! index of the choice. The worker tells its engine [`ServeCommand`]s on standard input, one a line, and reads
//! [`EngineServing`] lines from its standard output, whose ids are the engine's requests.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::{
    generation::{FinishReason, GenerationMessage},
    ids::TenantId,
    spec::TemplateSpec,
    status::named_enum,
    tuning::AdapterSpec,
};

/// Path of a worker's one operation.
pub const ANSWER_PATH: &str = "/answer";
/// Most choices of one request.
pub const MOST_CHOICES: u32 = 16;
/// Most tokens told beside each one that was chosen.
pub const MOST_TOP_LOGPROBS: u32 = 20;
/// In the folder of a checkpoint to be served: a [`ServedCheckpoint`].
pub const CHECKPOINT_FILE: &str = "served.json";
/// In the same folder, the checkpoint's tensors.
pub const CHECKPOINT_TENSORS: &str = "adapter.safetensors";

/// What is to be answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServingPrompt {
    /// Turns of a chat, put into the model's template.
    Messages(Vec<GenerationMessage>),
    /// Text to go on from, as it is.
    Text(String),
    /// Token ids to go on from.
    Ids(Vec<u32>),
}

/// How to answer; each is checked where it is carried out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServingSettings {
    /// Longest answer in tokens; without it, as much as the model reads.
    pub max_tokens: Option<u32>,
    /// Zero always takes the likeliest token.
    pub temperature: f64,
    pub top_p: f64,
    pub seed: u64,
    pub stop: Vec<String>,
    pub presence_penalty: f64,
    pub frequency_penalty: f64,
    pub logit_bias: BTreeMap<u32, f64>,
    /// Tells how likely each token was, and so many of the likeliest beside it.
    pub top_logprobs: Option<u32>,
    /// The answer is one JSON object.
    pub json_object: bool,
}

/// One request, of a tenant that was let in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServingRequest {
    pub tenant: TenantId,
    /// Name of a base model, a tuned one or a checkpoint.
    pub model: String,
    pub prompt: ServingPrompt,
    pub settings: ServingSettings,
    /// Answers wanted; each draws by a seed of its own.
    pub choices: u32,
}

named_enum!(
    /// Why a request is not answered.
    RefusalKind, "refusal" {
        /// A setting or the prompt, to be mended by the client.
        Invalid = "invalid",
        /// Prompt and answer are longer than the model reads.
        ContextLength = "context_length",
        /// No model of this name.
        ModelNotFound = "model_not_found",
        /// The device trains, and the operator does not share it.
        DeviceBusy = "device_busy",
        /// Too many requests wait.
        Overloaded = "overloaded",
        /// A fault of the service.
        Internal = "internal",
    }
);

/// A request that is not answered, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    pub kind: RefusalKind,
    /// The setting to blame.
    pub param: Option<String>,
    pub message: String,
}

impl Refusal {
    pub fn new(kind: RefusalKind, message: impl Into<String>) -> Self {
        Self { kind, param: None, message: message.into() }
    }

    pub fn invalid(param: &str, message: impl Into<String>) -> Self {
        Self { kind: RefusalKind::Invalid, param: Some(param.to_owned()), message: message.into() }
    }
}

/// A token of an answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServedToken {
    pub text: String,
    /// Exactly, where its text is not whole UTF-8.
    pub bytes: Vec<u8>,
    /// By the model itself, before penalties and temperature.
    pub logprob: f64,
    /// The likeliest tokens at its place, likeliest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub top: Vec<ServedToken>,
}

/// What becomes of one answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ServingEvent {
    /// It is accepted; the first thing told of an answer, unless it is refused.
    Begun {
        prompt_tokens: u64,
        /// Of them, those that were read for an earlier request.
        cached_tokens: u64,
    },
    /// More of its text, which may be empty where only tokens are told.
    Piece {
        text: String,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        tokens: Vec<ServedToken>,
    },
    /// The end of one that went well.
    Ended { finish_reason: FinishReason, completion_tokens: u64 },
    /// The end of one that did not.
    Refused(Refusal),
}

impl ServingEvent {
    /// Whether nothing comes after it.
    pub fn is_last(&self) -> bool {
        matches!(self, Self::Ended { .. } | Self::Refused(_))
    }
}

/// An event with the answer it belongs to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServingLine {
    pub id: u64,
    #[serde(flatten)]
    pub event: ServingEvent,
}

/// An adapter on the engine's disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdapterPlace {
    /// What it is called between worker and engine; another adapter has another key.
    pub key: String,
    /// In peft's layout with tokenizer and template, or a checkpoint beside a [`ServedCheckpoint`].
    pub folder: PathBuf,
}

/// What a checkpoint's tensors are nothing without.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServedCheckpoint {
    pub spec: AdapterSpec,
    pub template: TemplateSpec,
}

/// One answer for the engine to give.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AnswerCommand {
    pub id: u64,
    /// Whose turn it is depends on it.
    pub tenant: TenantId,
    pub adapter: Option<AdapterPlace>,
    pub prompt: ServingPrompt,
    pub settings: ServingSettings,
}

/// What the worker tells a resident engine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ServeCommand {
    Keepalive,
    Answer(Box<AnswerCommand>),
    /// Nobody waits for this answer any more.
    Cancel {
        id: u64,
    },
}

/// What a resident engine tells.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum EngineServing {
    /// Of one answer.
    Line(ServingLine),
    /// The model is loaded; the first line.
    Ready { ready: String },
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn lines_are_flat_and_the_two_kinds_are_told_apart() {
        let event = ServingEvent::Ended { finish_reason: FinishReason::Stop, completion_tokens: 3 };
        let line = EngineServing::Line(ServingLine { id: 7, event });
        let text = serde_json::to_string(&line).unwrap();
        assert_eq!(text, r#"{"id":7,"type":"ended","finish_reason":"stop","completion_tokens":3}"#);
        assert_eq!(serde_json::from_str::<EngineServing>(&text).unwrap(), line);
        let refusal = Refusal::invalid("top_p", "no");
        let line = EngineServing::Line(ServingLine { id: 1, event: ServingEvent::Refused(refusal) });
        let text = serde_json::to_string(&line).unwrap();
        assert_eq!(text, r#"{"id":1,"type":"refused","kind":"invalid","param":"top_p","message":"no"}"#);
        assert_eq!(serde_json::from_str::<EngineServing>(&text).unwrap(), line);
        let ready = EngineServing::Ready { ready: "cpu".into() };
        assert_eq!(serde_json::from_str::<EngineServing>(r#"{"ready":"cpu"}"#).unwrap(), ready);
        let keepalive = serde_json::from_str::<ServeCommand>(r#"{"type":"keepalive"}"#).unwrap();
        assert_eq!(keepalive, ServeCommand::Keepalive);
    }
}
