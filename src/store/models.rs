//! Base models, which clients name and never path, and the models that jobs made.

use std::path::PathBuf;

use finetuned_protocol::{
    ids::{JobId, TenantId},
    spec::ModelFacts,
};
use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    Store, StoreError,
    convert::{from_json, to_json},
};

/// A base model to be registered.
#[derive(Debug, Clone, PartialEq)]
pub struct NewBaseModel {
    /// Public name, such as `HuggingFaceTB/SmolLM2-135M-Instruct`.
    pub name: String,
    /// Folder or file on the workers' machines.
    pub path: PathBuf,
    /// Where it came from, such as a URL or a package.
    pub source: Option<String>,
    pub license: Option<String>,
    pub facts: ModelFacts,
    pub sha256: String,
}

/// A registered base model; every tenant sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct BaseModel {
    pub name: String,
    pub path: PathBuf,
    pub source: Option<String>,
    pub license: Option<String>,
    pub facts: ModelFacts,
    pub sha256: String,
    pub created_at: OffsetDateTime,
}

/// A model that a job of the tenant made.
#[derive(Debug, Clone, PartialEq)]
pub struct TunedModel {
    /// `ft:{base}:{tenant}:{suffix}:{id}`
    pub name: String,
    pub owner: TenantId,
    pub base_model: String,
    pub job: JobId,
    pub created_at: OffsetDateTime,
}

/// A model as `GET /v1/models` lists it.
#[derive(Debug, Clone, PartialEq)]
pub enum Model {
    Base(BaseModel),
    Tuned(TunedModel),
}

impl Model {
    pub fn name(&self) -> &str {
        match self {
            Self::Base(model) => &model.name,
            Self::Tuned(model) => &model.name,
        }
    }

    pub fn created_at(&self) -> OffsetDateTime {
        match self {
            Self::Base(model) => model.created_at,
            Self::Tuned(model) => model.created_at,
        }
    }
}

impl Store {
    /// Registers a base model, or renews path, source and licence of one with the same name and hash.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] where the name stands for other weights.
    pub async fn register_base_model(&self, model: &NewBaseModel) -> Result<BaseModel, StoreError> {
        let facts = to_json("model facts", &model.facts)?;
        let path = model.path.to_str().ok_or_else(|| StoreError::conflict("a base model's path must be UTF-8"))?;
        let registered = self.call("registering a base model", async {
            let row = sqlx::query!(
                "insert into base_models (id, name, path, source, license, sha256, facts)
                 values ($1, $2, $3, $4, $5, $6, $7)
                 on conflict (name) do update set
                     path = excluded.path, source = excluded.source, license = excluded.license, facts = excluded.facts
                 where base_models.sha256 = excluded.sha256
                 returning created_at",
                Uuid::now_v7(),
                model.name,
                path,
                model.source,
                model.license,
                model.sha256,
                facts,
            );
            Ok(row.fetch_optional(self.pool()).await?)
        });
        let Some(row) = registered.await? else {
            let message =
                format!("`{}` is registered with other weights; remove it first or choose a name", model.name);
            return Err(StoreError::conflict(message));
        };
        let NewBaseModel { name, path, source, license, facts, sha256 } = model.clone();
        Ok(BaseModel { name, path, source, license, facts, sha256, created_at: row.created_at })
    }

    /// All base models, by name; a worker finds here which ones it has.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn base_models(&self) -> Result<Vec<BaseModel>, StoreError> {
        self.call("listing base models", async {
            let rows = sqlx::query_as!(
                BaseModelRow,
                "select name, path, source, license, sha256, facts, created_at from base_models order by name"
            );
            rows.fetch_all(self.pool()).await?.into_iter().map(BaseModelRow::read).collect()
        })
        .await
    }

    /// Removes a base model that no unfinished job needs.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Conflict`] where an unfinished job needs it.
    pub async fn remove_base_model(&self, name: &str) -> Result<(), StoreError> {
        self.call("removing a base model", async {
            let mut tx = self.begin().await?;
            let found = sqlx::query_scalar!("select id from base_models where name = $1 for update", name);
            let id = found.fetch_optional(&mut *tx).await?.ok_or(StoreError::NotFound { what: "model" })?;
            let needed = sqlx::query_scalar!(
                r#"select exists(
                       select from jobs j
                       where j.base_model_id = $1 and (j.finished_at is null or exists(
                           select from tasks t where t.job_id = j.id and t.state in ('queued', 'held', 'running')
                       ))
                   ) as "needed!""#,
                id,
            );
            if needed.fetch_one(&mut *tx).await? {
                return Err(StoreError::conflict(format!(
                    "an unfinished job or evaluation needs `{name}`; cancel it or wait for it"
                )));
            }
            sqlx::query!("delete from base_models where id = $1", id).execute(&mut *tx).await?;
            tx.commit().await?;
            Ok(())
        })
        .await
    }

    /// Base models by name, then the tenant's tuned ones, newest first.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn list_models(&self, tenant: TenantId) -> Result<Vec<Model>, StoreError> {
        let base = self.base_models().await?;
        let tuned = self.call("listing tuned models", async {
            let rows = sqlx::query!(
                "select name, base_model, job_id, created_at from tuned_models
                 where tenant_id = $1 order by created_at desc, name",
                tenant.0,
            );
            Ok(rows.fetch_all(self.pool()).await?)
        });
        let tuned = tuned.await?.into_iter().map(|row| {
            let (owner, job, created_at) = (tenant, JobId(row.job_id), row.created_at);
            Model::Tuned(TunedModel { name: row.name, owner, base_model: row.base_model, job, created_at })
        });
        Ok(base.into_iter().map(Model::Base).chain(tuned).collect())
    }

    /// A base model or one of the tenant's tuned ones.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn get_model(&self, tenant: TenantId, name: &str) -> Result<Model, StoreError> {
        self.call("reading a model", async {
            let base = sqlx::query_as!(
                BaseModelRow,
                "select name, path, source, license, sha256, facts, created_at from base_models where name = $1",
                name,
            );
            if let Some(row) = base.fetch_optional(self.pool()).await? {
                return Ok(Model::Base(row.read()?));
            }
            let tuned = sqlx::query!(
                "select name, base_model, job_id, created_at from tuned_models where tenant_id = $1 and name = $2",
                tenant.0,
                name,
            );
            let row = tuned.fetch_optional(self.pool()).await?.ok_or(StoreError::NotFound { what: "model" })?;
            let (owner, job, created_at) = (tenant, JobId(row.job_id), row.created_at);
            Ok(Model::Tuned(TunedModel { name: row.name, owner, base_model: row.base_model, job, created_at }))
        })
        .await
    }

    /// Deletes a tuned model's name; the job keeps its artifacts.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Conflict`] for a base model.
    pub async fn delete_model(&self, tenant: TenantId, name: &str) -> Result<(), StoreError> {
        if let Model::Base(_) = self.get_model(tenant, name).await? {
            return Err(StoreError::conflict("base models belong to the operator; only tuned models can be deleted"));
        }
        self.call("deleting a tuned model", async {
            sqlx::query!("delete from tuned_models where tenant_id = $1 and name = $2", tenant.0, name)
                .execute(self.pool())
                .await?;
            Ok(())
        })
        .await
    }
}

