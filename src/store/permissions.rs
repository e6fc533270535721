//! Which other tenants may see a tuned model.

use finetuned_protocol::ids::{PermissionId, TenantId};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{Page, Store, StoreError, TunedModel};

/// A tenant, `project_id` on the wire, may see a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permission {
    pub id: PermissionId,
    pub project: TenantId,
    pub created_at: OffsetDateTime,
}

/// Which permissions to list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PermissionPage {
    pub project: Option<TenantId>,
    pub after: Option<PermissionId>,
    pub limit: u32,
    pub oldest_first: bool,
}

impl Store {
    /// Lets other projects of the same organisation see a model; those who may already keep their permission. In the
    /// order of `projects`.
    ///
    /// # Errors
    /// `NotFound` with `what` one of `model`, `project`.
    pub async fn create_permissions(
        &self,
        tenant: TenantId,
        model: &str,
        projects: &[TenantId],
    ) -> Result<Vec<Permission>, StoreError> {
        self.call("sharing a model", async {
            let mut tx = self.begin().await?;
            require_model(&mut tx, tenant, model).await?;
            let mut permissions = Vec::new();
            for project in projects {
                let known = sqlx::query_scalar!(
                    "select p.id from tenants p join tenants n on n.id = $2
                     where p.id = $1
                       and coalesce(p.organization_id, p.id) = coalesce(n.organization_id, n.id)",
                    project.0,
                    tenant.0,
                );
                known.fetch_optional(&mut *tx).await?.ok_or(StoreError::NotFound { what: "project" })?;
                let row = sqlx::query_as!(
                    PermissionRow,
                    "insert into checkpoint_permissions (id, tenant_id, model, project_id) values ($1, $2, $3, $4)
                     on conflict (tenant_id, model, project_id) do update set model = excluded.model
                     returning id, project_id, created_at",
                    PermissionId::generate().0,
                    tenant.0,
                    model,
                    project.0,
                );
                permissions.push(row.fetch_one(&mut *tx).await?.read());
            }
            tx.commit().await?;
            Ok(permissions)
        })
        .await
    }

    /// A page of a model's permissions.
    ///
    /// # Errors
    /// `NotFound` with `what` one of `model`, `after`.
    pub async fn list_permissions(
        &self,
        tenant: TenantId,
        model: &str,
        page: &PermissionPage,
    ) -> Result<Page<Permission>, StoreError> {
        self.call("listing a model's permissions", async {
            let mut connection = self.pool().acquire().await?;
            require_model(&mut connection, tenant, model).await?;
            if let Some(after) = page.after {
                let known = sqlx::query_scalar!(
                    "select id from checkpoint_permissions where id = $1 and tenant_id = $2 and model = $3",
                    after.0,
                    tenant.0,
                    model,
                );
                known.fetch_optional(&mut *connection).await?.ok_or(StoreError::NotFound { what: "after" })?;
            }
            let rows = sqlx::query_as!(
                PermissionRow,
                "select id, project_id, created_at from checkpoint_permissions
                 where tenant_id = $1 and model = $2 and ($3::uuid is null or project_id = $3)
                   and ($4::uuid is null or case when $5 then id > $4 else id < $4 end)
                 order by case when $5 then id end, id desc
                 limit $6",
                tenant.0,
                model,
                page.project.map(|project| project.0),
                page.after.map(|after| after.0),
                page.oldest_first,
                i64::from(page.limit) + 1,
            );
            let rows = rows.fetch_all(&mut *connection).await?;
            Ok(Page::cut(rows.into_iter().map(PermissionRow::read).collect(), page.limit))
        })
        .await
    }

    /// Takes a permission back.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn delete_permission(&self, tenant: TenantId, model: &str, id: PermissionId) -> Result<(), StoreError> {
        self.call("taking a permission back", async {
            let gone = sqlx::query!(
                "delete from checkpoint_permissions where id = $1 and tenant_id = $2 and model = $3",
                id.0,
                tenant.0,
                model,
            );
            match gone.execute(self.pool()).await?.rows_affected() {
                0 => Err(StoreError::NotFound { what: "permission" }),
                _ => Ok(()),
            }
        })
        .await
    }

    /// Models of other tenants that this one may see, newest first; of one name where it is given.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn shared_models(&self, tenant: TenantId, name: Option<&str>) -> Result<Vec<TunedModel>, StoreError> {
        self.call("listing shared models", async {
            let rows = sqlx::query!(
                "select m.name, m.tenant_id, m.base_model, m.job_id, m.created_at
                 from checkpoint_permissions p
                 join tuned_models m on m.tenant_id = p.tenant_id and m.name = p.model
                 where p.project_id = $1 and p.tenant_id <> $1 and ($2::text is null or m.name = $2)
                 order by m.created_at desc, m.name",
                tenant.0,
                name,
            );
            let models = rows.fetch_all(self.pool()).await?.into_iter().map(|row| TunedModel {
                name: row.name,
                owner: TenantId(row.tenant_id),
                base_model: row.base_model,
                job: finetuned_protocol::ids::JobId(row.job_id),
                created_at: row.created_at,
            });
            Ok(models.collect())
        })
        .await
    }
}

async fn require_model(connection: &mut PgConnection, tenant: TenantId, model: &str) -> Result<(), StoreError> {
    let found =
        sqlx::query_scalar!("select name from tuned_models where tenant_id = $1 and name = $2", tenant.0, model);
    found.fetch_optional(connection).await?.map(drop).ok_or(StoreError::NotFound { what: "model" })
}

struct PermissionRow {
    id: Uuid,
    project_id: Uuid,
    created_at: OffsetDateTime,
}

impl PermissionRow {
    fn read(self) -> Permission {
        Permission { id: PermissionId(self.id), project: TenantId(self.project_id), created_at: self.created_at }
    }
}
