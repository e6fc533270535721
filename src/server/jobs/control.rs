//! `POST /v1/fine_tuning/jobs/{fine_tuning_job_id}/cancel`, `/pause` and `/resume`

use axum::{Json, extract::State};
use finetuned_protocol::ids::JobId;
use finetuned_store::Control;

use super::wire::FineTuningJob;
use crate::{
    http::{
        auth::Authenticated,
        body::NoBody,
        error::{ApiError, Code, ErrorResponse},
        found,
        path::Id,
        query::{NoParameters, Query},
    },
    state::App,
};

pub(super) const KIND: &str = "fine-tuning job";

/// Cancel a job at once; its checkpoints stay. A cancelled job is answered unchanged.
#[utoipa::path(
    post, path = "/v1/fine_tuning/jobs/{fine_tuning_job_id}/cancel", tag = "fine-tuning",
    params(("fine_tuning_job_id" = String, Path)),
    responses(
        (status = 200, body = FineTuningJob),
        (status = 400, body = ErrorResponse, description = "The job has succeeded or failed"),
        (status = 404, body = ErrorResponse),
    ),
)]
pub async fn cancel_job(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    Id(id): Id<JobId>,
    Query(NoParameters): Query<NoParameters>,
    _: NoBody,
) -> Result<Json<FineTuningJob>, ApiError> {
    answer("cancelled", found(app.store.cancel_job(caller.tenant, id).await, KIND, id)?)
}

/// Pause a job: it saves a checkpoint within one micro-batch, and is then `queued` with `paused: true`.
#[utoipa::path(
    post, path = "/v1/fine_tuning/jobs/{fine_tuning_job_id}/pause", tag = "fine-tuning",
    params(("fine_tuning_job_id" = String, Path)),
    responses(
        (status = 200, body = FineTuningJob),
        (status = 400, body = ErrorResponse, description = "The job has ended"),
        (status = 404, body = ErrorResponse),
    ),
)]
pub async fn pause_job(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    Id(id): Id<JobId>,
    Query(NoParameters): Query<NoParameters>,
    _: NoBody,
) -> Result<Json<FineTuningJob>, ApiError> {
    answer("paused", found(app.store.pause_job(caller.tenant, id).await, KIND, id)?)
}

/// Let a paused job go on from its last checkpoint.
#[utoipa::path(
    post, path = "/v1/fine_tuning/jobs/{fine_tuning_job_id}/resume", tag = "fine-tuning",
    params(("fine_tuning_job_id" = String, Path)),
    responses(
        (status = 200, body = FineTuningJob),
        (status = 400, body = ErrorResponse, description = "The job has ended"),
        (status = 404, body = ErrorResponse),
    ),
)]
pub async fn resume_job(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    Id(id): Id<JobId>,
    Query(NoParameters): Query<NoParameters>,
    _: NoBody,
) -> Result<Json<FineTuningJob>, ApiError> {
    answer("resumed", found(app.store.resume_job(caller.tenant, id).await, KIND, id)?)
}

pub(super) fn answer(verb: &str, control: Control) -> Result<Json<FineTuningJob>, ApiError> {
    match control {
        Control::Done(job) | Control::Already(job) => Ok(Json(FineTuningJob::from(job))),
        Control::Ended(job) => {
            let message = format!("`{}` is `{}` and can no longer be {verb}", job.id, job.status);
            Err(ApiError::new(Code::InvalidState, message))
        }
    }
}
