//! Who judges, and one question to them.

use std::{sync::Arc, time::Duration};

use finetuned_outbound::{ChatCall, ChatError, ChatTurn, JudgeEndpoint, Outbound};
use finetuned_protocol::{
    generation::GenerationMessage,
    ids::TenantId,
    judge::JudgePlace,
    serving::{Refusal, RefusalKind, ServingEvent, ServingPrompt, ServingRequest, ServingSettings},
};
use finetuned_store::{JudgeReply, StoreError};
use tokio::time::timeout;

use crate::{attempt::Attempt, error::AttemptError, serving::Desk};

/// A verdict is a sentence and a word.
const MOST_TOKENS: u32 = 200;
/// A model of this service may have to be loaded first, and others be answered.
const SERVICE_DEADLINE: Duration = Duration::from_secs(600);

/// Why there is no reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoReply {
    pub why: String,
    /// Whether the same question may be answered in a while, and how long the judge wants to be left alone.
    pub passing: bool,
    pub wait: Option<Duration>,
}

/// One who can be asked.
pub enum Asker {
    Endpoint { outbound: Outbound, endpoint: JudgeEndpoint, model: String },
    Service { desk: Arc<Desk>, tenant: TenantId, model: String, sha256: String },
}

impl Asker {
    /// Whom a job's settings name; or why that one cannot be asked.
    ///
    /// # Errors
    /// The lease is lost, or the store refuses.
    pub async fn of(attempt: &Attempt, place: &JudgePlace) -> Result<Result<Self, String>, AttemptError> {
        match place {
            JudgePlace::Endpoint { url, model } => Ok(Self::endpoint(attempt, url.as_deref(), model.as_deref())),
            JudgePlace::ServiceModel { name } => Self::service(attempt, name).await,
        }
    }

    fn endpoint(attempt: &Attempt, url: Option<&str>, model: Option<&str>) -> Result<Self, String> {
        let options = &attempt.options.judging;
        let endpoint = options.judges.find(url).ok_or("this worker's list of judges does not have it")?.clone();
        let model = model.map(str::to_owned).or_else(|| endpoint.model.clone());
        let model = model.ok_or("neither the job nor the operator's list names the judging model")?;
        Ok(Self::Endpoint { outbound: options.outbound.clone(), endpoint, model })
    }

    async fn service(attempt: &Attempt, name: &str) -> Result<Result<Self, String>, AttemptError> {
        let Some(desk) = attempt.desk.clone() else {
            return Ok(Err("this worker answers no requests to models (`--serving off`)".to_owned()));
        };
        let tenant = attempt.lease.job.tenant;
        let served = attempt.persist("looking up a judge", || attempt.store.served_model(tenant, name)).await;
        match served {
            Ok(served) => {
                let sha256 = served.base.sha256;
                Ok(Ok(Self::Service { desk, tenant, model: name.to_owned(), sha256 }))
            }
            Err(AttemptError::Store { source: StoreError::NotFound { .. } | StoreError::Conflict { .. }, .. }) => {
                Ok(Err(format!("no model is called `{name}`")))
            }
            Err(error) => Err(error),
        }
    }

    /// Name of the model, and the endpoint's URL.
    pub fn names(&self) -> (String, Option<String>) {
        match self {
            Self::Endpoint { endpoint, model, .. } => (model.clone(), Some(endpoint.url.clone())),
            Self::Service { model, .. } => (model.clone(), None),
        }
    }

    /// What tells this judge's replies from another one's.
    pub fn identity(&self) -> String {
        match self {
            Self::Endpoint { endpoint, model, .. } => format!("endpoint {} {model}", endpoint.url),
            Self::Service { model, sha256, .. } => format!("service {model} {sha256}"),
        }
    }

    /// Asks once.
    ///
    /// # Errors
    /// [`NoReply`].
    pub async fn ask(&self, turns: &[ChatTurn], temperature: f64, seed: u64) -> Result<JudgeReply, NoReply> {
        match self {
            Self::Endpoint { outbound, endpoint, model } => {
                let call = ChatCall {
                    url: &endpoint.url,
                    api_key: endpoint.api_key.as_ref(),
                    model,
                    turns,
                    max_tokens: MOST_TOKENS,
                    temperature,
                    seed,
                };
                let reply = call.send(outbound).await.map_err(NoReply::from)?;
                Ok(JudgeReply { text: reply.text, tokens: reply.tokens })
            }
            Self::Service { desk, tenant, model, .. } => {
                let message =
                    |turn: &ChatTurn| GenerationMessage { role: turn.role.to_owned(), content: turn.content.clone() };
                let request = ServingRequest {
                    tenant: *tenant,
                    model: model.clone(),
                    prompt: ServingPrompt::Messages(turns.iter().map(message).collect()),
                    settings: settings(temperature, seed),
                    choices: 1,
                };
                match timeout(SERVICE_DEADLINE, answered(desk, request)).await {
                    Ok(reply) => reply.map_err(NoReply::from),
                    Err(_) => Err(NoReply { why: "no answer came in time".to_owned(), passing: true, wait: None }),
                }
            }
        }
    }
}

fn settings(temperature: f64, seed: u64) -> ServingSettings {
    ServingSettings {
        max_tokens: Some(MOST_TOKENS),
        temperature,
        top_p: 1.0,
        seed,
        stop: Vec::new(),
        presence_penalty: 0.0,
        frequency_penalty: 0.0,
        logit_bias: Default::default(),
        top_logprobs: None,
        json_object: true,
    }
}

async fn answered(desk: &Desk, request: ServingRequest) -> Result<JudgeReply, Refusal> {
    let mut ticket = desk.take(request).await?;
    let mut reply = JudgeReply { text: String::new(), tokens: 0 };
    while let Some(line) = ticket.lines.recv().await {
        match line.event {
            ServingEvent::Begun { prompt_tokens, .. } => reply.tokens += prompt_tokens,
            ServingEvent::Piece { text, .. } => reply.text.push_str(&text),
            ServingEvent::Ended { completion_tokens, .. } => {
                reply.tokens += completion_tokens;
                return Ok(reply);
            }
            ServingEvent::Refused(refusal) => return Err(refusal),
        }
    }
    Err(Refusal::new(RefusalKind::Internal, "the engine ended while it answered"))
}

impl From<ChatError> for NoReply {
    fn from(error: ChatError) -> Self {
        Self { why: error.to_string(), passing: error.is_passing(), wait: error.wait() }
    }
}

impl From<Refusal> for NoReply {
    fn from(refusal: Refusal) -> Self {
        let passing = matches!(refusal.kind, RefusalKind::DeviceBusy | RefusalKind::Overloaded | RefusalKind::Internal);
        Self { why: refusal.message, passing, wait: None }
    }
}
