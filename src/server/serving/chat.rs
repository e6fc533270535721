//! `POST /v1/chat/completions`

use std::collections::BTreeMap;

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use finetuned_protocol::{
    generation::GenerationMessage,
    serving::{ServedToken, ServingEvent, ServingLine, ServingPrompt, ServingRequest},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    answers::{Usage, collect, finish_reason},
    settings::{Drawing, OneOrMore, StreamOptions, choices, refuse},
    sse::{self, Wording},
    workers::ask,
};
use crate::{
    http::{
        auth::Authenticated,
        body::JsonBody,
        error::{ApiError, ErrorResponse},
    },
    state::App,
};

/// What to answer, as OpenAI has it.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChatCompletionRequest {
    /// A base model, a tuned one, or a checkpoint by its `fine_tuned_model_checkpoint`.
    pub model: String,
    pub messages: Vec<RequestMessage>,
    /// Longest answer in tokens; without it, as much as the model reads.
    pub max_completion_tokens: Option<u32>,
    /// The older name of the same.
    pub max_tokens: Option<u32>,
    /// 0 to 2, 1 by default; zero always takes the likeliest token.
    pub temperature: Option<f64>,
    pub top_p: Option<f64>,
    /// Answers wanted, 1 to 16.
    pub n: Option<u32>,
    /// Up to four texts that end an answer and are no part of it.
    pub stop: Option<OneOrMore>,
    /// The same seed draws the same answer.
    pub seed: Option<i64>,
    pub presence_penalty: Option<f64>,
    pub frequency_penalty: Option<f64>,
    /// Token ids with what is added to their logits, -100 to 100.
    pub logit_bias: Option<BTreeMap<String, f64>>,
    /// Tell how likely each token was.
    pub logprobs: Option<bool>,
    /// And so many of the likeliest beside it, 0 to 20.
    pub top_logprobs: Option<u32>,
    pub response_format: Option<ResponseFormat>,
    pub stream: Option<bool>,
    pub stream_options: Option<StreamOptions>,
    /// Who asks; changes no answer.
    pub user: Option<String>,
    /// The same.
    pub safety_identifier: Option<String>,
    /// Texts that begin alike are found without it.
    pub prompt_cache_key: Option<String>,
    /// Changes no answer; nothing is stored.
    pub metadata: Option<BTreeMap<String, String>>,
    #[schema(value_type = Option<Object>)]
    pub tools: Option<Value>,
    #[schema(value_type = Option<Object>)]
    pub tool_choice: Option<Value>,
    #[schema(value_type = Option<Object>)]
    pub functions: Option<Value>,
    #[schema(value_type = Option<Object>)]
    pub function_call: Option<Value>,
    #[schema(value_type = Option<Object>)]
    pub modalities: Option<Value>,
    #[schema(value_type = Option<Object>)]
    pub audio: Option<Value>,
    #[schema(value_type = Option<Object>)]
    pub prediction: Option<Value>,
    #[schema(value_type = Option<Object>)]
    pub reasoning_effort: Option<Value>,
    #[schema(value_type = Option<Object>)]
    pub verbosity: Option<Value>,
    #[schema(value_type = Option<Object>)]
    pub web_search_options: Option<Value>,
    #[schema(value_type = Option<Object>)]
    pub store: Option<Value>,
    #[schema(value_type = Option<Object>)]
    pub service_tier: Option<Value>,
}

/// One turn of the chat.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RequestMessage {
    /// `system`, `developer` (the same), `user`, `assistant`, or what else the model's template knows.
    pub role: String,
    pub content: Content,
}

/// A text, or texts in parts.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum Content {
    Text(String),
    Parts(Vec<TextPart>),
}

#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TextPart {
    /// `text`; no model here sees or hears.
    #[serde(rename = "type")]
    pub kind: String,
    pub text: String,
}

/// What the answer must be.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ResponseFormat {
    /// `text`, or `json_object`: no token is drawn that could not go on to one JSON object.
    #[serde(rename = "type")]
    pub kind: String,
}