/// A row of `base_models`.
pub(crate) struct BaseModelRow {
    pub name: String,
    pub path: String,
    pub source: Option<String>,
    pub license: Option<String>,
    pub sha256: String,
    pub facts: Value,
    pub created_at: OffsetDateTime,
}

impl BaseModelRow {
    pub(crate) fn read(self) -> Result<BaseModel, StoreError> {
        let Self { name, path, source, license, sha256, facts, created_at } = self;
        let facts = from_json("facts of a base model", facts)?;
        Ok(BaseModel { name, path: PathBuf::from(path), source, license, facts, sha256, created_at })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;
    use crate::testing::{TestDatabase, fixtures};

    #[tokio::test]
    async fn base_models_are_everyones_and_tuned_ones_their_tenants() {
        let store = TestDatabase::create().await.unwrap().store;
        let tenant = fixtures::tenant(&store, "acme").await.unwrap();
        let other = fixtures::tenant(&store, "other").await.unwrap();
        let worker = fixtures::worker(&store).await.unwrap();
        let lease = fixtures::training(&store, tenant, &worker).await.unwrap();
        assert!(matches!(store.remove_base_model(fixtures::MODEL).await, Err(StoreError::Conflict { .. })));
        store.finish_training(&lease.key, &fixtures::trained(&store, tenant).await.unwrap()).await.unwrap();
        let name = lease.job.tuned_model_name();
        let names = async |tenant| -> Vec<String> {
            store.list_models(tenant).await.unwrap().iter().map(|model| model.name().to_owned()).collect()
        };
        assert_eq!(names(tenant).await, [fixtures::MODEL.to_owned(), name.clone()]);
        assert_eq!(names(other).await, [fixtures::MODEL]);
        assert!(matches!(store.get_model(other, &name).await, Err(StoreError::NotFound { what: "model" })));
        assert!(matches!(store.delete_model(other, &name).await, Err(StoreError::NotFound { what: "model" })));
        assert!(matches!(store.delete_model(tenant, fixtures::MODEL).await, Err(StoreError::Conflict { .. })));
        store.delete_model(tenant, &name).await.unwrap();
        assert!(matches!(store.get_model(tenant, &name).await, Err(StoreError::NotFound { what: "model" })));
        assert_eq!(store.artifacts(tenant, lease.job.id).await.unwrap().len(), 1, "the job keeps its artifacts");
        store.remove_base_model(fixtures::MODEL).await.unwrap();
        let missing = store.remove_base_model(fixtures::MODEL).await;
        assert!(matches!(missing, Err(StoreError::NotFound { what: "model" })));
        assert_eq!(store.get_job(tenant, lease.job.id).await.unwrap().base_model, fixtures::MODEL);
    }

    #[tokio::test]
    async fn a_name_stands_for_the_same_weights() {
        let store = TestDatabase::create().await.unwrap().store;
        fixtures::model(&store).await.unwrap();
        let model = NewBaseModel {
            name: fixtures::MODEL.to_owned(),
            path: "elsewhere".into(),
            source: None,
            license: None,
            facts: fixtures::model_facts(),
            sha256: fixtures::MODEL_SHA256.to_owned(),
        };
        assert_eq!(store.register_base_model(&model).await.unwrap().path, PathBuf::from("elsewhere"));
        assert_eq!(store.base_models().await.unwrap()[0].path, PathBuf::from("elsewhere"));
        let other = NewBaseModel { sha256: "f".repeat(64), ..model };
        assert!(matches!(store.register_base_model(&other).await, Err(StoreError::Conflict { .. })));
    }
}
