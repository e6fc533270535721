//! `POST /v1/fine_tuning/jobs/{fine_tuning_job_id}/evaluation` and `GET .../evaluations`

use axum::{Json, extract::State, response::Response};
use finetuned_protocol::{
    evaluation::EvaluationReport,
    evaluation_run::{EvaluationRunRequest, EvaluationRunSpec},
    ids::{EvaluationRunId, JobId, TenantId},
    status::{EvaluationRunStatus, JobStatus},
};
use finetuned_store::{EvaluationRun, StoreError, fingerprint};
use serde::Serialize;
use utoipa::ToSchema;

use super::{control::KIND, create::compile_patterns, failure::Failure, judging::check_judge, wire::Progress};
use crate::{
    http::{
        auth::Authenticated,
        body::OptionalJsonBody,
        error::{ApiError, Code, ErrorResponse},
        found,
        idempotency::{Repetition, answer_created},
        paging::{ListPage, Listed},
        path::Id,
        query::{NoParameters, Query},
    },
    state::App,
};

/// A further evaluation of a job.
#[derive(Debug, Serialize, ToSchema)]
pub struct JobEvaluationRun {
    /// Always `fine_tuning.job.evaluation.run`.
    pub object: &'static str,
    #[schema(value_type = String)]
    pub id: EvaluationRunId,
    #[schema(value_type = String)]
    pub fine_tuning_job_id: JobId,
    pub status: EvaluationRunStatus,
    /// Unix time in seconds.
    pub created_at: i64,
    /// Unix time in seconds.
    pub started_at: Option<i64>,
    /// Unix time in seconds.
    pub finished_at: Option<i64>,
    pub settings: EvaluationRunSpec,
    /// Whether the job asked for it itself, so that its report is the job's own, too.
    pub is_of_job: bool,
    /// How far it is, while it runs.
    pub progress: Option<Progress>,
    /// Once it has succeeded. The answers themselves are in `/evaluation/rows?run=`.
    pub report: Option<EvaluationReport>,
    /// Why it failed.
    pub error: Option<Failure>,
}

impl From<EvaluationRun> for JobEvaluationRun {
    fn from(run: EvaluationRun) -> Self {
        Self {
            object: "fine_tuning.job.evaluation.run",
            id: run.id,
            fine_tuning_job_id: run.job,
            status: run.status,
            created_at: run.created_at.unix_timestamp(),
            started_at: run.started_at.map(|at| at.unix_timestamp()),
            finished_at: run.finished_at.map(|at| at.unix_timestamp()),
            settings: run.settings,
            is_of_job: run.is_of_job,
            progress: run.progress.map(Progress::from),
            report: run.report.map(without_rows),
            error: run.error.map(Failure::from),
        }
    }
}

impl Listed for JobEvaluationRun {
    fn id(&self) -> String {
        self.id.to_string()
    }
}

/// A report without its rows, which have an operation of their own.
pub fn without_rows(mut report: EvaluationReport) -> EvaluationReport {
    if let Some(answers) = report.answers.as_mut() {
        answers.answers.clear();
    }
    report
}

/// Evaluate a succeeded job once more by other settings. Reports stand side by side; the job's own stays.
#[utoipa::path(
    post, path = "/v1/fine_tuning/jobs/{fine_tuning_job_id}/evaluation", tag = "fine-tuning",
    params(("fine_tuning_job_id" = String, Path)),
    request_body = Option<EvaluationRunRequest>,
    responses(
        (status = 200, body = JobEvaluationRun),
        (status = 400, body = ErrorResponse, description = "The job has not succeeded, or a setting is not allowed"),
        (status = 404, body = ErrorResponse),
        (status = 422, body = ErrorResponse, description = "The idempotency key was used for another request"),
    ),
)]
pub async fn create_evaluation(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    Id(id): Id<JobId>,
    repetition: Repetition,
    Query(NoParameters): Query<NoParameters>,
    OptionalJsonBody(request): OptionalJsonBody<EvaluationRunRequest>,
) -> Result<Response, ApiError> {
    let request = request.unwrap_or_default();
    let job = found(app.store.get_job(caller.tenant, id).await, KIND, id)?;
    let effective = job.effective.filter(|_| job.status == JobStatus::Succeeded).ok_or_else(|| {
        let message = format!("`{id}` is `{}`; only a succeeded job can be evaluated again", job.status);
        ApiError::new(Code::InvalidState, message)
    })?;
    if job.evaluation.is_none_or(|report| report.held_out_rows == 0) {
        let message =
            format!("`{id}` has no held-out row to evaluate on; train with `eval_fraction` or a validation file");
        return Err(ApiError::new(Code::InvalidState, message));
    }
    let settings = request.resolve(&effective)?;
    compile_patterns(&settings.evaluation)?;
    check_judge(&app, caller.tenant, (&settings.evaluation, &settings.answers)).await?;
    let canonical = serde_json::to_vec(&settings).map_err(ApiError::internal)?;
    let route = "POST /v1/fine_tuning/jobs/{id}/evaluation";
    let idempotency = repetition.of(&caller, route, fingerprint(&[id.to_string().as_bytes(), &canonical]));
    let created = app.store.create_evaluation_run(caller.tenant, id, &settings, &idempotency).await;
    let created = found(created, KIND, id)?;
    Ok(answer_created(created, JobEvaluationRun::from))
}

/// List a job's further evaluations, newest first. The job's own is in `/evaluation`.
#[utoipa::path(
    get, path = "/v1/fine_tuning/jobs/{fine_tuning_job_id}/evaluations", tag = "fine-tuning",
    params(("fine_tuning_job_id" = String, Path)),
    responses((status = 200, body = ListPage<JobEvaluationRun>), (status = 404, body = ErrorResponse)),
)]
pub async fn list_evaluations(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    Id(id): Id<JobId>,
    Query(NoParameters): Query<NoParameters>,
) -> Result<Json<ListPage<JobEvaluationRun>>, ApiError> {
    let runs = found(app.store.evaluation_runs(caller.tenant, id).await, KIND, id)?;
    Ok(Json(ListPage::new(runs.into_iter().map(JobEvaluationRun::from).collect(), false)))
}

/// The run that a query names, of a job that the caller has.
///
/// # Errors
/// A 400 where the job has no such run.
pub async fn named_run(
    app: &App,
    tenant: TenantId,
    (job, run): (JobId, EvaluationRunId),
) -> Result<EvaluationRun, ApiError> {
    match app.store.evaluation_run(tenant, job, run).await {
        Err(StoreError::NotFound { what: "evaluation run" }) => {
            let message = format!("`{job}` has no evaluation `{run}`; GET .../evaluations lists what it has");
            Err(ApiError::invalid("run", message))
        }
        run => found(run, KIND, job),
    }
}
