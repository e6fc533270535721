#![allow(clippy::unwrap_used, clippy::expect_used)]
//! Events become deliveries, deliveries are tried for a day, and tenants do not see each other's.

use finetuned_protocol::{
    error::{ErrorCode, JobError},
    ids::{JobId, TenantId, WebhookEndpointId},
    status::TaskKind,
    webhooks::{DeliveryState, WebhookEventType},
};
use secrecy::{ExposeSecret, SecretString};

use super::*;
use crate::{
    Store, StoreError,
    testing::{TestDatabase, fixtures},
};

async fn fresh() -> (Store, TenantId) {
    let store = TestDatabase::create().await.unwrap().store;
    let tenant = fixtures::tenant(&store, "acme").await.unwrap();
    (store, tenant)
}

async fn endpoint(store: &Store, tenant: TenantId, event_types: &[WebhookEventType]) -> WebhookEndpoint {
    let new = NewWebhookEndpoint {
        name: "ci".into(),
        url: "https://example.com/hook".into(),
        event_types: event_types.to_vec(),
        secret: SecretString::from("whsec_abcd"),
    };
    store.create_webhook_endpoint(tenant, &new).await.unwrap()
}

async fn cancelled(store: &Store, tenant: TenantId) -> JobId {
    let job = fixtures::job(store, tenant).await.unwrap();
    store.cancel_job(tenant, job.id).await.unwrap();
    job.id
}

fn answered(status: u16) -> WebhookAttempt {
    WebhookAttempt { outcome: AttemptOutcome::Answered { status }, duration_ms: 12 }
}

fn unanswered() -> WebhookAttempt {
    WebhookAttempt {
        outcome: AttemptOutcome::Unanswered { reason: "no answer came in time".into() },
        duration_ms: 15_000,
    }
}

async fn make_due(store: &Store) {
    sqlx::query("update webhook_deliveries set due_at = now()").execute(store.pool()).await.unwrap();
}

async fn only_delivery(store: &Store, endpoint: &WebhookEndpoint) -> WebhookDelivery {
    let page = store.list_webhook_deliveries(endpoint.tenant, endpoint.id, None, 10).await.unwrap();
    let [delivery] = page.data.try_into().unwrap();
    delivery
}

#[tokio::test]
async fn each_end_of_a_job_is_told_to_those_who_want_it_and_once() {
    let (store, tenant) = fresh().await;
    let other = fixtures::tenant(&store, "globex").await.unwrap();
    let all = endpoint(&store, tenant, WebhookEventType::ALL).await;
    let failures = endpoint(&store, tenant, &[WebhookEventType::JobFailed]).await;
    let theirs = endpoint(&store, other, WebhookEventType::ALL).await;
    let job = cancelled(&store, tenant).await;
    store.cancel_job(tenant, job).await.unwrap();

    let worker = fixtures::worker(&store).await.unwrap();
    let lease = fixtures::training(&store, tenant, &worker).await.unwrap();
    let trained = fixtures::trained(&store, tenant).await.unwrap();
    store.finish_training(&lease.key, &trained).await.unwrap();
    let failed = fixtures::job(&store, tenant).await.unwrap();
    let lease = store.claim(&worker, TaskKind::ALL).await.unwrap().unwrap();
    let error = JobError::new(ErrorCode::InvalidTrainingFile, "no");
    store.fail(&lease.key, error).await.unwrap();

    let told = async |endpoint: &WebhookEndpoint| {
        let page = store.list_webhook_deliveries(endpoint.tenant, endpoint.id, None, 10).await.unwrap();
        page.data.into_iter().map(|delivery| (delivery.event.kind, delivery.event.object)).collect::<Vec<_>>()
    };
    use WebhookEventType::{JobCancelled, JobFailed, JobSucceeded};
    let mut of_all = told(&all).await;
    of_all.reverse();
    assert_eq!(of_all.iter().map(|(kind, _)| *kind).collect::<Vec<_>>(), [JobCancelled, JobSucceeded, JobFailed]);
    assert_eq!(of_all[0].1, job.to_string());
    assert_eq!(told(&failures).await, [(JobFailed, failed.id.to_string())]);
    assert_eq!(told(&theirs).await, []);
    let due = store.claim_webhook_deliveries(10).await.unwrap();
    assert_eq!(due.len(), 4);
    assert_eq!(store.claim_webhook_deliveries(10).await.unwrap().len(), 0, "what is taken is not taken twice");
}

