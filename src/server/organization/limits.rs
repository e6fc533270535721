//! `GET /v1/organization/limits`

use axum::{Json, extract::State};
use finetuned_protocol::ids::ProjectId;
use finetuned_store::TenantUse;
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    http::{
        auth::Authenticated,
        error::ApiError,
        query::{NoParameters, Query},
    },
    state::App,
};

/// What the project may use, and what it uses of it.
#[derive(Debug, Serialize, ToSchema)]
pub struct Limits {
    /// Always `organization.limits`.
    pub object: &'static str,
    #[schema(value_type = String)]
    pub project_id: ProjectId,
    /// Jobs that have not ended.
    pub open_jobs: Limit,
    /// Trainings at once.
    pub running_jobs: Limit,
    /// Files, checkpoints and adapters.
    pub stored_bytes: Limit,
    /// Of jobs that ended this month, by UTC.
    pub trained_tokens_this_month: Limit,
    /// Null for no limit.
    pub requests_per_second: Option<u32>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct Limit {
    pub used: u64,
    /// Null for no limit.
    pub limit: Option<u64>,
}

/// Read what the project may use, and what it uses.
#[utoipa::path(
    get, path = "/v1/organization/limits", tag = "organization", responses((status = 200, body = Limits)),
)]
pub async fn get_limits(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    Query(NoParameters): Query<NoParameters>,
) -> Result<Json<Limits>, ApiError> {
    let found = app.store.tenants(Some(caller.tenant)).await?.into_iter().next();
    let TenantUse { id, name: _, quotas, open_jobs, running_jobs, stored_bytes, trained_tokens_this_month } =
        found.ok_or_else(|| ApiError::internal("the caller's tenant is gone"))?;
    let of = |used, limit| Limit { used, limit };
    Ok(Json(Limits {
        object: "organization.limits",
        project_id: id.into(),
        open_jobs: of(open_jobs, quotas.open_jobs.map(u64::from)),
        running_jobs: of(running_jobs, quotas.running_jobs.map(u64::from)),
        stored_bytes: of(stored_bytes, quotas.stored_bytes),
        trained_tokens_this_month: of(trained_tokens_this_month, quotas.trained_tokens_a_month),
        requests_per_second: quotas.requests_per_second,
    }))
}
