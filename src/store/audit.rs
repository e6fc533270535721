//! Who changed what: a row before each change, completed after it.

use finetuned_protocol::ids::{AuditId, KeyId, TenantId};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{Caller, Page, Store, StoreError, convert::storable_text};

/// For so long the log is kept.
const KEPT_DAYS: i32 = 400;

/// One request that may have changed something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    pub id: AuditId,
    /// `None` for the tenant `default` of a service without keys.
    pub key: Option<KeyId>,
    pub request: String,
    pub method: String,
    pub path: String,
    pub started_at: OffsetDateTime,
    /// `None` while it runs, and where its process died.
    pub ended: Option<(OffsetDateTime, u16)>,
}

impl Store {
    /// Writes that a change begins.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: then the change must not be made.
    pub async fn audit_begins(
        &self,
        caller: &Caller,
        request: &str,
        method: &str,
        path: &str,
    ) -> Result<AuditId, StoreError> {
        let id = AuditId::generate();
        self.call("writing the audit log", async {
            sqlx::query!(
                "insert into audit_log (id, tenant_id, api_key_id, request_id, method, path)
                 values ($1, $2, $3, $4, $5, $6)",
                id.0,
                caller.tenant.0,
                caller.key.map(|key| key.0),
                request,
                method,
                storable_text(path),
            )
            .execute(self.pool())
            .await?;
            Ok(id)
        })
        .await
    }

    /// Writes what a change came to.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn audit_ends(&self, id: AuditId, status: u16) -> Result<(), StoreError> {
        self.call("completing the audit log", async {
            sqlx::query!(
                "update audit_log set status = $2, finished_at = now() where id = $1",
                id.0,
                i32::from(status),
            )
            .execute(self.pool())
            .await?;
            Ok(())
        })
        .await
    }

    /// A page of a tenant's log, newest first.
    ///
    /// # Errors
    /// `NotFound { what: "after" }` for an unknown `after`.
    pub async fn audit_log(
        &self,
        tenant: TenantId,
        after: Option<AuditId>,
        limit: u32,
    ) -> Result<Page<AuditEntry>, StoreError> {
        self.call("reading the audit log", async {
            if let Some(after) = after {
                let known =
                    sqlx::query_scalar!("select id from audit_log where id = $1 and tenant_id = $2", after.0, tenant.0);
                known.fetch_optional(self.pool()).await?.ok_or(StoreError::NotFound { what: "after" })?;
            }
            let rows = sqlx::query!(
                "select id, api_key_id, request_id, method, path, started_at, finished_at, status from audit_log
                 where tenant_id = $1 and id < $2 order by id desc limit $3",
                tenant.0,
                after.map_or(Uuid::max(), |id| id.0),
                i64::from(limit) + 1,
            );
            let entries = rows.fetch_all(self.pool()).await?.into_iter().map(|row| AuditEntry {
                id: AuditId(row.id),
                key: row.api_key_id.map(KeyId),
                request: row.request_id,
                method: row.method,
                path: row.path,
                started_at: row.started_at,
                ended: row.finished_at.zip(row.status.and_then(|status| u16::try_from(status).ok())),
            });
            Ok(Page::cut(entries.collect(), limit))
        })
        .await
    }

    /// Forgets what is older than the log is kept.
    pub(crate) async fn forget_audit_log(&self) -> Result<(), StoreError> {
        self.call("forgetting the old audit log", async {
            sqlx::query!("delete from audit_log where started_at < now() - make_interval(days => $1)", KEPT_DAYS)
                .execute(self.pool())
                .await?;
            Ok(())
        })
        .await
    }
}
