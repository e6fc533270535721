//! Sending webhooks. Each process of a service may: a delivery is taken by one at a time.

use std::time::Duration;

use finetuned_outbound::{Outbound, OutboundError, WebhookMessage};
use finetuned_protocol::webhooks::WebhookPayload;
use finetuned_store::{AttemptOutcome, DueDelivery, Store, WebhookAttempt};
use futures::{StreamExt, stream};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// Between two looks for deliveries, where no wake-up came.
const POLL: Duration = Duration::from_secs(2);
/// Deliveries sent at once. A slow endpoint takes one place for as long as an attempt may last.
const AT_ONCE: usize = 16;

/// Sends what is due until `shutdown`. What was under way then is sent again later: an endpoint may see an event twice,
/// under the same id.
pub async fn deliver(store: Store, outbound: Outbound, shutdown: CancellationToken) {
    let mut wakeups = store.listen();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = send_due(&store, &outbound) => {}
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = wakeups.next() => {}
            () = sleep(POLL) => {}
        }
    }
}

async fn send_due(store: &Store, outbound: &Outbound) {
    loop {
        let due = match store.claim_webhook_deliveries(AT_ONCE as u32).await {
            Ok(due) if due.is_empty() => return,
            Ok(due) => due,
            Err(error) if error.is_unavailable() => {
                tracing::debug!(%error, "no webhook deliveries");
                return;
            }
            Err(error) => {
                tracing::error!(%error, "webhook deliveries were refused");
                return;
            }
        };
        stream::iter(due).for_each_concurrent(AT_ONCE, |delivery| send(store, outbound, delivery)).await;
    }
}

async fn send(store: &Store, outbound: &Outbound, delivery: DueDelivery) {
    let DueDelivery { id, attempt, event, target } = delivery;
    let started = Instant::now();
    let event_id = event.id.to_string();
    let payload = WebhookPayload::new(event.id, event.created_at.unix_timestamp(), event.kind, event.object);
    let outcome = match serde_json::to_string(&payload) {
        Ok(body) => {
            let message = WebhookMessage { url: &target.url, id: &event_id, body, secrets: &target.secrets };
            message.send(outbound).await
        }
        Err(error) => {
            tracing::error!(%error, "a webhook's body could not be written");
            return;
        }
    };
    let duration_ms = started.elapsed().as_millis() as u64;
    let what = WebhookAttempt { outcome: outcome_of(outcome), duration_ms };
    tracing::info!(delivery = %id, event = %event_id, attempt, outcome = ?what.outcome, duration_ms, "webhook.attempted");
    // An answer that cannot be written is as if it had not come: the delivery is sent again.
    if let Err(error) = store.record_webhook_attempt(id, attempt, &what).await {
        tracing::warn!(%error, delivery = %id, "a webhook attempt could not be written");
    }
}

fn outcome_of(answer: Result<u16, OutboundError>) -> AttemptOutcome {
    match answer {
        Ok(status) => AttemptOutcome::Answered { status },
        Err(error) => AttemptOutcome::Unanswered { reason: error.to_string() },
    }
}
