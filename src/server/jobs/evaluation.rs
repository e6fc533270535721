//! `GET /v1/fine_tuning/jobs/{fine_tuning_job_id}/evaluation`

use axum::{Json, extract::State};
use finetuned_protocol::{
    evaluation::EvaluationReport,
    evaluation_spec::{ErrorCategory, EvaluationSpec},
    ids::{EvaluationRunId, JobId},
    status::{EvaluationRunStatus, JobStatus},
};
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::evaluation_runs::{named_run, without_rows};
use crate::{
    http::{
        auth::Authenticated,
        error::{ApiError, ErrorResponse},
        found,
        path::Id,
        query::{Fields, FromQuery, Query},
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
    /// The job's.
    pub status: JobStatus,
    /// The further evaluation that `run` names, where it names one.
    #[schema(value_type = Option<String>)]
    pub run: Option<EvaluationRunId>,
    /// Where that one stands.
    pub run_status: Option<EvaluationRunStatus>,
    /// How the answers are judged, once the files are validated.
    pub settings: Option<EvaluationSpec>,
    /// Null until the job, or the run, has succeeded. The answers themselves are in `/evaluation/rows`.
    pub report: Option<EvaluationReport>,
    /// What each kind of error is.
    pub definitions: Vec<CategoryDefinition>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct CategoryDefinition {
    pub category: ErrorCategory,
    pub definition: &'static str,
}

/// Which evaluation is meant.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct RunQuery {
    /// A further evaluation; without it, the job's own.
    #[param(value_type = Option<String>)]
    run: Option<EvaluationRunId>,
}

impl FromQuery for RunQuery {
    fn from_query(fields: &mut Fields) -> Result<Self, ApiError> {
        Ok(Self { run: fields.take_parsed("run")? })
    }
}

/// Read what a job's base model and its tuned one can do: likelihood, every metric and every kind of error of both, with
/// the interval of their difference. `run` names a further evaluation.
#[utoipa::path(
    get, path = "/v1/fine_tuning/jobs/{fine_tuning_job_id}/evaluation", tag = "fine-tuning",
    params(("fine_tuning_job_id" = String, Path), RunQuery),
    responses((status = 200, body = JobEvaluation), (status = 400, body = ErrorResponse), (status = 404, body = ErrorResponse)),
)]
pub async fn get_evaluation(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    Id(id): Id<JobId>,
    Query(RunQuery { run }): Query<RunQuery>,
) -> Result<Json<JobEvaluation>, ApiError> {
    let job = found(app.store.get_job(caller.tenant, id).await, "fine-tuning job", id)?;
    let run = match run {
        Some(run) => Some(named_run(&app, caller.tenant, (id, run)).await?),
        None => None,
    };
    let (run_id, run_status) = run.as_ref().map(|run| (run.id, run.status)).unzip();
    let (settings, report) = match run {
        Some(run) => (Some(run.settings.evaluation), run.report),
        None => (job.effective.map(|effective| effective.evaluation), job.evaluation),
    };
    let definition =
        |category: &ErrorCategory| CategoryDefinition { category: *category, definition: category.definition() };
    Ok(Json(JobEvaluation {
        object: "fine_tuning.job.evaluation",
        fine_tuning_job_id: id,
        status: job.status,
        run: run_id,
        run_status,
        settings,
        report: report.map(without_rows),
        definitions: ErrorCategory::ALL.iter().map(definition).collect(),
    }))
}
