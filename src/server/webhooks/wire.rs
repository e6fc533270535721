//! Webhook endpoints as clients see and send them.

use finetuned_outbound::Outbound;
use finetuned_protocol::{
    ids::{WebhookDeliveryId, WebhookEndpointId},
    webhooks::{DeliveryState, WebhookEventType, WebhookPayload},
};
use finetuned_store::{AttemptOutcome, LoggedAttempt, WebhookAttempt, WebhookDelivery, WebhookEndpoint};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::http::{error::ApiError, paging::Listed};

const MAX_NAME_CHARACTERS: usize = 256;
const MAX_URL_CHARACTERS: usize = 2048;

/// Where to send which events.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateWebhookEndpoint {
    /// 1 to 256 characters, for people.
    #[schema(min_length = 1, max_length = 256, pattern = "\\S")]
    pub name: String,
    /// An `https://` URL on the public internet, or on a host that the operator's list allows.
    #[schema(format = "uri", pattern = "^https?://")]
    pub url: String,
    /// At least one.
    #[schema(min_items = 1)]
    pub event_types: Vec<WebhookEventType>,
}

/// What of an endpoint to change; what is left out stays.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateWebhookEndpoint {
    pub name: Option<String>,
    pub url: Option<String>,
    /// The whole list.
    pub event_types: Option<Vec<WebhookEventType>>,
}

/// Refuses a name that is empty or too long.
pub fn check_name(name: &str) -> Result<(), ApiError> {
    if name.trim().is_empty() || name.chars().count() > MAX_NAME_CHARACTERS {
        return Err(ApiError::invalid("name", format!("`name` must have 1 to {MAX_NAME_CHARACTERS} characters")));
    }
    Ok(())
}

/// Refuses a URL that no delivery could ever reach.
pub fn check_url(outbound: &Outbound, url: &str) -> Result<(), ApiError> {
    if url.len() > MAX_URL_CHARACTERS {
        return Err(ApiError::invalid("url", format!("`url` must have at most {MAX_URL_CHARACTERS} characters")));
    }
    outbound.check(url).map(drop).map_err(|error| ApiError::invalid("url", format!("`url` cannot be called: {error}")))
}

/// The event types, each once, in the order of the documentation.
pub fn checked_types(given: &[WebhookEventType]) -> Result<Vec<WebhookEventType>, ApiError> {
    let types: Vec<WebhookEventType> =
        WebhookEventType::ALL.iter().copied().filter(|kind| given.contains(kind)).collect();
    if types.is_empty() {
        return Err(ApiError::invalid("event_types", "`event_types` must name at least one event type"));
    }
    Ok(types)
}

/// An endpoint.
#[derive(Debug, Serialize, ToSchema)]
pub struct WebhookEndpointObject {
    #[schema(value_type = String)]
    pub id: WebhookEndpointId,
    /// Always `webhook_endpoint`.
    pub object: &'static str,
    pub name: String,
    pub url: String,
    pub event_types: Vec<WebhookEventType>,
    pub created_at: i64,
    pub updated_at: i64,
    /// The end of the signing secret.
    pub signing_secret_hint: String,
    /// Shown when it is made and never again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signing_secret: Option<String>,
}

impl From<WebhookEndpoint> for WebhookEndpointObject {
    fn from(endpoint: WebhookEndpoint) -> Self {
        let WebhookEndpoint { id, tenant: _, name, url, event_types, created_at, updated_at, secret_hint } = endpoint;
        Self {
            id,
            object: "webhook_endpoint",
            name,
            url,
            event_types,
            created_at: created_at.unix_timestamp(),
            updated_at: updated_at.unix_timestamp(),
            signing_secret_hint: format!("whsec_...{secret_hint}"),
            signing_secret: None,
        }
    }
}

impl Listed for WebhookEndpointObject {
    fn id(&self) -> String {
        self.id.to_string()
    }
}

#[derive(Debug, Serialize, ToSchema)]
pub struct WebhookEndpointDeleted {
    #[schema(value_type = String)]
    pub id: WebhookEndpointId,
    /// Always `webhook_endpoint.deleted`.
    pub object: &'static str,
    pub deleted: bool,
}

/// The event types there are.
#[derive(Debug, Serialize, ToSchema)]
pub struct WebhookEventTypeList {
    /// Always `list`.
    pub object: &'static str,
    pub data: &'static [WebhookEventType],
}

#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RotateWebhookSecret {
    /// Let the old secret sign beside the new one for 24 hours; without it the old one ends at once.
    #[serde(default)]
    pub keep_old_secret_active_for_24_hours: bool,
}

#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TestWebhookEndpoint {
    pub event_type: WebhookEventType,
}

/// What an endpoint answered to a test.
#[derive(Debug, Serialize, ToSchema)]
pub struct WebhookEndpointTested {
    /// Always `webhook_endpoint.test`.
    pub object: &'static str,
    #[schema(value_type = String)]
    pub webhook_endpoint_id: WebhookEndpointId,
    pub event_type: WebhookEventType,
    /// The endpoint's.
    pub status_code: u16,
    /// Always true: an answer came. `status_code` tells which.
    pub success: bool,
}

/// The delivery of one event to one endpoint.
#[derive(Debug, Serialize, ToSchema)]
pub struct WebhookDeliveryObject {
    #[schema(value_type = String)]
    pub id: WebhookDeliveryId,
    /// Always `webhook_endpoint.delivery`.
    pub object: &'static str,
    #[schema(value_type = String)]
    pub webhook_endpoint_id: WebhookEndpointId,
    pub created_at: i64,
    pub status: DeliveryState,
    /// When a pending one is sent next.
    pub next_attempt_at: Option<i64>,
    /// As it is sent.
    #[schema(value_type = Object)]
    pub event: WebhookPayload,
    /// Oldest first.
    pub attempts: Vec<WebhookAttemptObject>,
}

/// One attempt: a status or an error.
#[derive(Debug, Serialize, ToSchema)]
pub struct WebhookAttemptObject {
    pub ended_at: i64,
    pub duration_ms: u64,
    pub status_code: Option<u16>,
    pub error: Option<String>,
}

impl From<WebhookDelivery> for WebhookDeliveryObject {
    fn from(delivery: WebhookDelivery) -> Self {
        let WebhookDelivery { id, endpoint, event, state, created_at, next_attempt_at, attempts } = delivery;
        Self {
            id,
            object: "webhook_endpoint.delivery",
            webhook_endpoint_id: endpoint,
            created_at: created_at.unix_timestamp(),
            status: state,
            next_attempt_at: next_attempt_at.map(|time| time.unix_timestamp()),
            event: WebhookPayload::new(event.id, event.created_at.unix_timestamp(), event.kind, event.object),
            attempts: attempts.into_iter().map(WebhookAttemptObject::from).collect(),
        }
    }
}

impl From<LoggedAttempt> for WebhookAttemptObject {
    fn from(logged: LoggedAttempt) -> Self {
        let LoggedAttempt { ended_at, attempt: WebhookAttempt { outcome, duration_ms } } = logged;
        let (status_code, error) = match outcome {
            AttemptOutcome::Answered { status } => (Some(status), None),
            AttemptOutcome::Unanswered { reason } => (None, Some(reason)),
        };
        Self { ended_at: ended_at.unix_timestamp(), duration_ms, status_code, error }
    }
}

impl Listed for WebhookDeliveryObject {
    fn id(&self) -> String {
        self.id.to_string()
    }
}
