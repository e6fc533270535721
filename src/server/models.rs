//! `/v1/models`

use axum::{Json, extract::State};
use finetuned_protocol::{ids::JobId, spec::ModelFacts};
use finetuned_store::{BaseModel, Model, StoreError, TunedModel};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    http::{
        auth::Authenticated,
        error::{ApiError, Code, ErrorResponse},
        path::Name,
        query::{NoParameters, Query},
    },
    state::App,
};

/// A model: OpenAI's fields, and what it is beside them.
#[derive(Debug, Serialize, ToSchema)]
pub struct ModelObject {
    /// Its name.
    pub id: String,
    /// Always `model`.
    pub object: &'static str,
    /// Unix seconds.
    pub created: i64,
    /// `system` for a base model, else the tenant that made it.
    pub owned_by: String,
    #[serde(flatten)]
    pub kind: ModelKind,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ModelKind {
    Base {
        source: Option<String>,
        license: Option<String>,
        /// Of its files.
        sha256: String,
        facts: ModelFacts,
    },
    Tuned {
        base_model: String,
        #[schema(value_type = String)]
        fine_tuning_job_id: JobId,
    },
}

/// All models; there are no pages.
#[derive(Debug, Serialize, ToSchema)]
pub struct ModelList {
    /// Always `list`.
    pub object: &'static str,
    pub data: Vec<ModelObject>,
}

/// The answer to a deletion.
#[derive(Debug, Serialize, ToSchema)]
pub struct ModelDeleted {
    pub id: String,
    /// Always `model`.
    pub object: &'static str,
    pub deleted: bool,
}

impl ModelObject {
    fn new(model: Model) -> Self {
        let created = model.created_at().unix_timestamp();
        let (id, owned_by, kind) = match model {
            Model::Base(model) => {
                // The path is the operator's affair.
                let BaseModel { name, path: _, source, license, facts, sha256, created_at: _ } = model;
                (name, "system".to_owned(), ModelKind::Base { source, license, sha256, facts })
            }
            Model::Tuned(TunedModel { name, owner, base_model, job, created_at: _ }) => {
                (name, owner.to_string(), ModelKind::Tuned { base_model, fine_tuning_job_id: job })
            }
        };
        Self { id, object: "model", created, owned_by, kind }
    }
}

/// List base models, the tenant's tuned ones, and those that other projects let it see.
#[utoipa::path(get, path = "/v1/models", tag = "models", responses((status = 200, body = ModelList)))]
pub async fn list_models(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    Query(NoParameters): Query<NoParameters>,
) -> Result<Json<ModelList>, ApiError> {
    let models = app.store.list_models(caller.tenant).await?;
    let shared = app.store.shared_models(caller.tenant, None).await?.into_iter().map(Model::Tuned);
    let data = models.into_iter().chain(shared).map(ModelObject::new).collect();
    Ok(Json(ModelList { object: "list", data }))
}

/// Read a model. A `/` in its name is written `%2F`.
#[utoipa::path(
    get, path = "/v1/models/{model}", tag = "models",
    params(("model" = String, Path)),
    responses((status = 200, body = ModelObject), (status = 404, body = ErrorResponse)),
)]
pub async fn get_model(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    Name(name): Name,
    Query(NoParameters): Query<NoParameters>,
) -> Result<Json<ModelObject>, ApiError> {
    let model = match app.store.get_model(caller.tenant, &name).await {
        Err(StoreError::NotFound { what }) => {
            let shared = app.store.shared_models(caller.tenant, Some(&name)).await?.into_iter().next();
            shared.map(Model::Tuned).ok_or(StoreError::NotFound { what })
        }
        own => own,
    };
    Ok(Json(ModelObject::new(found(model, &name)?)))
}

/// Delete a tuned model. Its job keeps its artifacts.
#[utoipa::path(
    delete, path = "/v1/models/{model}", tag = "models",
    params(("model" = String, Path)),
    responses(
        (status = 200, body = ModelDeleted),
        (status = 400, body = ErrorResponse, description = "A base model, which tenants cannot delete"),
        (status = 404, body = ErrorResponse),
    ),
)]
pub async fn delete_model(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    Name(name): Name,
    Query(NoParameters): Query<NoParameters>,
) -> Result<Json<ModelDeleted>, ApiError> {
    found(app.store.delete_model(caller.tenant, &name).await, &name)?;
    Ok(Json(ModelDeleted { id: name, object: "model", deleted: true }))
}

fn found<T>(result: Result<T, StoreError>, name: &str) -> Result<T, ApiError> {
    result.map_err(|error| match error {
        StoreError::NotFound { .. } => {
            let message = format!("no model is called `{name}`; GET /v1/models lists what there is");
            ApiError::new(Code::ModelNotFound, message).param("model")
        }
        error => error.into(),
    })
}
