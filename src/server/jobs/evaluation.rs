//! `GET /v1/fine_tuning/jobs/{fine_tuning_job_id}/evaluation`

use axum::{Json, extract::State};
use finetuned_protocol::{
    evaluation::EvaluationReport,
    evaluation_spec::{ErrorCategory, EvaluationSpec},
    ids::JobId,
    status::JobStatus,
};
use serde::Serialize;
use utoipa::ToSchema;

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

/// Base against tuned.
#[derive(Debug, Serialize, ToSchema)]
pub struct JobEvaluation {
    /// Always `fine_tuning.job.evaluation`.
    pub object: &'static str,
    #[schema(value_type = String)]
    pub fine_tuning_job_id: JobId,
    pub status: JobStatus,
    /// How the answers are judged, once the files are validated.
    pub settings: Option<EvaluationSpec>,
    /// Null until the job has succeeded. The answers themselves are in `/evaluation/rows`.
    pub report: Option<EvaluationReport>,
    /// What each kind of error is.
    pub definitions: Vec<CategoryDefinition>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct CategoryDefinition {
    pub category: ErrorCategory,
    pub definition: &'static str,
}

/// Read what a job's base model and its tuned one can do: likelihood, every metric and every kind of error of both, with
/// the interval of their difference.
#[utoipa::path(
    get, path = "/v1/fine_tuning/jobs/{fine_tuning_job_id}/evaluation", tag = "fine-tuning",
    params(("fine_tuning_job_id" = String, Path)),
    responses((status = 200, body = JobEvaluation), (status = 404, body = ErrorResponse)),
)]
pub async fn get_evaluation(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    Id(id): Id<JobId>,
    Query(NoParameters): Query<NoParameters>,
) -> Result<Json<JobEvaluation>, ApiError> {
    let job = found(app.store.get_job(caller.tenant, id).await, "fine-tuning job", id)?;
    let mut report = job.evaluation;
    if let Some(answers) = report.as_mut().and_then(|report| report.answers.as_mut()) {
        answers.answers.clear();
    }
    let definition =
        |category: &ErrorCategory| CategoryDefinition { category: *category, definition: category.definition() };
    Ok(Json(JobEvaluation {
        object: "fine_tuning.job.evaluation",
        fine_tuning_job_id: id,
        status: job.status,
        settings: job.effective.map(|effective| effective.evaluation),
        report,
        definitions: ErrorCategory::ALL.iter().map(definition).collect(),
    }))
}
