//! Sending one webhook.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use reqwest::{Method, header::CONTENT_TYPE};
use secrecy::SecretString;

use crate::{Outbound, OutboundError, signature::sign};

/// An endpoint that needs longer should answer first and work afterwards.
const DEADLINE: Duration = Duration::from_secs(15);

/// A signed message to an endpoint.
#[derive(Debug)]
pub struct WebhookMessage<'a> {
    pub url: &'a str,
    /// The event's; a receiver knows a repetition by it.
    pub id: &'a str,
    pub body: String,
    /// Each signs.
    pub secrets: &'a [SecretString],
}

impl WebhookMessage<'_> {
    /// Sends it; gives the status of the answer, whose body is not read.
    ///
    /// # Errors
    /// [`OutboundError`].
    pub async fn send(self, outbound: &Outbound) -> Result<u16, OutboundError> {
        let Self { url, id, body, secrets } = self;
        // Receivers refuse what was signed more than five minutes ago, so each attempt is signed anew.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let timestamp = i64::try_from(now).unwrap_or(i64::MAX);
        let signature = sign(secrets, id, timestamp, &body);
        let answer = outbound
            .request(Method::POST, url, DEADLINE)?
            .header(CONTENT_TYPE, "application/json")
            .header("webhook-id", id)
            .header("webhook-timestamp", timestamp.to_string())
            .header("webhook-signature", signature)
            .body(body)
            .send()
            .await?;
        Ok(answer.status().as_u16())
    }
}