#[tokio::test]
async fn a_delivery_is_tried_eight_times_within_a_day_and_then_failed() {
    let (store, tenant) = fresh().await;
    let endpoint = endpoint(&store, tenant, WebhookEventType::ALL).await;
    cancelled(&store, tenant).await;
    let mut waits = Vec::new();
    for round in 1..=8 {
        make_due(&store).await;
        let [due] = store.claim_webhook_deliveries(10).await.unwrap().try_into().unwrap();
        assert_eq!(due.attempt, round);
        let attempt = if round % 2 == 0 { answered(503) } else { unanswered() };
        assert!(store.record_webhook_attempt(due.id, due.attempt, &attempt).await.unwrap());
        let delivery = only_delivery(&store, &endpoint).await;
        if let Some(next) = delivery.next_attempt_at {
            waits.push((next - delivery.attempts.last().unwrap().ended_at).as_seconds_f64());
        }
    }
    let delivery = only_delivery(&store, &endpoint).await;
    assert_eq!((delivery.state, delivery.attempts.len()), (DeliveryState::Failed, 8));
    assert_eq!(delivery.attempts[1].attempt, answered(503));
    assert_eq!(delivery.attempts[2].attempt, unanswered());
    assert_eq!(waits.len(), 7);
    assert!((4.7..5.3).contains(&waits[0]) && waits.windows(2).all(|pair| pair[0] < pair[1]), "{waits:?}");
    let total: f64 = waits.iter().sum();
    assert!((22.0 * 3600.0..25.0 * 3600.0).contains(&total), "{total}");
    make_due(&store).await;
    assert!(store.claim_webhook_deliveries(10).await.unwrap().is_empty());
}

#[tokio::test]
async fn an_answer_ends_a_delivery_and_a_replay_begins_it_again() {
    let (store, tenant) = fresh().await;
    let endpoint = endpoint(&store, tenant, WebhookEventType::ALL).await;
    cancelled(&store, tenant).await;
    let [due] = store.claim_webhook_deliveries(10).await.unwrap().try_into().unwrap();
    assert!(store.record_webhook_attempt(due.id, due.attempt, &answered(204)).await.unwrap());
    assert_eq!(only_delivery(&store, &endpoint).await.state, DeliveryState::Delivered);
    assert!(!store.record_webhook_attempt(due.id, due.attempt, &answered(500)).await.unwrap(), "it has ended");

    let replayed = store.replay_webhook_delivery(tenant, endpoint.id, due.id).await.unwrap();
    assert_eq!((replayed.state, replayed.event.id), (DeliveryState::Pending, due.event.id));
    let [again] = store.claim_webhook_deliveries(10).await.unwrap().try_into().unwrap();
    assert!(again.attempt > due.attempt);
    let stale = store.record_webhook_attempt(due.id, due.attempt, &answered(200)).await.unwrap();
    assert!(!stale, "an older sender's answer does not count");
    assert!(store.record_webhook_attempt(again.id, again.attempt, &answered(410)).await.unwrap());
    assert_eq!(only_delivery(&store, &endpoint).await.state, DeliveryState::Failed, "gone is gone");
}

