//! `POST /v1/fine_tuning/jobs/{fine_tuning_job_id}/start`

use axum::{Json, extract::State};
use finetuned_protocol::{ids::JobId, status::JobStatus};

use super::{
    control::{KIND, answer},
    wire::FineTuningJob,
};
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

/// Start a job that was created with `auto_start: false`, once it is validated. One that runs is answered unchanged.
#[utoipa::path(
    post, path = "/v1/fine_tuning/jobs/{fine_tuning_job_id}/start", tag = "fine-tuning",
    params(("fine_tuning_job_id" = String, Path)),
    responses(
        (status = 200, body = FineTuningJob),
        (status = 400, body = ErrorResponse, description = "The job is not validated yet, or has ended"),
        (status = 404, body = ErrorResponse),
    ),
)]
pub async fn start_job(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    Id(id): Id<JobId>,
    Query(NoParameters): Query<NoParameters>,
    _: NoBody,
) -> Result<Json<FineTuningJob>, ApiError> {
    let job = found(app.store.get_job(caller.tenant, id).await, KIND, id)?;
    if job.status == JobStatus::ValidatingFiles {
        let message = format!("`{id}` is still being validated; start it when its status is `queued`");
        return Err(ApiError::new(Code::InvalidState, message));
    }
    answer("started", found(app.store.resume_job(caller.tenant, id).await, KIND, id)?)
}
