//! What a webhook endpoint can be told of.

use serde::Serialize;

use crate::{ids::WebhookEventId, status::named_enum};

named_enum!(
    /// A kind of event, under OpenAI's name.
    WebhookEventType, "webhook event type" {
        JobSucceeded = "fine_tuning.job.succeeded",
        JobFailed = "fine_tuning.job.failed",
        JobCancelled = "fine_tuning.job.cancelled",
    }
);

impl WebhookEventType {
    /// An id of the kind of object that such an event names; nobody's.
    pub fn example_object(self) -> &'static str {
        match self {
            Self::JobSucceeded | Self::JobFailed | Self::JobCancelled => "ftjob-00000000000000000000000000000000",
        }
    }
}

named_enum!(
    /// Where the delivery of an event to an endpoint stands.
    DeliveryState, "delivery state" {
        /// It is sent now, or will be again.
        Pending = "pending",
        /// The endpoint answered with 2xx.
        Delivered = "delivered",
        /// No attempt within a day was answered with 2xx, or the endpoint said 410.
        Failed = "failed",
    }
);

/// What an endpoint receives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WebhookPayload {
    /// The same at every attempt, by which a receiver knows an event again.
    pub id: WebhookEventId,
    /// Always `event`.
    pub object: &'static str,
    /// Unix seconds.
    pub created_at: i64,
    #[serde(rename = "type")]
    pub kind: WebhookEventType,
    pub data: WebhookData,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WebhookData {
    /// The object that the event is about.
    pub id: String,
}

impl WebhookPayload {
    pub fn new(id: WebhookEventId, created_at: i64, kind: WebhookEventType, object: String) -> Self {
        Self { id, object: "event", created_at, kind, data: WebhookData { id: object } }
    }
}
