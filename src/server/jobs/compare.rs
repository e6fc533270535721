//! `GET /v1/fine_tuning/jobs/{fine_tuning_job_id}/compare`

use std::collections::BTreeMap;

use axum::{Json, extract::State};
use finetuned_evaluation::{EvaluationError, compare_jobs};
use finetuned_protocol::{
    comparison::{JobDifference, JobsComparison, SharedRow},
    evaluation::AnswersReport,
    ids::{JobId, TenantId},
    spec::TrainingSpec,
    text_metric::TextMetric,
};
use finetuned_store::{Job, StoreError};
use serde::Serialize;
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use crate::{
    http::{
        auth::Authenticated,
        error::{ApiError, Code, ErrorResponse},
        found,
        paging::{ListPage, Listed},
        path::Id,
        query::{Fields, FromQuery, Query},
    },
    state::App,
};

/// Which jobs, and which of their rows.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct CompareQuery {
    /// The job to compare with.
    #[param(value_type = String)]
    with: JobId,
    /// A metric's name: rows come by `with`'s figure less the job's, the smallest first. By default by the job's lines.
    #[param(value_type = Option<String>)]
    sort: Option<TextMetric>,
    /// `last_id` of the page before.
    after: Option<String>,
    /// Rows of the page, 1 to 256; default 20.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 256)]
    limit: u32,
}

impl FromQuery for CompareQuery {
    fn from_query(fields: &mut Fields) -> Result<Self, ApiError> {
        let with = fields.take_parsed("with")?.ok_or_else(|| {
            ApiError::new(Code::MissingParameter, "`with` must name the job to compare with").param("with")
        })?;
        let sort = fields.take("sort")?.map(|name| {
            name.parse().map_err(|_| {
                ApiError::invalid("sort", format!("`sort` is a metric of both jobs; none is called `{name}`"))
            })
        });
        let (sort, after) = (sort.transpose()?, fields.take("after")?);
        Ok(Self { with, sort, after, limit: fields.take_number("limit", 20, 1..=256)? })
    }
}

/// A setting in which two jobs differ.
#[derive(Debug, Serialize, ToSchema)]
pub struct SettingDifference {
    /// JSON pointer into `effective`.
    pub setting: String,
    /// Null where the job has no such setting.
    pub job: Value,
    pub with: Value,
}

impl Listed for SharedRow {
    fn id(&self) -> String {
        self.row_id.clone()
    }
}

/// Two jobs side by side.
#[derive(Debug, Serialize, ToSchema)]
pub struct JobComparison {
    /// Always `fine_tuning.job.comparison`.
    pub object: &'static str,
    #[schema(value_type = String)]
    pub fine_tuning_job_id: JobId,
    #[schema(value_type = String)]
    pub with: JobId,
    /// Held-out rows that the job answered, that `with` answered, and that both did.
    pub job_rows: u64,
    pub with_rows: u64,
    pub shared_rows: u64,
    /// Each metric of both tuned models.
    #[schema(value_type = BTreeMap<String, JobDifference>)]
    pub metrics: BTreeMap<TextMetric, JobDifference>,
    /// Each kind of error: the share of answers that have it (0 to 1).
    pub categories: BTreeMap<String, JobDifference>,
    /// What was set differently, in the order of its names.
    pub settings: Vec<SettingDifference>,
    /// The rows that both answered.
    pub rows: ListPage<SharedRow>,
}

/// Compare two jobs on the held-out rows that both answered: each metric and kind of error of their tuned models with the
/// interval of the paired difference, the settings that differ, and the answers row by row.
///
/// Rows are found by their content (SHA-256 of prompt and reference), so that the jobs may have different files.
#[utoipa::path(
    get, path = "/v1/fine_tuning/jobs/{fine_tuning_job_id}/compare", tag = "fine-tuning",
    params(("fine_tuning_job_id" = String, Path), CompareQuery),
    responses(
        (status = 200, body = JobComparison),
        (status = 400, body = ErrorResponse, description = "A job without answers, or no row that both answered"),
        (status = 404, body = ErrorResponse),
    ),
)]
pub async fn compare_job(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    Id(id): Id<JobId>,
    Query(query): Query<CompareQuery>,
) -> Result<Json<JobComparison>, ApiError> {
    let job = found(app.store.get_job(caller.tenant, id).await, "fine-tuning job", id)?;
    let with = named_job(&app, caller.tenant, "with", query.with).await?;
    let settings = differences(job.effective.as_ref(), with.effective.as_ref())?;
    let (ours, theirs, seed) = (answers_of(&job, "the job")?, answers_of(&with, "`with`")?, u64::from(job.seed));
    let (ours, theirs) = (ours.clone(), theirs.clone());
    let comparing = tokio::task::spawn_blocking(move || compare_jobs(&ours, &theirs, seed));
    let compared = comparing.await.map_err(ApiError::internal)?.map_err(|error| refusal(error, &job, &with))?;
    let JobsComparison { job_rows, with_rows, metrics, categories, rows } = compared;
    Ok(Json(JobComparison {
        object: "fine_tuning.job.comparison",
        fine_tuning_job_id: id,
        with: with.id,
        job_rows,
        with_rows,
        shared_rows: rows.len() as u64,
        metrics,
        categories,
        settings,
        rows: page(rows, &query)?,
    }))
}

