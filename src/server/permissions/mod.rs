//! `/v1/fine_tuning/checkpoints/{fine_tuned_model_checkpoint}/permissions`: who else may see a tuned model.

mod wire;

use axum::{Json, extract::State};
use finetuned_protocol::ids::{PermissionId, TenantId};
use finetuned_store::{PermissionPage, StoreError};

use crate::{
    http::{
        auth::Authenticated,
        body::{JsonBody, NoBody},
        error::{ApiError, Code, ErrorResponse},
        paging::ListPage,
        path::{FirstName, Name},
        query::{NoParameters, Query},
    },
    state::App,
};
use wire::{CheckpointPermission, CheckpointPermissionDeleted, CreatePermissions, PermissionListParams};

/// Projects of one request.
const MOST: usize = 100;

/// Let other projects of the organisation see a tuned model.
#[utoipa::path(
    post, path = "/v1/fine_tuning/checkpoints/{fine_tuned_model_checkpoint}/permissions", tag = "fine-tuning",
    params(("fine_tuned_model_checkpoint" = String, Path)), request_body = CreatePermissions,
    responses(
        (status = 200, body = ListPage<CheckpointPermission>), (status = 400, body = ErrorResponse),
        (status = 404, body = ErrorResponse),
    ),
)]
pub async fn create_permissions(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    FirstName(model): FirstName,
    Query(NoParameters): Query<NoParameters>,
    JsonBody(CreatePermissions { project_ids }): JsonBody<CreatePermissions>,
) -> Result<Json<ListPage<CheckpointPermission>>, ApiError> {
    if project_ids.is_empty() || project_ids.len() > MOST {
        return Err(ApiError::invalid("project_ids", format!("`project_ids` must name 1 to {MOST} projects")));
    }
    let projects: Vec<TenantId> = project_ids.into_iter().map(Into::into).collect();
    let made = app.store.create_permissions(caller.tenant, &model, &projects).await;
    let made = made.map_err(|error| match error {
        StoreError::NotFound { what: "project" } => {
            ApiError::invalid("project_ids", "`project_ids` names a project that this organisation does not have")
        }
        error => refusal(error, &model),
    })?;
    Ok(Json(ListPage::new(made.into_iter().map(Into::into).collect(), false)))
}

/// List who else may see a tuned model.
#[utoipa::path(
    get, path = "/v1/fine_tuning/checkpoints/{fine_tuned_model_checkpoint}/permissions", tag = "fine-tuning",
    params(("fine_tuned_model_checkpoint" = String, Path), PermissionListParams),
    responses((status = 200, body = ListPage<CheckpointPermission>), (status = 404, body = ErrorResponse)),
)]
pub async fn list_permissions(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    FirstName(model): FirstName,
    Query(page): Query<PermissionPage>,
) -> Result<Json<ListPage<CheckpointPermission>>, ApiError> {
    let listed = app.store.list_permissions(caller.tenant, &model, &page).await;
    let listed = listed.map_err(|error| refusal(error, &model))?;
    Ok(Json(ListPage::new(listed.data.into_iter().map(Into::into).collect(), listed.has_more)))
}

/// Take a permission back.
#[utoipa::path(
    delete, path = "/v1/fine_tuning/checkpoints/{fine_tuned_model_checkpoint}/permissions/{permission_id}",
    tag = "fine-tuning",
    params(("fine_tuned_model_checkpoint" = String, Path), ("permission_id" = String, Path)),
    responses((status = 200, body = CheckpointPermissionDeleted), (status = 404, body = ErrorResponse)),
)]
pub async fn delete_permission(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    FirstName(model): FirstName,
    Name(permission): Name,
    Query(NoParameters): Query<NoParameters>,
    _: NoBody,
) -> Result<Json<CheckpointPermissionDeleted>, ApiError> {
    let missing = || ApiError::not_found("permission", &permission);
    let id: PermissionId = permission.parse().map_err(|_| missing())?;
    match app.store.delete_permission(caller.tenant, &model, id).await {
        Err(StoreError::NotFound { .. }) => Err(missing()),
        done => {
            done?;
            Ok(Json(CheckpointPermissionDeleted { id, object: "checkpoint.permission", deleted: true }))
        }
    }
}

/// Names the model, and says of a checkpoint within a job why it is none.
fn refusal(error: StoreError, model: &str) -> ApiError {
    match error {
        StoreError::NotFound { what: "model" } if model.contains(":ckpt-step-") => ApiError::new(
            Code::NotFound,
            format!(
                "`{model}` is a step within a job; only a job's finished model can be shared, under its `ft:` name"
            ),
        ),
        StoreError::NotFound { what: "model" } => ApiError::not_found("tuned model", model),
        error => error.into(),
    }
}
