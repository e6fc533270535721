//! Who calls: a key in `Authorization: Bearer` or `api-key`, or the tenant `default` while there is no key at all.

use std::net::IpAddr;

use axum::{
    extract::{FromRequestParts, Request, State},
    http::{HeaderMap, header, request::Parts},
    middleware::Next,
    response::Response,
};
use finetuned_protocol::ids::ProjectId;
use finetuned_store::{Caller, StoreError};
use secrecy::SecretString;

use super::error::{ApiError, Code};
use crate::state::App;

/// The layer around everything that belongs to a tenant.
pub async fn require_caller(State(app): State<App>, mut request: Request, next: Next) -> Result<Response, ApiError> {
    let caller = identify(&app, request.headers()).await?;
    let caller = within(&app, caller, request.headers()).await?;
    check_rate(&app, &caller)?;
    request.extensions_mut().insert(caller);
    Ok(next.run(request).await)
}

/// The caller in the organisation and the project that the headers of the wire format name, where they do.
async fn within(app: &App, caller: Caller, headers: &HeaderMap) -> Result<Caller, ApiError> {
    let named = |name| headers.get(name).map(|value| value.to_str().unwrap_or_default().trim());
    if let Some(organization) = named("openai-organization").filter(|name| !name.is_empty())
        && organization != caller.organization.to_string()
    {
        let message = format!(
            "`OpenAI-Organization` names `{organization}`, and the key is of `{}`; leave the header out, which clients take \
             from OPENAI_ORG_ID",
            caller.organization
        );
        return Err(ApiError::invalid("openai-organization", message));
    }
    let Some(project) = named("openai-project").filter(|name| !name.is_empty()) else { return Ok(caller) };
    let unknown = || {
        let message = format!(
            "`OpenAI-Project` names `{project}`, for which this key cannot act; leave the header out, which clients take \
             from OPENAI_PROJECT_ID, or take an id from GET /v1/organization/projects"
        );
        ApiError::invalid("openai-project", message)
    };
    let id: ProjectId = project.parse().map_err(|_| unknown())?;
    app.store.act_for(caller, id).await.map_err(|error| match error {
        StoreError::NotFound { .. } => unknown(),
        error => error.into(),
    })
}

/// Refuses a tenant that asks more often than the operator lets it.
fn check_rate(app: &App, caller: &Caller) -> Result<(), ApiError> {
    let Some(limit) = caller.requests_per_second else { return Ok(()) };
    app.rates.take(caller.tenant, limit).map_err(|wait| {
        let seconds = wait.as_secs_f64();
        let message = format!("more than {limit} requests a second; ask again in {seconds:.2} s, and less often");
        ApiError::new(Code::RateLimitExceeded, message)
    })
}

async fn identify(app: &App, headers: &HeaderMap) -> Result<Caller, ApiError> {
    let given = secret(headers)?;
    if let Some(secret) = &given
        && let Some(caller) = app.store.authenticate(secret).await?
    {
        return Ok(caller);
    }
    // SDKs refuse to start without a key, so that while the database holds none, any text will do.
    if app.options.allows_anonymous() && !app.store.any_key_exists().await? {
        refuse_foreign_pages(headers)?;
        return Ok(app.store.default_caller().await?);
    }
    let message = match given {
        Some(_) => "the API key is wrong, has expired or was revoked",
        None => "an API key is needed: send `Authorization: Bearer KEY`; `finetuned keys create` makes one",
    };
    Err(ApiError::new(Code::InvalidApiKey, message))
}

/// A service without keys trusts whoever reaches loopback, and a browser reaches it for any page that it shows. Such a
/// page gives itself away by where it came from, or by the name it calls us.
fn refuse_foreign_pages(headers: &HeaderMap) -> Result<(), ApiError> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let host = text("host").unwrap_or("localhost");
    let name = host.rsplit_once(':').map_or(host, |(name, port)| if port.ends_with(']') { host } else { name });
    let is_loopback = name.eq_ignore_ascii_case("localhost")
        || name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    if is_loopback && !matches!(text("sec-fetch-site"), Some("cross-site" | "same-site")) {
        return Ok(());
    }
    let message = "without API keys only requests to localhost are served, and none from another site's page; \
                   `finetuned keys create` makes a key";
    Err(ApiError::new(Code::InvalidApiKey, message))
}

fn secret(headers: &HeaderMap) -> Result<Option<SecretString>, ApiError> {
    let text = |name| match headers.get(name).map(|value| value.to_str()) {
        None => Ok(None),
        Some(Ok(text)) => Ok(Some(text)),
        Some(Err(_)) => Err(ApiError::new(Code::InvalidApiKey, "the API key has characters that no key has")),
    };
    if let Some(authorization) = text(header::AUTHORIZATION.as_str())? {
        let (scheme, key) = authorization.split_once(' ').unwrap_or((authorization, ""));
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(ApiError::new(Code::InvalidApiKey, "the `Authorization` header must be `Bearer KEY`"));
        }
        return Ok(Some(SecretString::from(key.trim())));
    }
    Ok(text("api-key")?.map(SecretString::from))
}

/// The tenant of the request, put there by [`require_caller`].
pub struct Authenticated(pub Caller);

impl<S: Send + Sync> FromRequestParts<S> for Authenticated {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        let caller = parts.extensions.get::<Caller>().cloned();
        caller.map(Self).ok_or_else(|| ApiError::internal("a route outside of authentication asks who calls"))
    }
}
