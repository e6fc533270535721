//! What a tenant may use.

use std::{fmt, time::Duration};

use finetuned_protocol::ids::TenantId;
use sqlx::PgConnection;

use crate::{
    Store, StoreError,
    convert::{big, count, int, small},
};

/// Limits of one tenant; `None` is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Quotas {
    /// Jobs that have not ended, running ones among them.
    pub open_jobs: Option<u32>,
    /// Trainings at once; more wait in the queue.
    pub running_jobs: Option<u32>,
    /// All that is stored for it: files, checkpoints, adapters.
    pub stored_bytes: Option<u64>,
    /// Of jobs that ended in the month, by UTC; jobs under way are let finish.
    pub trained_tokens_a_month: Option<u64>,
    /// Counted by each server process for itself.
    pub requests_per_second: Option<u32>,
}

/// A tenant with its limits and what it uses of them.
#[derive(Debug, Clone, PartialEq)]
pub struct TenantUse {
    pub id: TenantId,
    pub name: String,
    pub quotas: Quotas,
    pub open_jobs: u64,
    pub running_jobs: u64,
    pub stored_bytes: u64,
    pub trained_tokens_this_month: u64,
}

/// Which limit was met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quota {
    OpenJobs,
    StoredBytes,
    /// With the time until the next month begins.
    TrainedTokens {
        resets_in: Duration,
    },
}

impl fmt::Display for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OpenJobs => "open jobs",
            Self::StoredBytes => "stored bytes",
            Self::TrainedTokens { .. } => "trained tokens this month",
        })
    }
}

impl Store {
    /// Sets the limits of a tenant, all of them.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn set_quotas(&self, tenant_name: &str, quotas: Quotas) -> Result<(), StoreError> {
        let Quotas { open_jobs, running_jobs, stored_bytes, trained_tokens_a_month, requests_per_second } = quotas;
        self.call("setting a tenant's limits", async {
            let set = sqlx::query!(
                "insert into tenant_quotas
                     (tenant_id, open_jobs, running_jobs, stored_bytes, trained_tokens_a_month, requests_per_second)
                 select id, $2, $3, $4, $5, $6 from tenants where name = $1
                 on conflict (tenant_id) do update set
                     open_jobs = excluded.open_jobs, running_jobs = excluded.running_jobs,
                     stored_bytes = excluded.stored_bytes, trained_tokens_a_month = excluded.trained_tokens_a_month,
                     requests_per_second = excluded.requests_per_second",
                tenant_name,
                open_jobs.map(int),
                running_jobs.map(int),
                stored_bytes.map(big),
                trained_tokens_a_month.map(big),
                requests_per_second.map(int),
            );
            match set.execute(self.pool()).await?.rows_affected() {
                0 => Err(StoreError::NotFound { what: "tenant" }),
                _ => Ok(()),
            }
        })
        .await
    }

    /// All tenants by name, or one of them.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn tenants(&self, one: Option<TenantId>) -> Result<Vec<TenantUse>, StoreError> {
        self.call("listing tenants", async {
            let rows = sqlx::query!(
                r#"select n.id, n.name, q.open_jobs as "max_open_jobs?", q.running_jobs as "max_running_jobs?",
                          q.stored_bytes as "max_bytes?", q.trained_tokens_a_month as "max_tokens?",
                          q.requests_per_second as "max_requests?",
                          (select count(*) from jobs j where j.tenant_id = n.id and j.finished_at is null) as "jobs!",
                          (select count(*) from tasks t
                           where t.tenant_id = n.id and t.state = 'running' and t.kind = 'train') as "running!",
                          (select coalesce(sum(b.bytes), 0)::bigint from blobs b
                           where b.tenant_id = n.id and b.state = 'live') as "bytes!",
                          (select coalesce(sum(j.trained_tokens), 0)::bigint from jobs j
                           where j.tenant_id = n.id
                             and j.finished_at >= date_trunc('month', now(), 'UTC')) as "tokens!"
                   from tenants n left join tenant_quotas q on q.tenant_id = n.id
                   where $1::uuid is null or n.id = $1
                   order by n.name"#,
                one.map(|tenant| tenant.0),
            );
            let tenants = rows.fetch_all(self.pool()).await?.into_iter().map(|row| TenantUse {
                id: TenantId(row.id),
                name: row.name,
                quotas: Quotas {
                    open_jobs: row.max_open_jobs.map(small),
                    running_jobs: row.max_running_jobs.map(small),
                    stored_bytes: row.max_bytes.map(count),
                    trained_tokens_a_month: row.max_tokens.map(count),
                    requests_per_second: row.max_requests.map(small),
                },
                open_jobs: count(row.jobs),
                running_jobs: count(row.running),
                stored_bytes: count(row.bytes),
                trained_tokens_this_month: count(row.tokens),
            });
            Ok(tenants.collect())
        })
        .await
    }

    /// Whether a tenant has room for more bytes, for a look before they are sent; the truth is told when they are
    /// recorded.
    ///
    /// # Errors
    /// [`StoreError::QuotaExceeded`].
    pub async fn check_stored_bytes(&self, tenant: TenantId) -> Result<(), StoreError> {
        self.call("looking at a tenant's limits", async {
            require_room(&mut *self.pool().acquire().await?, tenant, 1).await
        })
        .await
    }
}

