//! `GET /v1/fine_tuning/jobs` and `GET /v1/fine_tuning/jobs/{fine_tuning_job_id}`

use axum::{Json, extract::State};
use finetuned_protocol::ids::JobId;
use finetuned_store::{Job, JobPage, MetadataFilter};
use utoipa::IntoParams;

use super::wire::FineTuningJob;
use crate::{
    http::{
        auth::Authenticated,
        error::{ApiError, ErrorResponse},
        found,
        paging::ListPage,
        path::Id,
        query::{Fields, FromQuery, NoParameters, Query},
    },
    state::App,
};

/// Which jobs to list.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code)]
pub struct JobListParams {
    /// `last_id` of the page before.
    after: Option<String>,
    /// 1 to 100; default 20.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<u32>,
    /// `metadata[key]=value`, several of which must all hold, or `metadata=null` for jobs without any.
    #[param(style = DeepObject, explode, value_type = Option<Object>)]
    metadata: Option<String>,
}

impl FromQuery for JobPage {
    fn from_query(fields: &mut Fields) -> Result<Self, ApiError> {
        Ok(Self {
            after: fields.take_parsed("after")?,
            limit: fields.take_number("limit", 20, 1..=100)?,
            metadata: metadata(fields)?,
        })
    }
}

fn metadata(fields: &mut Fields) -> Result<MetadataFilter, ApiError> {
    let pairs = fields.take_map("metadata");
    match fields.take("metadata")?.as_deref() {
        None if pairs.is_empty() => Ok(MetadataFilter::Any),
        None => {
            let count = pairs.len();
            let map: std::collections::BTreeMap<String, String> = pairs.into_iter().collect();
            if map.len() != count {
                return Err(ApiError::invalid("metadata", "a key of `metadata` is given more than once"));
            }
            Ok(MetadataFilter::Contains(map))
        }
        Some("null") if pairs.is_empty() => Ok(MetadataFilter::Absent),
        Some(_) => Err(ApiError::invalid("metadata", "write `metadata[key]=value`, or `metadata=null` alone")),
    }
}

/// List fine-tuning jobs, newest first. The texts of `evaluation.answers` are in the job itself alone.
#[utoipa::path(
    get, path = "/v1/fine_tuning/jobs", tag = "fine-tuning", params(JobListParams),
    responses((status = 200, body = ListPage<FineTuningJob>), (status = 400, body = ErrorResponse)),
)]
pub async fn list_jobs(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    Query(page): Query<JobPage>,
) -> Result<Json<ListPage<FineTuningJob>>, ApiError> {
    let page = app.store.list_jobs(caller.tenant, &page).await?;
    Ok(Json(ListPage::new(page.data.into_iter().map(listed).collect(), page.has_more)))
}

/// A job in a list leaves out the answers' texts, which may be hundreds of kilobytes a job.
fn listed(mut job: Job) -> FineTuningJob {
    if let Some(answers) = job.evaluation.as_mut().and_then(|evaluation| evaluation.answers.as_mut()) {
        answers.answers.clear();
    }
    FineTuningJob::from(job)
}

/// Read a fine-tuning job.
#[utoipa::path(
    get, path = "/v1/fine_tuning/jobs/{fine_tuning_job_id}", tag = "fine-tuning",
    params(("fine_tuning_job_id" = String, Path)),
    responses((status = 200, body = FineTuningJob), (status = 404, body = ErrorResponse)),
)]
pub async fn get_job(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    Id(id): Id<JobId>,
    Query(NoParameters): Query<NoParameters>,
) -> Result<Json<FineTuningJob>, ApiError> {
    let job = found(app.store.get_job(caller.tenant, id).await, "fine-tuning job", id)?;
    Ok(Json(FineTuningJob::from(job)))
}
