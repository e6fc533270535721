//! `POST /v1/completions`: texts to go on from, as they are.

use std::collections::BTreeMap;

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use finetuned_protocol::serving::{
    MOST_TOP_LOGPROBS, ServedToken, ServingEvent, ServingLine, ServingPrompt, ServingRequest,
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

/// OpenAI's default of `max_tokens` here.
const MAX_TOKENS: u32 = 16;

/// What to go on from, as OpenAI has it.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CompletionRequest {
    /// A base model, a tuned one, or a checkpoint by its `fine_tuned_model_checkpoint`.
    pub model: String,
    pub prompt: Prompt,
    /// 16 by default.
    pub max_tokens: Option<u32>,
    pub temperature: Option<f64>,
    pub top_p: Option<f64>,
    pub n: Option<u32>,
    pub stop: Option<OneOrMore>,
    pub seed: Option<i64>,
    pub presence_penalty: Option<f64>,
    pub frequency_penalty: Option<f64>,
    pub logit_bias: Option<BTreeMap<String, f64>>,
    /// Tell how likely each token was, and so many of the likeliest beside it.
    pub logprobs: Option<u32>,
    pub stream: Option<bool>,
    pub stream_options: Option<StreamOptions>,
    /// Who asks; changes no answer.
    pub user: Option<String>,
    #[schema(value_type = Option<Object>)]
    pub echo: Option<Value>,
    #[schema(value_type = Option<Object>)]
    pub suffix: Option<Value>,
    #[schema(value_type = Option<Object>)]
    pub best_of: Option<Value>,
}

/// A text, or its token ids.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum Prompt {
    Text(String),
    Ids(Vec<u32>),
    /// Of one text; others want a request of their own.
    Texts(Vec<String>),
}

/// What comes after the prompt.
#[derive(Debug, Serialize, ToSchema)]
pub struct Completion {
    pub id: String,
    /// Always `text_completion`.
    pub object: &'static str,
    pub created: i64,
    pub model: String,
    pub choices: Vec<CompletionChoice>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct CompletionChoice {
    pub index: u64,
    pub text: String,
    pub logprobs: Option<CompletionLogprobs>,
    /// `stop` or `length`.
    pub finish_reason: Option<&'static str>,
}

/// Four lists, a place for each token.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct CompletionLogprobs {
    /// Characters of the answer before each token.
    pub text_offset: Vec<u64>,
    pub token_logprobs: Vec<f64>,
    pub tokens: Vec<String>,
    pub top_logprobs: Vec<BTreeMap<String, f64>>,
}

/// Go on from a text.
#[utoipa::path(
    post, path = "/v1/completions", tag = "chat", request_body = CompletionRequest,
    responses(
        (status = 200, body = Completion, description = "With `stream`, the same in pieces as server-sent events"),
        (status = 400, body = ErrorResponse),
        (status = 404, body = ErrorResponse, description = "No such model"),
        (status = 429, body = ErrorResponse, description = "The device trains and is not shared, or too many wait"),
        (status = 503, body = ErrorResponse, description = "No worker answers"),
    ),
)]
pub async fn create_completion(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    JsonBody(request): JsonBody<CompletionRequest>,
) -> Result<Response, ApiError> {
    check(&request)?;
    let choices = choices(request.n)?;
    let streams = request.stream.unwrap_or(false);
    let with_usage = request.stream_options.unwrap_or_default().include_usage;
    let with_logprobs = request.logprobs.is_some();
    let model = request.model.clone();
    let drawing = Drawing {
        max_tokens: Some(request.max_tokens.unwrap_or(MAX_TOKENS)),
        temperature: request.temperature,
        top_p: request.top_p,
        seed: request.seed,
        stop: request.stop,
        presence_penalty: request.presence_penalty,
        frequency_penalty: request.frequency_penalty,
        logit_bias: request.logit_bias,
        top_logprobs: request.logprobs,
        json_object: false,
    };
    let (prompt, settings) = (prompt(request.prompt)?, drawing.settings()?);
    let asked = ServingRequest { tenant: caller.tenant, model: model.clone(), prompt, settings, choices };
    let accepted = ask(&app, &asked).await?;
    let head = Completion {
        id: format!("cmpl-{}", Uuid::now_v7().simple()),
        object: "text_completion",
        created: OffsetDateTime::now_utc().unix_timestamp(),
        model,
        choices: Vec::new(),
        usage: None,
    };
    if streams {
        let wording = CompletionWording { head, with_usage, offsets: vec![0; choices as usize] };
        return Ok(sse::stream(accepted, choices, wording, app.closing.clone()));
    }
    let (answers, usage) = collect(accepted, choices).await?;
    let choices = answers.into_iter().zip(0..).map(|(answer, index)| CompletionChoice {
        index,
        text: answer.text,
        logprobs: with_logprobs.then(|| logprobs(answer.tokens, &mut 0)),
        finish_reason: finish_reason(answer.finish_reason),
    });
    Ok(Json(Completion { choices: choices.collect(), usage: Some(usage), ..head }).into_response())
}

