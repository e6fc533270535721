//! `POST /v1/fine_tuning/jobs/{fine_tuning_job_id}/retry`

use axum::{extract::State, response::Response};
use finetuned_protocol::ids::JobId;
use finetuned_store::fingerprint;

use super::{control::KIND, wire::FineTuningJob};
use crate::{
    http::{
        auth::Authenticated,
        body::NoBody,
        error::{ApiError, ErrorResponse},
        found,
        idempotency::{Repetition, answer_created},
        path::Id,
        query::{NoParameters, Query},
    },
    state::App,
};

/// Make a new job from one that failed or was cancelled: the same request, files and seed, from its last checkpoint on.
#[utoipa::path(
    post, path = "/v1/fine_tuning/jobs/{fine_tuning_job_id}/retry", tag = "fine-tuning",
    params(("fine_tuning_job_id" = String, Path)),
    responses(
        (status = 200, body = FineTuningJob, description = "The new job; its `retry_of` is the old one"),
        (status = 400, body = ErrorResponse, description = "The job has not failed and was not cancelled"),
        (status = 404, body = ErrorResponse),
        (status = 422, body = ErrorResponse, description = "The idempotency key was used for another request"),
    ),
)]
pub async fn retry_job(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    Id(id): Id<JobId>,
    repetition: Repetition,
    Query(NoParameters): Query<NoParameters>,
    _: NoBody,
) -> Result<Response, ApiError> {
    let route = "POST /v1/fine_tuning/jobs/{id}/retry";
    let idempotency = repetition.of(&caller, route, fingerprint(&[id.to_string().as_bytes()]));
    let created = found(app.store.retry_job(caller.tenant, id, &idempotency).await, KIND, id)?;
    Ok(answer_created(created, FineTuningJob::from))
}
