//! Webhook endpoints and the delivery of events to them.

mod deliveries;
mod endpoints;
#[cfg(test)]
mod tests;

use finetuned_protocol::{
    ids::{TenantId, WebhookDeliveryId, WebhookEndpointId, WebhookEventId},
    webhooks::{DeliveryState, WebhookEventType},
};
use secrecy::SecretString;
use time::OffsetDateTime;

/// Where a tenant wants to be told of events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookEndpoint {
    pub id: WebhookEndpointId,
    pub tenant: TenantId,
    pub name: String,
    pub url: String,
    pub event_types: Vec<WebhookEventType>,
    pub created_at: OffsetDateTime,
    pub updated_at: OffsetDateTime,
    /// The last characters of the secret.
    pub secret_hint: String,
}

/// An endpoint to be made.
#[derive(Debug, Clone)]
pub struct NewWebhookEndpoint {
    pub name: String,
    pub url: String,
    pub event_types: Vec<WebhookEventType>,
    pub secret: SecretString,
}

/// What of an endpoint to change.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WebhookEndpointPatch {
    pub name: Option<String>,
    pub url: Option<String>,
    pub event_types: Option<Vec<WebhookEventType>>,
}

/// What a sender needs of an endpoint.
#[derive(Debug, Clone)]
pub struct WebhookTarget {
    pub url: String,
    /// Every one that is in force, the newest first.
    pub secrets: Vec<SecretString>,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookEvent {
    pub id: WebhookEventId,
    pub kind: WebhookEventType,
    /// Id of the object, such as `ftjob-…`.
    pub object: String,
    pub created_at: OffsetDateTime,
}

/// A delivery that this process sends now.
#[derive(Debug, Clone)]
pub struct DueDelivery {
    pub id: WebhookDeliveryId,
    /// Shown again with what became of it.
    pub attempt: i32,
    pub event: WebhookEvent,
    pub target: WebhookTarget,
}

/// What one attempt came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookAttempt {
    pub outcome: AttemptOutcome,
    pub duration_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttemptOutcome {
    Answered {
        status: u16,
    },
    /// In words that say nothing of what lies behind an address.
    Unanswered {
        reason: String,
    },
}

/// A delivery as its owner sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookDelivery {
    pub id: WebhookDeliveryId,
    pub endpoint: WebhookEndpointId,
    pub event: WebhookEvent,
    pub state: DeliveryState,
    pub created_at: OffsetDateTime,
    /// Of a pending one.
    pub next_attempt_at: Option<OffsetDateTime>,
    /// Oldest first.
    pub attempts: Vec<LoggedAttempt>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggedAttempt {
    pub ended_at: OffsetDateTime,
    pub attempt: WebhookAttempt,
}
