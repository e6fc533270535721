//! Endpoints and their secrets.

use finetuned_protocol::ids::{TenantId, WebhookEndpointId};
use secrecy::{ExposeSecret, SecretString};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{NewWebhookEndpoint, WebhookEndpoint, WebhookEndpointPatch, WebhookTarget};
use crate::{Page, Store, StoreError, convert::named};

/// Endpoints of one tenant; each is one more call for every event.
const MOST: i64 = 32;
const NOT_FOUND: StoreError = StoreError::NotFound { what: "webhook endpoint" };

impl Store {
    /// Makes an endpoint.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] where the tenant has as many as it may.
    pub async fn create_webhook_endpoint(
        &self,
        tenant: TenantId,
        new: &NewWebhookEndpoint,
    ) -> Result<WebhookEndpoint, StoreError> {
        let NewWebhookEndpoint { name, url, event_types, secret } = new;
        let types: Vec<String> = event_types.iter().map(ToString::to_string).collect();
        self.call("making a webhook endpoint", async {
            let mut tx = self.begin().await?;
            // Locked, so that two at once cannot both be the last.
            sqlx::query!("select id from tenants where id = $1 for no key update", tenant.0)
                .fetch_one(&mut *tx)
                .await?;
            let count = sqlx::query_scalar!(
                r#"select count(*) as "count!" from webhook_endpoints where tenant_id = $1"#,
                tenant.0,
            );
            if count.fetch_one(&mut *tx).await? >= MOST {
                return Err(StoreError::conflict(format!(
                    "there are {MOST} webhook endpoints already; delete one first"
                )));
            }
            let id = WebhookEndpointId::generate();
            sqlx::query!(
                "insert into webhook_endpoints (id, tenant_id, name, url, event_types, secret)
                 values ($1, $2, $3, $4, $5, $6)",
                id.0,
                tenant.0,
                name,
                url,
                &types,
                secret.expose_secret(),
            )
            .execute(&mut *tx)
            .await?;
            let made = fetch(&mut tx, tenant, id).await?;
            tx.commit().await?;
            Ok(made)
        })
        .await
    }

    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn get_webhook_endpoint(
        &self,
        tenant: TenantId,
        id: WebhookEndpointId,
    ) -> Result<WebhookEndpoint, StoreError> {
        self.call("reading a webhook endpoint", async { fetch(&mut *self.pool().acquire().await?, tenant, id).await })
            .await
    }

    /// A page of endpoints, newest first.
    ///
    /// # Errors
    /// `NotFound { what: "after" }` for an unknown `after`.
    pub async fn list_webhook_endpoints(
        &self,
        tenant: TenantId,
        after: Option<WebhookEndpointId>,
        limit: u32,
    ) -> Result<Page<WebhookEndpoint>, StoreError> {
        self.call("listing webhook endpoints", async {
            if let Some(after) = after {
                match self.get_webhook_endpoint(tenant, after).await {
                    Err(StoreError::NotFound { .. }) => return Err(StoreError::NotFound { what: "after" }),
                    found => found?,
                };
            }
            let rows = sqlx::query_as!(
                EndpointRow,
                "select id, tenant_id, name, url, event_types, secret, created_at, updated_at
                 from webhook_endpoints where tenant_id = $1 and id < $2 order by id desc limit $3",
                tenant.0,
                after.map_or(Uuid::max(), |id| id.0),
                i64::from(limit) + 1,
            );
            let rows = rows.fetch_all(self.pool()).await?;
            Ok(Page::cut(rows.into_iter().map(EndpointRow::read).collect::<Result<_, _>>()?, limit))
        })
        .await
    }

