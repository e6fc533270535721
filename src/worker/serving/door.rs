//! HTTP for API nodes alone, who prove themselves by a secret that only the database tells.

use std::{convert::Infallible, sync::Arc};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{DefaultBodyLimit, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::post,
};
use finetuned_protocol::serving::{ANSWER_PATH, ServingEvent, ServingLine, ServingRequest};
use futures::stream;
use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;

use super::desk::{Desk, Ticket};

/// A request's body was measured by the API node.
const MOST_BYTES: usize = 16 << 20;

struct Door {
    desk: Arc<Desk>,
    secret: SecretString,
}

pub fn router(desk: Arc<Desk>, secret: SecretString) -> Router {
    let door = Arc::new(Door { desk, secret });
    Router::new().route(ANSWER_PATH, post(answer)).layer(DefaultBodyLimit::max(MOST_BYTES)).with_state(door)
}

/// Answers with lines; the first of them may be a refusal, whose id says nothing.
async fn answer(State(door): State<Arc<Door>>, headers: HeaderMap, body: Bytes) -> Response {
    let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let given = given.strip_prefix("Bearer ").unwrap_or_default();
    if !bool::from(given.as_bytes().ct_eq(door.secret.expose_secret().as_bytes())) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let request: ServingRequest = match serde_json::from_slice(&body) {
        Ok(request) => request,
        // An API node of another version.
        Err(error) => return (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
    };
    match door.desk.take(request).await {
        Ok(ticket) => lines(ticket),
        Err(refusal) => Json(ServingLine { id: 0, event: ServingEvent::Refused(refusal) }).into_response(),
    }
}

/// The answer's lines as they come. Whoever hangs up drops the ticket with the stream.
fn lines(ticket: Ticket) -> Response {
    let lines = stream::unfold(ticket, |mut ticket| async move {
        let line = ticket.lines.recv().await?;
        let mut text = serde_json::to_vec(&line).unwrap_or_default();
        text.push(b'\n');
        Some((Ok::<_, Infallible>(Bytes::from(text)), ticket))
    });
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response()
}