/// The answers.
#[derive(Debug, Serialize, ToSchema)]
pub struct ChatCompletion {
    pub id: String,
    /// Always `chat.completion`.
    pub object: &'static str,
    pub created: i64,
    pub model: String,
    pub choices: Vec<ChatChoice>,
    pub usage: Usage,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct ChatChoice {
    pub index: u32,
    pub message: AnswerMessage,
    pub logprobs: Option<ChatLogprobs>,
    /// `stop` or `length`.
    pub finish_reason: Option<&'static str>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct AnswerMessage {
    /// Always `assistant`.
    pub role: &'static str,
    pub content: String,
    /// Always null.
    pub refusal: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct ChatLogprobs {
    pub content: Vec<TokenLogprob>,
    /// Always null.
    pub refusal: Option<Vec<TokenLogprob>>,
}

/// A token with its log-probability by the model itself, before penalties and temperature.
#[derive(Debug, Serialize, ToSchema)]
pub struct TokenLogprob {
    pub token: String,
    pub logprob: f64,
    pub bytes: Vec<u8>,
    pub top_logprobs: Vec<TopLogprob>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct TopLogprob {
    pub token: String,
    pub logprob: f64,
    pub bytes: Vec<u8>,
}

impl From<ServedToken> for TokenLogprob {
    fn from(ServedToken { text, bytes, logprob, top }: ServedToken) -> Self {
        let one = |top: ServedToken| TopLogprob { token: top.text, logprob: top.logprob, bytes: top.bytes };
        Self { token: text, logprob, bytes, top_logprobs: top.into_iter().map(one).collect() }
    }
}

/// A piece of a streamed answer.
#[derive(Debug, Serialize)]
struct Chunk {
    id: String,
    object: &'static str,
    created: i64,
    model: String,
    choices: Vec<ChunkChoice>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Usage>,
}

#[derive(Debug, Serialize)]
struct ChunkChoice {
    index: u64,
    delta: Delta,
    logprobs: Option<ChatLogprobs>,
    finish_reason: Option<&'static str>,
}

#[derive(Debug, Default, Serialize)]
struct Delta {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<String>,
}

/// Answer a chat, by the model's own template.
#[utoipa::path(
    post, path = "/v1/chat/completions", tag = "chat", request_body = ChatCompletionRequest,
    responses(
        (status = 200, body = ChatCompletion, description = "With `stream`, chunks as server-sent events"),
        (status = 400, body = ErrorResponse),
        (status = 404, body = ErrorResponse, description = "No such model"),
        (status = 429, body = ErrorResponse, description = "The device trains and is not shared, or too many wait"),
        (status = 503, body = ErrorResponse, description = "No worker answers"),
    ),
)]
pub async fn create_chat_completion(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    JsonBody(request): JsonBody<ChatCompletionRequest>,
) -> Result<Response, ApiError> {
    check(&request)?;
    let choices = choices(request.n)?;
    let streams = request.stream.unwrap_or(false);
    let with_usage = request.stream_options.unwrap_or_default().include_usage;
    let with_logprobs = request.logprobs.unwrap_or(false);
    let model = request.model.clone();
    let prompt = ServingPrompt::Messages(messages(request.messages)?);
    let drawing = Drawing {
        max_tokens: request.max_completion_tokens.or(request.max_tokens),
        temperature: request.temperature,
        top_p: request.top_p,
        seed: request.seed,
        stop: request.stop,
        presence_penalty: request.presence_penalty,
        frequency_penalty: request.frequency_penalty,
        logit_bias: request.logit_bias,
        top_logprobs: with_logprobs.then(|| request.top_logprobs.unwrap_or(0)),
        json_object: request.response_format.is_some_and(|format| format.kind == "json_object"),
    };
    let settings = drawing.settings()?;
    let asked = ServingRequest { tenant: caller.tenant, model: model.clone(), prompt, settings, choices };
    let accepted = ask(&app, &asked).await?;
    let id = format!("chatcmpl-{}", Uuid::now_v7().simple());
    let created = OffsetDateTime::now_utc().unix_timestamp();
    if streams {
        let wording = ChatWording { id, created, model, with_usage };
        return Ok(sse::stream(accepted, choices, wording, app.closing.clone()));
    }
    let (answers, usage) = collect(accepted, choices).await?;
    let choices = answers.into_iter().zip(0..).map(|(answer, index)| ChatChoice {
        index,
        message: AnswerMessage { role: "assistant", content: answer.text, refusal: None },
        logprobs: with_logprobs.then(|| logprobs(answer.tokens)),
        finish_reason: finish_reason(answer.finish_reason),
    });
    let choices = choices.collect();
    Ok(Json(ChatCompletion { id, object: "chat.completion", created, model, choices, usage }).into_response())
}

fn check(request: &ChatCompletionRequest) -> Result<(), ApiError> {
    let none = "send the request without it";
    refuse(&[
        ("tools", &request.tools, none),
        ("tool_choice", &request.tool_choice, none),
        ("functions", &request.functions, none),
        ("function_call", &request.function_call, none),
        ("audio", &request.audio, none),
        ("prediction", &request.prediction, none),
        ("reasoning_effort", &request.reasoning_effort, none),
        ("verbosity", &request.verbosity, none),
        ("web_search_options", &request.web_search_options, none),
        ("store", &request.store, "answers are not stored; send false"),
        ("service_tier", &request.service_tier, "there is one tier; send `auto`"),
    ])?;
    if request.modalities.as_ref().is_some_and(|modalities| *modalities != serde_json::json!(["text"])) {
        return Err(ApiError::invalid("modalities", "`modalities` must be [\"text\"]"));
    }
    if request.messages.is_empty() {
        return Err(ApiError::invalid("messages", "`messages` must have at least one message"));
    }
    if request.max_completion_tokens.is_some() && request.max_tokens.is_some() {
        let message = "`max_tokens` is the older name of `max_completion_tokens`; send one of them";
        return Err(ApiError::invalid("max_tokens", message));
    }
    if request.top_logprobs.is_some() && request.logprobs != Some(true) {
        return Err(ApiError::invalid("top_logprobs", "`top_logprobs` needs `logprobs` to be true"));
    }
    if request.stream_options.is_some() && request.stream != Some(true) {
        return Err(ApiError::invalid("stream_options", "`stream_options` needs `stream` to be true"));
    }
    match request.response_format.as_ref().map(|format| format.kind.as_str()) {
        None | Some("text" | "json_object") => Ok(()),
        Some(other) => {
            let message = format!("`response_format.type` must be `text` or `json_object`; it is `{other}`");
            Err(ApiError::invalid("response_format.type", message))
        }
    }
}

fn messages(given: Vec<RequestMessage>) -> Result<Vec<GenerationMessage>, ApiError> {
    let one = |(index, RequestMessage { role, content }): (usize, RequestMessage)| {
        let content = match content {
            Content::Text(text) => text,
            Content::Parts(parts) => {
                if let Some(part) = parts.iter().find(|part| part.kind != "text") {
                    let param = format!("messages[{index}].content");
                    let message = format!("`{param}` has a part of type `{}`; only `text` is read here", part.kind);
                    return Err(ApiError::invalid(param, message));
                }
                parts.into_iter().map(|part| part.text).collect()
            }
        };
        let role = if role == "developer" { "system".to_owned() } else { role };
        Ok(GenerationMessage { role, content })
    };
    given.into_iter().enumerate().map(one).collect()
}

fn logprobs(tokens: Vec<ServedToken>) -> ChatLogprobs {
    ChatLogprobs { content: tokens.into_iter().map(TokenLogprob::from).collect(), refusal: None }
}

struct ChatWording {
    id: String,
    created: i64,
    model: String,
    with_usage: bool,
}

impl ChatWording {
    fn chunk(&self, choices: Vec<ChunkChoice>, usage: Option<Usage>) -> Chunk {
        let (id, model) = (self.id.clone(), self.model.clone());
        Chunk { id, object: "chat.completion.chunk", created: self.created, model, choices, usage }
    }
}

impl Wording for ChatWording {
    type Chunk = Chunk;

    fn chunks(&mut self, line: ServingLine) -> Vec<Chunk> {
        let (delta, tokens, reason) = match line.event {
            ServingEvent::Begun { .. } => {
                (Delta { role: Some("assistant"), content: Some(String::new()) }, Vec::new(), None)
            }
            ServingEvent::Piece { text, tokens } => (Delta { role: None, content: Some(text) }, tokens, None),
            ServingEvent::Ended { finish_reason, .. } => (Delta::default(), Vec::new(), Some(finish_reason)),
            ServingEvent::Refused(_) => return Vec::new(),
        };
        let choice = ChunkChoice {
            index: line.id,
            delta,
            logprobs: (!tokens.is_empty()).then(|| logprobs(tokens)),
            finish_reason: finish_reason(reason),
        };
        vec![self.chunk(vec![choice], None)]
    }

    fn usage(&mut self, usage: Usage) -> Option<Chunk> {
        self.with_usage.then(|| self.chunk(Vec::new(), Some(usage)))
    }
}