    /// Changes what is given; `updated_at` only where something differs.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn update_webhook_endpoint(
        &self,
        tenant: TenantId,
        id: WebhookEndpointId,
        patch: &WebhookEndpointPatch,
    ) -> Result<WebhookEndpoint, StoreError> {
        let WebhookEndpointPatch { name, url, event_types } = patch;
        let types: Option<Vec<String>> =
            event_types.as_ref().map(|types| types.iter().map(ToString::to_string).collect());
        self.call("changing a webhook endpoint", async {
            let mut tx = self.begin().await?;
            sqlx::query!(
                "update webhook_endpoints
                 set name = coalesce($3, name), url = coalesce($4, url), event_types = coalesce($5, event_types),
                     updated_at = now()
                 where id = $1 and tenant_id = $2
                   and (name, url, event_types) is distinct from
                       (coalesce($3, name), coalesce($4, url), coalesce($5, event_types))",
                id.0,
                tenant.0,
                name.as_deref(),
                url.as_deref(),
                types.as_deref(),
            )
            .execute(&mut *tx)
            .await?;
            let changed = fetch(&mut tx, tenant, id).await?;
            tx.commit().await?;
            Ok(changed)
        })
        .await
    }

    /// Deletes an endpoint and all that was to be delivered to it.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn delete_webhook_endpoint(&self, tenant: TenantId, id: WebhookEndpointId) -> Result<(), StoreError> {
        self.call("deleting a webhook endpoint", async {
            let gone = sqlx::query!("delete from webhook_endpoints where id = $1 and tenant_id = $2", id.0, tenant.0);
            if gone.execute(self.pool()).await?.rows_affected() == 0 { Err(NOT_FOUND) } else { Ok(()) }
        })
        .await
    }

    /// Gives an endpoint another secret; the old one signs beside it for 24 hours where `keep_old`.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn rotate_webhook_secret(
        &self,
        tenant: TenantId,
        id: WebhookEndpointId,
        secret: &SecretString,
        keep_old: bool,
    ) -> Result<WebhookEndpoint, StoreError> {
        self.call("rotating a webhook's secret", async {
            let mut tx = self.begin().await?;
            sqlx::query!(
                "update webhook_endpoints
                 set secret = $3, updated_at = now(),
                     previous_secret = case when $4 then secret end,
                     previous_until = case when $4 then now() + interval '24 hours' end
                 where id = $1 and tenant_id = $2",
                id.0,
                tenant.0,
                secret.expose_secret(),
                keep_old,
            )
            .execute(&mut *tx)
            .await?;
            let changed = fetch(&mut tx, tenant, id).await?;
            tx.commit().await?;
            Ok(changed)
        })
        .await
    }

    /// Where to send, and what to sign with.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn webhook_target(&self, tenant: TenantId, id: WebhookEndpointId) -> Result<WebhookTarget, StoreError> {
        self.call("reading a webhook's secrets", async {
            let row = sqlx::query!(
                r#"select url, secret, case when previous_until > now() then previous_secret end as previous
                   from webhook_endpoints where id = $1 and tenant_id = $2"#,
                id.0,
                tenant.0,
            );
            let row = row.fetch_optional(self.pool()).await?.ok_or(NOT_FOUND)?;
            Ok(target(row.url, row.secret, row.previous))
        })
        .await
    }
}

pub(super) fn target(url: String, secret: String, previous: Option<String>) -> WebhookTarget {
    WebhookTarget { url, secrets: std::iter::once(secret).chain(previous).map(SecretString::from).collect() }
}

async fn fetch(tx: &mut PgConnection, tenant: TenantId, id: WebhookEndpointId) -> Result<WebhookEndpoint, StoreError> {
    let row = sqlx::query_as!(
        EndpointRow,
        "select id, tenant_id, name, url, event_types, secret, created_at, updated_at
         from webhook_endpoints where id = $1 and tenant_id = $2",
        id.0,
        tenant.0,
    );
    row.fetch_optional(tx).await?.ok_or(NOT_FOUND)?.read()
}

struct EndpointRow {
    id: Uuid,
    tenant_id: Uuid,
    name: String,
    url: String,
    event_types: Vec<String>,
    secret: String,
    created_at: OffsetDateTime,
    updated_at: OffsetDateTime,
}

impl EndpointRow {
    fn read(self) -> Result<WebhookEndpoint, StoreError> {
        let types = self.event_types.iter().map(|text| named("a webhook's event type", text));
        let hint: String = self.secret.chars().rev().take(4).collect::<Vec<_>>().into_iter().rev().collect();
        Ok(WebhookEndpoint {
            id: WebhookEndpointId(self.id),
            tenant: TenantId(self.tenant_id),
            name: self.name,
            url: self.url,
            event_types: types.collect::<Result<_, _>>()?,
            created_at: self.created_at,
            updated_at: self.updated_at,
            secret_hint: hint,
        })
    }
}
