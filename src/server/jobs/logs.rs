//! `GET /v1/fine_tuning/jobs/{fine_tuning_job_id}/logs`

use axum::{Json, extract::State};
use finetuned_protocol::ids::JobId;
use finetuned_store::AttemptLog;
use serde::Serialize;
use utoipa::ToSchema;

use super::control::KIND;
use crate::{
    http::{
        auth::Authenticated,
        error::{ApiError, ErrorResponse},
        found,
        path::Id,
        query::{NoParameters, Query},
    },
    state::App,
};

/// What the engines of a job said last.
#[derive(Debug, Serialize, ToSchema)]
pub struct JobLogs {
    /// Always `list`.
    object: &'static str,
    /// The newest attempt first.
    data: Vec<JobLog>,
}

/// What the engine of one attempt said last.
#[derive(Debug, Serialize, ToSchema)]
pub struct JobLog {
    /// Always `fine_tuning.job.log`.
    object: &'static str,
    /// Counted from 1; an attempt that a shutdown ended shares its number with the next.
    attempt: u32,
    recorded_at: i64,
    /// At most 500, oldest first.
    lines: Vec<String>,
}

impl From<AttemptLog> for JobLog {
    fn from(log: AttemptLog) -> Self {
        let AttemptLog { task: _, attempt, recorded_at, lines } = log;
        Self { object: "fine_tuning.job.log", attempt, recorded_at: recorded_at.unix_timestamp(), lines }
    }
}

/// Read the last lines of each attempt's engine, kept when the attempt ends: at most 20 attempts.
#[utoipa::path(
    get, path = "/v1/fine_tuning/jobs/{fine_tuning_job_id}/logs", tag = "fine-tuning",
    params(("fine_tuning_job_id" = String, Path)),
    responses((status = 200, body = JobLogs), (status = 404, body = ErrorResponse)),
)]
pub async fn get_logs(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    Id(id): Id<JobId>,
    Query(NoParameters): Query<NoParameters>,
) -> Result<Json<JobLogs>, ApiError> {
    let logs = found(app.store.attempt_logs(caller.tenant, id).await, KIND, id)?;
    Ok(Json(JobLogs { object: "list", data: logs.into_iter().map(JobLog::from).collect() }))
}
