//! Which scope of a key an operation needs.
//!
//! By rule and not by route, so that a new operation is never open by oversight; the table in `service_tests` says for
//! each one what the rule must come to.

use axum::{
    extract::{MatchedPath, Request},
    http::Method,
    middleware::Next,
    response::Response,
};
use finetuned_protocol::access::Scope;
use finetuned_store::Caller;

use super::error::{ApiError, Code};

/// Where settings that reach beyond one object lie.
const ADMINISTRATION: [&str; 2] = ["/v1/webhook_", "/v1/organization/"];

/// Takes an item for the caller, who is to rate it.
const NEXT_TO_RATE: &str = "/v1/rating_tasks/{rating_task_id}/next";

fn needed(method: &Method, route: &str) -> Scope {
    let administers = ADMINISTRATION.iter().any(|root| route.starts_with(root)) || route.contains("/permissions");
    match *method {
        _ if administers => Scope::Admin,
        Method::GET | Method::HEAD => Scope::Read,
        _ if route.ends_with("/ratings") || route == NEXT_TO_RATE => Scope::Rate,
        _ => Scope::Write,
    }
}

/// The layer, within authentication.
///
/// # Errors
/// A 403 that names the scope.
pub async fn require_scope(request: Request, next: Next) -> Result<Response, ApiError> {
    let caller = request.extensions().get::<Caller>();
    let caller = caller.ok_or_else(|| ApiError::internal("a route outside of authentication asks for a scope"))?;
    check(caller, &request)?;
    Ok(next.run(request).await)
}

/// Refuses a caller whose key was not made for the operation. Says nothing of whether the object exists.
fn check(caller: &Caller, request: &Request) -> Result<(), ApiError> {
    let route = request.extensions().get::<MatchedPath>().map_or("", |path| path.as_str());
    let scope = needed(request.method(), route);
    if caller.scopes.contains(&scope) {
        return Ok(());
    }
    let has: Vec<String> = caller.scopes.iter().map(|scope| format!("`{scope}`")).collect();
    let message = format!(
        "this needs a key with the scope `{scope}`, and yours has {}; `finetuned keys create --scope` makes one",
        has.join(", ")
    );
    Err(ApiError::new(Code::InsufficientScope, message))
}