fn check(request: &CompletionRequest) -> Result<(), ApiError> {
    let best_of = request.best_of.clone().filter(|best_of| *best_of != request.n.unwrap_or(1));
    refuse(&[
        ("echo", &request.echo, "the prompt is not told again; send false"),
        ("suffix", &request.suffix, "models here go on from a text only"),
        ("best_of", &best_of, "all answers are told; ask for `n`"),
    ])?;
    if request.logprobs.is_some_and(|top| top > MOST_TOP_LOGPROBS) {
        return Err(ApiError::invalid("logprobs", format!("`logprobs` must be at most {MOST_TOP_LOGPROBS}")));
    }
    if request.stream_options.is_some() && request.stream != Some(true) {
        return Err(ApiError::invalid("stream_options", "`stream_options` needs `stream` to be true"));
    }
    Ok(())
}

fn prompt(prompt: Prompt) -> Result<ServingPrompt, ApiError> {
    match prompt {
        Prompt::Text(text) => Ok(ServingPrompt::Text(text)),
        Prompt::Ids(ids) => Ok(ServingPrompt::Ids(ids)),
        Prompt::Texts(mut texts) => match (texts.pop(), texts.is_empty()) {
            (Some(text), true) => Ok(ServingPrompt::Text(text)),
            _ => Err(ApiError::invalid("prompt", "`prompt` must be one text, or its token ids")),
        },
    }
}

/// `offset` is where the first token begins in the answer, and then where the next one would.
fn logprobs(tokens: Vec<ServedToken>, offset: &mut u64) -> CompletionLogprobs {
    let mut lists = CompletionLogprobs::default();
    for ServedToken { text, bytes: _, logprob, top } in tokens {
        lists.text_offset.push(*offset);
        *offset += text.chars().count() as u64;
        lists.tokens.push(text);
        lists.token_logprobs.push(logprob);
        lists.top_logprobs.push(top.into_iter().map(|top| (top.text, top.logprob)).collect());
    }
    lists
}

struct CompletionWording {
    head: Completion,
    with_usage: bool,
    offsets: Vec<u64>,
}

impl CompletionWording {
    fn chunk(&self, choices: Vec<CompletionChoice>, usage: Option<Usage>) -> Completion {
        let Completion { id, object, created, model, .. } = &self.head;
        Completion { id: id.clone(), object, created: *created, model: model.clone(), choices, usage }
    }
}

impl Wording for CompletionWording {
    type Chunk = Completion;

    fn chunks(&mut self, line: ServingLine) -> Vec<Completion> {
        let (text, tokens, reason) = match line.event {
            ServingEvent::Begun { .. } | ServingEvent::Refused(_) => return Vec::new(),
            ServingEvent::Piece { text, tokens } => (text, tokens, None),
            ServingEvent::Ended { finish_reason, .. } => (String::new(), Vec::new(), Some(finish_reason)),
        };
        let offset = self.offsets.get_mut(line.id as usize);
        let logprobs = offset.filter(|_| !tokens.is_empty()).map(|offset| logprobs(tokens, offset));
        let choice = CompletionChoice { index: line.id, text, logprobs, finish_reason: finish_reason(reason) };
        vec![self.chunk(vec![choice], None)]
    }

    fn usage(&mut self, usage: Usage) -> Option<Completion> {
        self.with_usage.then(|| self.chunk(Vec::new(), Some(usage)))
    }
}
