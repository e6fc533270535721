//! `PATCH /v1/fine_tuning/jobs/{fine_tuning_job_id}`

use axum::{Json, extract::State};
use finetuned_protocol::{ids::JobId, request::check_priority};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    control::{KIND, answer},
    wire::FineTuningJob,
};
use crate::{
    http::{
        auth::Authenticated,
        body::JsonBody,
        error::{ApiError, ErrorResponse},
        found,
        path::Id,
        query::{NoParameters, Query},
    },
    state::App,
};

/// What can be changed of a job.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JobPatch {
    /// -100 to 100.
    priority: i32,
}

/// Give a job another priority among the tenant's own; a running job keeps it for when it is queued again.
#[utoipa::path(
    patch, path = "/v1/fine_tuning/jobs/{fine_tuning_job_id}", tag = "fine-tuning",
    params(("fine_tuning_job_id" = String, Path)),
    request_body = JobPatch,
    responses(
        (status = 200, body = FineTuningJob),
        (status = 400, body = ErrorResponse, description = "The job has ended, or the field is not allowed"),
        (status = 404, body = ErrorResponse),
    ),
)]
pub async fn update_job(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    Id(id): Id<JobId>,
    Query(NoParameters): Query<NoParameters>,
    JsonBody(JobPatch { priority }): JsonBody<JobPatch>,
) -> Result<Json<FineTuningJob>, ApiError> {
    check_priority(Some(priority))?;
    answer("changed", found(app.store.set_priority(caller.tenant, id, priority).await, KIND, id)?)
}