/// A job that a request names beside its path; one that is not there is the request's fault.
///
/// # Errors
/// A 400 that names the parameter.
pub async fn named_job(app: &App, tenant: TenantId, param: &str, id: JobId) -> Result<Job, ApiError> {
    app.store.get_job(tenant, id).await.map_err(|error| match error {
        StoreError::NotFound { .. } => ApiError::invalid(param, format!("`{param}`: no such fine-tuning job: `{id}`")),
        error => error.into(),
    })
}

/// The answers that a job's models gave.
///
/// # Errors
/// A 400 that says why there are none.
pub fn answers_of<'j>(job: &'j Job, which: &str) -> Result<&'j AnswersReport, ApiError> {
    let evaluation = job.evaluation.as_ref().ok_or_else(|| {
        let message =
            format!("{which}, `{}`, is `{}` and has no evaluation; wait until it has succeeded", job.id, job.status);
        ApiError::new(Code::InvalidState, message)
    })?;
    evaluation.answers.as_ref().filter(|answers| !answers.answers.is_empty()).ok_or_else(|| {
        let message = format!(
            "{which}, `{}`, has no answers to held-out rows; make a job with `answers.rows` above 0 on rows with prompts",
            job.id
        );
        ApiError::new(Code::InvalidState, message)
    })
}

fn refusal(error: EvaluationError, job: &Job, with: &Job) -> ApiError {
    let rows = |job: &Job| answers_of(job, "").map_or(0, |answers| answers.answers.len());
    match error {
        EvaluationError::NoRows => {
            let message = format!(
                "no held-out row was answered by both jobs: `{}` answered {} rows and `{}` {} others; give both the same \
                 `validation_file`",
                job.id,
                rows(job),
                with.id,
                rows(with)
            );
            ApiError::invalid("with", message)
        }
        error => ApiError::internal(error),
    }
}

fn page(mut rows: Vec<SharedRow>, query: &CompareQuery) -> Result<ListPage<SharedRow>, ApiError> {
    if let Some(metric) = query.sort {
        let figure = |row: &SharedRow| Some(row.with.scores.get(&metric)? - row.job.scores.get(&metric)?);
        if rows.iter().all(|row| figure(row).is_none()) {
            return Err(ApiError::invalid("sort", format!("no row has the metric `{metric}` of both jobs")));
        }
        // Rows without the figure come last; equal ones stay in the order of their lines.
        rows.sort_by(|a, b| match (figure(a), figure(b)) {
            (Some(a), Some(b)) => a.total_cmp(&b),
            (a, b) => b.is_some().cmp(&a.is_some()),
        });
    }
    if let Some(after) = &query.after {
        let place = rows.iter().position(|row| row.row_id == *after);
        let place = place.ok_or_else(|| ApiError::invalid("after", format!("none of these rows is `{after}`")))?;
        rows.drain(..=place);
    }
    let has_more = rows.len() > query.limit as usize;
    rows.truncate(query.limit as usize);
    Ok(ListPage::new(rows, has_more))
}

/// The settings that are not the same, by their JSON pointers.
fn differences(job: Option<&TrainingSpec>, with: Option<&TrainingSpec>) -> Result<Vec<SettingDifference>, ApiError> {
    let value = |spec: Option<&TrainingSpec>| serde_json::to_value(spec).map_err(ApiError::internal);
    let mut found = Vec::new();
    collect(String::new(), &value(job)?, &value(with)?, &mut found);
    Ok(found)
}

fn collect(setting: String, job: &Value, with: &Value, found: &mut Vec<SettingDifference>) {
    match (job, with) {
        (Value::Object(ours), Value::Object(theirs)) => {
            let mut names: Vec<&String> = ours.keys().chain(theirs.keys()).collect();
            names.sort_unstable();
            names.dedup();
            for name in names {
                let of = |fields: &serde_json::Map<String, Value>| fields.get(name).cloned().unwrap_or_default();
                let token = name.replace('~', "~0").replace('/', "~1");
                collect(format!("{setting}/{token}"), &of(ours), &of(theirs), found);
            }
        }
        (job, with) if job == with => {}
        (job, with) => found.push(SettingDifference { setting, job: job.clone(), with: with.clone() }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn settings_that_differ_are_named_by_their_place() {
        let (job, with) = (
            json!({"seed": 1, "lora": {"r": 8, "alpha": 16}, "only": true, "same": [1, 2]}),
            json!({"seed": 1, "lora": {"r": 16, "alpha": 16}, "same": [1, 2], "a/b": 3}),
        );
        let mut found = Vec::new();
        collect(String::new(), &job, &with, &mut found);
        let found: Vec<_> = found.iter().map(|one| (one.setting.as_str(), &one.job, &one.with)).collect();
        let expected = [
            ("/a~1b", &Value::Null, &json!(3)),
            ("/lora/r", &json!(8), &json!(16)),
            ("/only", &json!(true), &Value::Null),
        ];
        assert_eq!(found, expected);
    }
}