#[tokio::test]
async fn endpoints_are_their_tenants_own() {
    let (store, tenant) = fresh().await;
    let other = fixtures::tenant(&store, "globex").await.unwrap();
    let made = endpoint(&store, tenant, WebhookEventType::ALL).await;
    cancelled(&store, tenant).await;
    let delivery = only_delivery(&store, &made).await.id;
    let patch = WebhookEndpointPatch { name: Some("theirs".into()), ..WebhookEndpointPatch::default() };
    let secret = SecretString::from("whsec_new1");
    let is_missing = |error: StoreError| matches!(error, StoreError::NotFound { .. });
    assert!(store.get_webhook_endpoint(other, made.id).await.is_err_and(is_missing));
    assert!(store.update_webhook_endpoint(other, made.id, &patch).await.is_err_and(is_missing));
    assert!(store.rotate_webhook_secret(other, made.id, &secret, true).await.is_err_and(is_missing));
    assert!(store.webhook_target(other, made.id).await.is_err_and(is_missing));
    assert!(store.list_webhook_deliveries(other, made.id, None, 10).await.is_err_and(is_missing));
    assert!(store.replay_webhook_delivery(other, made.id, delivery).await.is_err_and(is_missing));
    assert!(store.delete_webhook_endpoint(other, made.id).await.is_err_and(is_missing));
    assert_eq!(store.get_webhook_endpoint(tenant, made.id).await.unwrap(), made);
    store.delete_webhook_endpoint(tenant, made.id).await.unwrap();
    assert!(store.claim_webhook_deliveries(10).await.unwrap().is_empty(), "its deliveries went with it");
    assert!(store.get_webhook_endpoint(tenant, WebhookEndpointId::generate()).await.is_err_and(is_missing));
}

#[tokio::test]
async fn an_old_secret_signs_along_for_a_day_where_it_is_kept() {
    let (store, tenant) = fresh().await;
    let made = endpoint(&store, tenant, WebhookEventType::ALL).await;
    assert_eq!(made.secret_hint, "abcd");
    let secrets = async || {
        let target = store.webhook_target(tenant, made.id).await.unwrap();
        target.secrets.iter().map(|secret| secret.expose_secret().to_owned()).collect::<Vec<_>>()
    };
    let kept = store.rotate_webhook_secret(tenant, made.id, &"whsec_new1".to_owned().into(), true).await.unwrap();
    assert!(kept.updated_at > made.updated_at && kept.secret_hint == "new1");
    assert_eq!(secrets().await, ["whsec_new1", "whsec_abcd"]);
    let pass = "update webhook_endpoints set previous_until = previous_until - interval '24 hours'";
    sqlx::query(pass).execute(store.pool()).await.unwrap();
    assert_eq!(secrets().await, ["whsec_new1"]);
    store.rotate_webhook_secret(tenant, made.id, &"whsec_new2".to_owned().into(), false).await.unwrap();
    assert_eq!(secrets().await, ["whsec_new2"]);
}

#[tokio::test]
async fn a_change_that_changes_nothing_leaves_the_time_and_lists_have_cursors() {
    let (store, tenant) = fresh().await;
    let first = endpoint(&store, tenant, WebhookEventType::ALL).await;
    let second = endpoint(&store, tenant, WebhookEventType::ALL).await;
    let same = WebhookEndpointPatch { name: Some("ci".into()), ..WebhookEndpointPatch::default() };
    assert_eq!(store.update_webhook_endpoint(tenant, first.id, &same).await.unwrap(), first);
    let page = store.list_webhook_endpoints(tenant, None, 1).await.unwrap();
    assert_eq!((page.data[0].id, page.has_more), (second.id, true));
    let page = store.list_webhook_endpoints(tenant, Some(second.id), 1).await.unwrap();
    assert_eq!((page.data[0].id, page.has_more), (first.id, false));
    let unknown = store.list_webhook_endpoints(tenant, Some(WebhookEndpointId::generate()), 1).await;
    assert!(matches!(unknown, Err(StoreError::NotFound { what: "after" })));
}
