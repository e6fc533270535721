//! One call of an OpenAI-compatible `/chat/completions`.

use std::time::Duration;

use reqwest::{Method, StatusCode, header::RETRY_AFTER};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use crate::{Outbound, OutboundError};

/// A large model on a busy host may take so long.
const DEADLINE: Duration = Duration::from_secs(120);
/// A reply is a sentence; what is longer is none.
const MOST_BYTES: usize = 1 << 20;

/// One turn of a chat.
#[derive(Debug, Clone, Serialize)]
pub struct ChatTurn {
    pub role: &'static str,
    pub content: String,
}

/// What is asked. The reply is to be one JSON object.
#[derive(Debug, Clone)]
pub struct ChatCall<'a> {
    /// Base URL of the API.
    pub url: &'a str,
    pub api_key: Option<&'a SecretString>,
    pub model: &'a str,
    pub turns: &'a [ChatTurn],
    pub max_tokens: u32,
    pub temperature: f64,
    pub seed: u64,
}

/// A reply, with what it took as the API counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChatReply {
    pub text: String,
    pub tokens: u64,
}

/// Why there is no reply. The words hold nothing of the call and nothing that the API said.
#[derive(Debug, thiserror::Error)]
pub enum ChatError {
    #[error(transparent)]
    Outbound(#[from] OutboundError),
    #[error("the API answered with status {0}")]
    Status(u16, Option<Duration>),
    #[error("the API's answer is no chat completion")]
    Unreadable,
}

impl ChatError {
    /// Whether the same call may do better in a while.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Outbound(error) => {
                matches!(error, OutboundError::Timeout | OutboundError::Connect(_) | OutboundError::Broken(_))
            }
            Self::Status(status, _) => matches!(status, 408 | 409 | 429 | 500..),
            Self::Unreadable => false,
        }
    }

    /// When the API wants to be asked again.
    pub fn wait(&self) -> Option<Duration> {
        match self {
            Self::Status(_, wait) => *wait,
            _ => None,
        }
    }
}

#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    messages: &'a [ChatTurn],
    max_tokens: u32,
    temperature: f64,
    seed: u64,
    response_format: Format,
}

#[derive(Serialize)]
struct Format {
    r#type: &'static str,
}

#[derive(Deserialize)]
struct Completion {
    choices: Vec<Choice>,
    #[serde(default)]
    usage: Option<Usage>,
}

#[derive(Deserialize)]
struct Choice {
    message: Message,
}

#[derive(Deserialize)]
struct Message {
    #[serde(default)]
    content: Option<String>,
}

#[derive(Deserialize)]
struct Usage {
    #[serde(default)]
    total_tokens: u64,
}

impl ChatCall<'_> {
    /// Asks once.
    ///
    /// # Errors
    /// [`ChatError`].
    pub async fn send(&self, outbound: &Outbound) -> Result<ChatReply, ChatError> {
        let url = format!("{}/chat/completions", self.url.trim_end_matches('/'));
        let mut request = outbound.request(Method::POST, &url, DEADLINE)?.json(&Body {
            model: self.model,
            messages: self.turns,
            max_tokens: self.max_tokens,
            temperature: self.temperature,
            seed: self.seed,
            response_format: Format { r#type: "json_object" },
        });
        if let Some(key) = self.api_key {
            request = request.bearer_auth(key.expose_secret());
        }
        let mut response = request.send().await.map_err(OutboundError::from)?;
        let status = response.status();
        if status != StatusCode::OK {
            let seconds = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
            return Err(ChatError::Status(status.as_u16(), seconds.map(Duration::from_secs)));
        }
        let mut bytes = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(OutboundError::from)? {
            if bytes.len() + piece.len() > MOST_BYTES {
                return Err(ChatError::Unreadable);
            }
            bytes.extend_from_slice(&piece);
        }
        let completion: Completion = serde_json::from_slice(&bytes).map_err(|_| ChatError::Unreadable)?;
        let choice = completion.choices.into_iter().next().ok_or(ChatError::Unreadable)?;
        let tokens = completion.usage.map_or(0, |usage| usage.total_tokens);
        Ok(ChatReply { text: choice.message.content.unwrap_or_default(), tokens })
    }
}

#[cfg(test)]
#[path = "chat_tests.rs"]
mod tests;
