//! Taking deliveries that are due, writing what became of them, and their log.

use std::collections::HashMap;

use finetuned_protocol::ids::{TenantId, WebhookDeliveryId, WebhookEndpointId, WebhookEventId};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    AttemptOutcome, DueDelivery, LoggedAttempt, WebhookAttempt, WebhookDelivery, WebhookEvent, endpoints::target,
};
use crate::{
    Page, Store, StoreError,
    convert::{big, count, named},
};

/// Seconds between an attempt and the next: eight attempts within a day.
const DELAYS_SECONDS: [f64; 7] = [5.0, 300.0, 1800.0, 7200.0, 18_000.0, 25_200.0, 32_400.0];
/// A sender that says nothing for so long is dead, and its deliveries are sent again. Well above an attempt's deadline.
const CLAIM_SECONDS: f64 = 120.0;
/// For so long the log of deliveries is kept.
const KEPT_DAYS: i32 = 30;
/// The answer of an endpoint that is gone for good (Standard Webhooks).
const GONE: i32 = 410;

impl Store {
    /// Takes up to `limit` deliveries that are due; each must be answered with [`Self::record_webhook_attempt`].
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn claim_webhook_deliveries(&self, limit: u32) -> Result<Vec<DueDelivery>, StoreError> {
        self.call("taking webhook deliveries", async {
            let rows = sqlx::query!(
                r#"with due as (
                       select id from webhook_deliveries
                       where state = 'pending' and due_at <= now()
                       order by due_at
                       limit $1
                       for update skip locked
                   ),
                   taken as (
                       update webhook_deliveries d
                       set attempts = attempts + 1, tries = tries + 1, due_at = now() + make_interval(secs => $2)
                       from due where d.id = due.id
                       returning d.id, d.attempts, d.endpoint_id, d.event_id
                   )
                   select t.id, t.attempts, v.id as event_id, v.type as kind, v.object_id, v.created_at, e.url, e.secret,
                          case when e.previous_until > now() then e.previous_secret end as previous
                   from taken t
                   join webhook_events v on v.id = t.event_id
                   join webhook_endpoints e on e.id = t.endpoint_id"#,
                i64::from(limit),
                CLAIM_SECONDS,
            )
            .fetch_all(self.pool())
            .await?;
            let due = rows.into_iter().map(|row| {
                let event = EventColumns(row.event_id, row.kind, row.object_id, row.created_at).read()?;
                let target = target(row.url, row.secret, row.previous);
                Ok(DueDelivery { id: WebhookDeliveryId(row.id), attempt: row.attempts, event, target })
            });
            due.collect()
        })
        .await
    }

    /// Writes what an attempt came to, and when the next one is due. `false` where the delivery was taken anew or
    /// replayed meanwhile: then nothing is written.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn record_webhook_attempt(
        &self,
        delivery: WebhookDeliveryId,
        attempt: i32,
        what: &WebhookAttempt,
    ) -> Result<bool, StoreError> {
        let (status, reason) = match &what.outcome {
            AttemptOutcome::Answered { status } => (Some(i32::from(*status)), None),
            AttemptOutcome::Unanswered { reason } => (None, Some(reason.as_str())),
        };
        self.call("writing a webhook attempt", async {
            let written = sqlx::query!(
                "with judged as (
                     select id,
                            case when $3 between 200 and 299 then 'delivered'
                                 when $3 = $7 or tries > cardinality($6::float8[]) then 'failed'
                                 else 'pending' end as state
                     from webhook_deliveries
                     where id = $1 and attempts = $2 and state = 'pending'
                     for update
                 ),
                 noted as (
                     update webhook_deliveries d
                     set state = j.state,
                         finished_at = case when j.state <> 'pending' then now() end,
                         -- A little scattered, so that what failed together does not come together again.
                         due_at = now() + make_interval(secs => coalesce(($6::float8[])[d.tries], 0) * (0.95 + 0.1 * random()))
                     from judged j where d.id = j.id
                     returning d.id, d.tenant_id
                 )
                 insert into webhook_attempts (delivery_id, attempt, tenant_id, status_code, error, duration_ms)
                 select id, $2, tenant_id, $3, $4, $5 from noted",
                delivery.0,
                attempt,
                status,
                reason,
                big(what.duration_ms),
                &DELAYS_SECONDS,
                GONE,
            )
            .execute(self.pool())
            .await?;
            Ok(written.rows_affected() == 1)
        })
        .await
    }

    /// A page of an endpoint's deliveries with their attempts, newest first.
    ///
    /// # Errors
    /// `NotFound` with `what` one of `webhook endpoint`, `after`.
    pub async fn list_webhook_deliveries(
        &self,
        tenant: TenantId,
        endpoint: WebhookEndpointId,
        after: Option<WebhookDeliveryId>,
        limit: u32,
    ) -> Result<Page<WebhookDelivery>, StoreError> {
        self.call("listing webhook deliveries", async {
            self.get_webhook_endpoint(tenant, endpoint).await?;
            if let Some(after) = after {
                self.get_webhook_delivery(tenant, endpoint, after).await.map_err(|error| match error {
                    StoreError::NotFound { .. } => StoreError::NotFound { what: "after" },
                    error => error,
                })?;
            }
            let rows = sqlx::query_as!(
                DeliveryRow,
                r#"select d.id, d.endpoint_id, d.state, d.created_at, d.due_at, v.id as event_id, v.type as kind,
                          v.object_id, v.created_at as event_created_at
                   from webhook_deliveries d join webhook_events v on v.id = d.event_id
                   where d.tenant_id = $1 and d.endpoint_id = $2
                     and ($3::uuid is null
                          or (d.created_at, d.id) < (select a.created_at, a.id from webhook_deliveries a where a.id = $3))
                   order by d.created_at desc, d.id desc
                   limit $4"#,
                tenant.0,
                endpoint.0,
                after.map(|id| id.0),
                i64::from(limit) + 1,
            );
            let rows = rows.fetch_all(self.pool()).await?;
            Ok(Page::cut(self.with_attempts(rows).await?, limit))
        })
        .await
    }

    /// One delivery of an endpoint.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn get_webhook_delivery(
        &self,
        tenant: TenantId,
        endpoint: WebhookEndpointId,
        delivery: WebhookDeliveryId,
    ) -> Result<WebhookDelivery, StoreError> {
        self.call("reading a webhook delivery", async {
            let row = sqlx::query_as!(
                DeliveryRow,
                r#"select d.id, d.endpoint_id, d.state, d.created_at, d.due_at, v.id as event_id, v.type as kind,
                          v.object_id, v.created_at as event_created_at
                   from webhook_deliveries d join webhook_events v on v.id = d.event_id
                   where d.tenant_id = $1 and d.endpoint_id = $2 and d.id = $3"#,
                tenant.0,
                endpoint.0,
                delivery.0,
            );
            let row = row.fetch_optional(self.pool()).await?;
            let found = self.with_attempts(row.into_iter().collect()).await?;
            found.into_iter().next().ok_or(StoreError::NotFound { what: "webhook delivery" })
        })
        .await
    }

    /// Sends a delivery again, at once and with all its attempts anew; under the same event id, by which a receiver
    /// knows it.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn replay_webhook_delivery(
        &self,
        tenant: TenantId,
        endpoint: WebhookEndpointId,
        delivery: WebhookDeliveryId,
    ) -> Result<WebhookDelivery, StoreError> {
        self.call("replaying a webhook delivery", async {
            sqlx::query!(
                // The count rises, so that an attempt under way cannot end the new round.
                "update webhook_deliveries
                 set state = 'pending', finished_at = null, due_at = now(), tries = 0, attempts = attempts + 1
                 where id = $1 and endpoint_id = $2 and tenant_id = $3",
                delivery.0,
                endpoint.0,
                tenant.0,
            )
            .execute(self.pool())
            .await?;
            self.get_webhook_delivery(tenant, endpoint, delivery).await
        })
        .await
    }

    /// Forgets events, and with them their deliveries, that are older than the log is kept.
    pub(crate) async fn forget_webhook_events(&self) -> Result<(), StoreError> {
        self.call("forgetting old webhook events", async {
            sqlx::query!("delete from webhook_events where created_at < now() - make_interval(days => $1)", KEPT_DAYS)
                .execute(self.pool())
                .await?;
            Ok(())
        })
        .await
    }

    async fn with_attempts(&self, rows: Vec<DeliveryRow>) -> Result<Vec<WebhookDelivery>, StoreError> {
        let ids: Vec<Uuid> = rows.iter().map(|row| row.id).collect();
        let logged = sqlx::query!(
            "select delivery_id, ended_at, status_code, error, duration_ms from webhook_attempts
             where delivery_id = any($1) order by attempt",
            &ids,
        );
        let mut attempts: HashMap<Uuid, Vec<LoggedAttempt>> = HashMap::new();
        for row in logged.fetch_all(self.pool()).await? {
            let outcome = match row.status_code.and_then(|code| u16::try_from(code).ok()) {
                Some(status) => AttemptOutcome::Answered { status },
                None => AttemptOutcome::Unanswered { reason: row.error.unwrap_or_default() },
            };
            let attempt = WebhookAttempt { outcome, duration_ms: count(row.duration_ms) };
            attempts.entry(row.delivery_id).or_default().push(LoggedAttempt { ended_at: row.ended_at, attempt });
        }
        let deliveries = rows.into_iter().map(|row| {
            let attempts = attempts.remove(&row.id).unwrap_or_default();
            row.read(attempts)
        });
        deliveries.collect()
    }
}

struct EventColumns(Uuid, String, String, OffsetDateTime);

impl EventColumns {
    fn read(self) -> Result<WebhookEvent, StoreError> {
        let Self(id, kind, object, created_at) = self;
        let kind = named("a webhook event's type", &kind)?;
        Ok(WebhookEvent { id: WebhookEventId(id), kind, object, created_at })
    }
}

struct DeliveryRow {
    id: Uuid,
    endpoint_id: Uuid,
    state: String,
    created_at: OffsetDateTime,
    due_at: OffsetDateTime,
    event_id: Uuid,
    kind: String,
    object_id: String,
    event_created_at: OffsetDateTime,
}

impl DeliveryRow {
    fn read(self, attempts: Vec<LoggedAttempt>) -> Result<WebhookDelivery, StoreError> {
        let event = EventColumns(self.event_id, self.kind, self.object_id, self.event_created_at).read()?;
        let is_pending = self.state == "pending";
        Ok(WebhookDelivery {
            id: WebhookDeliveryId(self.id),
            endpoint: WebhookEndpointId(self.endpoint_id),
            event,
            state: named("a delivery's state", &self.state)?,
            created_at: self.created_at,
            next_attempt_at: is_pending.then_some(self.due_at),
            attempts,
        })
    }
}