/// Refuses one job more than the tenant may have open, and any once its month's tokens are used up. Its limits stay
/// locked until the transaction ends, so that two at once are not both the last.
pub(crate) async fn require_job_place(tx: &mut PgConnection, tenant: TenantId) -> Result<(), StoreError> {
    let limits = sqlx::query!(
        r#"select open_jobs, trained_tokens_a_month,
                  extract(epoch from date_trunc('month', now(), 'UTC') + interval '1 month' - now())::float8 as "left!"
           from tenant_quotas where tenant_id = $1 for update"#,
        tenant.0,
    );
    let Some(limits) = limits.fetch_optional(&mut *tx).await? else { return Ok(()) };
    let uses = sqlx::query!(
        r#"select count(*) filter (where finished_at is null) as "open!",
                  coalesce(sum(trained_tokens) filter (where finished_at >= date_trunc('month', now(), 'UTC')), 0)::bigint
                      as "tokens!"
           from jobs where tenant_id = $1"#,
        tenant.0,
    );
    let uses = uses.fetch_one(tx).await?;
    if let Some(limit) = limits.open_jobs.map(i64::from).filter(|limit| uses.open >= *limit) {
        return Err(StoreError::QuotaExceeded { quota: Quota::OpenJobs, limit: count(limit), used: count(uses.open) });
    }
    if let Some(limit) = limits.trained_tokens_a_month.filter(|limit| uses.tokens >= *limit) {
        let quota = Quota::TrainedTokens { resets_in: Duration::try_from_secs_f64(limits.left).unwrap_or_default() };
        return Err(StoreError::QuotaExceeded { quota, limit: count(limit), used: count(uses.tokens) });
    }
    Ok(())
}

/// Refuses what would bring the tenant's stored bytes over its limit, under the same lock.
pub(crate) async fn require_room(tx: &mut PgConnection, tenant: TenantId, more: u64) -> Result<(), StoreError> {
    let limit = sqlx::query_scalar!("select stored_bytes from tenant_quotas where tenant_id = $1 for update", tenant.0);
    let Some(limit) = limit.fetch_optional(&mut *tx).await?.flatten().map(count) else { return Ok(()) };
    let stored = sqlx::query_scalar!(
        r#"select coalesce(sum(bytes), 0)::bigint as "stored!" from blobs where tenant_id = $1 and state = 'live'"#,
        tenant.0,
    );
    let used = count(stored.fetch_one(tx).await?);
    if used.saturating_add(more) <= limit {
        return Ok(());
    }
    Err(StoreError::QuotaExceeded { quota: Quota::StoredBytes, limit, used })
}

#[cfg(test)]
#[path = "quotas_tests.rs"]
mod tests;
