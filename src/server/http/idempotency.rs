//! How a request that comes twice is known again: by its key, or, for SDKs that repeat without one, by its retry count.

use std::time::Instant;

use axum::{
    Json,
    extract::FromRequestParts,
    http::{HeaderValue, request::Parts},
    response::{IntoResponse, Response},
};
use finetuned_store::{Caller, Created, Idempotency};
use serde::Serialize;

use super::error::{ApiError, Code};

const MAX_KEY_CHARACTERS: usize = 255;

/// What the head of a request says about repetition.
pub struct Repetition {
    client_key: Option<String>,
    retry_count: u32,
    received: Instant,
}

impl<S: Send + Sync> FromRequestParts<S> for Repetition {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        let received = Instant::now();
        let client_key = parts.headers.get("idempotency-key").map(client_key).transpose()?;
        // Whatever else an SDK puts there is no count of ours to judge.
        let retry_count =
            parts.headers.get("x-stainless-retry-count").and_then(|value| value.to_str().ok()?.parse().ok());
        Ok(Self { client_key, retry_count: retry_count.unwrap_or(0), received })
    }
}

fn client_key(value: &HeaderValue) -> Result<String, ApiError> {
    let text = value.to_str().unwrap_or_default().trim();
    if text.is_empty() || text.len() > MAX_KEY_CHARACTERS {
        let message = format!("`Idempotency-Key` must be 1 to {MAX_KEY_CHARACTERS} visible ASCII characters");
        return Err(ApiError::new(Code::InvalidValue, message).param("idempotency-key"));
    }
    Ok(text.to_owned())
}

impl Repetition {
    /// With what only the read body tells.
    pub fn of(self, caller: &Caller, route: &'static str, fingerprint: [u8; 32]) -> Idempotency {
        let Self { client_key, retry_count, received } = self;
        Idempotency { caller: caller.key, route, client_key, retry_count, fingerprint, received }
    }
}

/// The answer to a request that creates, worded by `wire`; marked where an earlier request brought it about.
pub fn answer_created<T, W: Serialize>(created: Created<T>, wire: impl FnOnce(T) -> W) -> Response {
    let replayed = !created.is_new();
    let mut response = Json(wire(created.into_inner())).into_response();
    if replayed {
        response.headers_mut().insert("idempotent-replayed", HeaderValue::from_static("true"));
    }
    response
}
