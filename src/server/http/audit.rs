//! A line in the audit log before each request that may change something, completed after it.

use axum::{
    extract::{Request, State},
    http::Method,
    middleware::Next,
    response::Response,
};
use finetuned_store::Caller;

use super::{context::RequestId, error::ApiError};
use crate::state::App;

/// Longest path that is kept; nothing that exists has a longer one.
const MAX_PATH_CHARACTERS: usize = 512;

/// The layer, within authentication. Where the log cannot be written, nothing is changed.
pub async fn audit(State(app): State<App>, request: Request, next: Next) -> Result<Response, ApiError> {
    if matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS) {
        return Ok(next.run(request).await);
    }
    let (Some(caller), Some(RequestId(id))) =
        (request.extensions().get::<Caller>(), request.extensions().get::<RequestId>())
    else {
        return Err(ApiError::internal("a route outside of authentication is audited"));
    };
    let path: String = request.uri().path().chars().take(MAX_PATH_CHARACTERS).collect();
    let entry = app.store.audit_begins(caller, id, request.method().as_str(), &path).await?;
    // A client that leaves drops this future, but not what its request has done by then.
    let completing = Completing { app: app.clone(), entry: Some(entry) };
    let response = next.run(request).await;
    completing.with(response.status().as_u16()).await;
    Ok(response)
}

/// What nginx writes for a client that left before the answer.
const CLIENT_LEFT: u16 = 499;

/// Completes the entry even where the request is dropped.
struct Completing {
    app: App,
    entry: Option<finetuned_protocol::ids::AuditId>,
}

impl Completing {
    async fn with(mut self, status: u16) {
        if let Some(entry) = self.entry.take() {
            complete(&self.app, entry, status).await;
        }
    }
}

impl Drop for Completing {
    fn drop(&mut self) {
        if let Some(entry) = self.entry.take() {
            let app = self.app.clone();
            tokio::spawn(async move { complete(&app, entry, CLIENT_LEFT).await });
        }
    }
}

async fn complete(app: &App, entry: finetuned_protocol::ids::AuditId, status: u16) {
    if let Err(error) = app.store.audit_ends(entry, status).await {
        tracing::warn!(%error, %entry, "an audit entry could not be completed");
    }
}
