//! Projects: parts of an organisation that see nothing of each other. Each is a tenant of its own.

use finetuned_protocol::ids::{ProjectId, TenantId};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{Caller, Page, Store, StoreError};

/// A project. An organisation's first one is the organisation itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Project {
    pub id: ProjectId,
    pub name: String,
    pub created_at: OffsetDateTime,
}

impl Store {
    /// Makes a project of an organisation; as a tenant it is called `ORGANISATION.NAME`.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for an organisation that is none; [`StoreError::Conflict`] where the name is taken.
    pub async fn create_project(&self, organization: TenantId, name: &str) -> Result<Project, StoreError> {
        self.call("making a project", async {
            let row = sqlx::query!(
                "insert into tenants (id, name, organization_id)
                 select $2, name || '.' || $3, id from tenants where id = $1 and organization_id is null
                 on conflict (name) do nothing
                 returning id, name, created_at",
                organization.0,
                Uuid::now_v7(),
                name,
            );
            match row.fetch_optional(self.pool()).await? {
                Some(row) => Ok(Project { id: ProjectId(row.id), name: row.name, created_at: row.created_at }),
                None => {
                    let known = sqlx::query_scalar!(
                        "select id from tenants where id = $1 and organization_id is null",
                        organization.0,
                    );
                    known.fetch_optional(self.pool()).await?.ok_or(StoreError::NotFound { what: "organization" })?;
                    Err(StoreError::conflict(format!("a project `{name}` exists already")))
                }
            }
        })
        .await
    }

    /// Makes a project of an organisation of that name.
    ///
    /// # Errors
    /// As [`Self::create_project`].
    pub async fn create_project_by_name(&self, organization: &str, name: &str) -> Result<Project, StoreError> {
        let found = self.call("finding an organisation", async {
            let found = sqlx::query_scalar!("select id from tenants where name = $1", organization);
            found.fetch_optional(self.pool()).await?.ok_or(StoreError::NotFound { what: "organization" })
        });
        self.create_project(TenantId(found.await?), name).await
    }

    /// Projects of an organisation, newest first; its own first one comes last.
    ///
    /// # Errors
    /// `NotFound { what: "after" }` for an unknown `after`.
    pub async fn projects(
        &self,
        organization: TenantId,
        after: Option<ProjectId>,
        limit: u32,
    ) -> Result<Page<Project>, StoreError> {
        self.call("listing projects", async {
            if let Some(after) = after {
                let known = sqlx::query_scalar!(
                    "select id from tenants where id = $1 and (organization_id = $2 or id = $2)",
                    after.0,
                    organization.0,
                );
                known.fetch_optional(self.pool()).await?.ok_or(StoreError::NotFound { what: "after" })?;
            }
            let rows = sqlx::query!(
                "select id, name, created_at from tenants
                 where (organization_id = $1 or id = $1) and id < $2 order by id desc limit $3",
                organization.0,
                after.map_or(Uuid::max(), |id| id.0),
                i64::from(limit) + 1,
            );
            let projects = rows.fetch_all(self.pool()).await?.into_iter().map(|row| Project {
                id: ProjectId(row.id),
                name: row.name,
                created_at: row.created_at,
            });
            Ok(Page::cut(projects.collect(), limit))
        })
        .await
    }

    /// A project of an organisation.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn get_project(&self, organization: TenantId, project: ProjectId) -> Result<Project, StoreError> {
        self.call("reading a project", async {
            let row = sqlx::query!(
                "select id, name, created_at from tenants where id = $1 and (organization_id = $2 or id = $2)",
                project.0,
                organization.0,
            );
            let row = row.fetch_optional(self.pool()).await?.ok_or(StoreError::NotFound { what: "project" })?;
            Ok(Project { id: ProjectId(row.id), name: row.name, created_at: row.created_at })
        })
        .await
    }

    /// The same caller, acting for another project of the organisation whose key it has.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] where the key is not the organisation's, or the project is not of it.
    pub async fn act_for(&self, caller: Caller, project: ProjectId) -> Result<Caller, StoreError> {
        if project == ProjectId::from(caller.tenant) {
            return Ok(caller);
        }
        if caller.tenant != caller.organization {
            return Err(StoreError::NotFound { what: "project" });
        }
        let Project { id, name, .. } = self.get_project(caller.organization, project).await?;
        Ok(Caller { tenant: id.into(), tenant_name: name, ..caller })
    }
}
