//! `GET /v1/organization/usage/fine_tuning`: OpenAI's pages of time buckets, with what this service spends.

use axum::{Json, extract::State};
use finetuned_protocol::ids::{JobId, ProjectId};
use finetuned_store::{Usage, UsageGroups, UsageSpan};
use serde::Serialize;
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};

use crate::{
    http::{
        auth::Authenticated,
        error::{ApiError, ErrorResponse},
        query::{Fields, FromQuery, Query},
    },
    state::App,
};

/// Projects of one request.
const MOST_PROJECTS: usize = 100;
/// The last second of the year 9999, the last that can be written.
const LAST_SECOND: i64 = 253_402_300_799;

/// Buckets of time, oldest first.
#[derive(Debug, Serialize, ToSchema)]
pub struct UsagePage {
    /// Always `page`.
    pub object: &'static str,
    pub data: Vec<UsageBucket>,
    pub has_more: bool,
    /// Give this as `page` to go on; null at the end.
    pub next_page: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct UsageBucket {
    /// Always `bucket`.
    pub object: &'static str,
    /// Unix seconds, inclusive.
    pub start_time: i64,
    /// Unix seconds, exclusive.
    pub end_time: i64,
    /// One for each group that used anything.
    pub results: Vec<UsageResult>,
}

/// Jobs that ended in the bucket.
#[derive(Debug, Serialize, ToSchema)]
pub struct UsageResult {
    /// Always `organization.usage.fine_tuning.result`.
    pub object: &'static str,
    pub num_jobs: u64,
    pub trained_tokens: u64,
    /// From the first start of each training to its job's end.
    pub training_seconds: f64,
    /// Where grouped by `project_id`.
    #[schema(value_type = Option<String>)]
    pub project_id: Option<ProjectId>,
    /// Where grouped by `job_id`.
    #[schema(value_type = Option<String>)]
    pub job_id: Option<JobId>,
    /// The base model, where grouped by `model`.
    pub model: Option<String>,
}

/// Which usage.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code)]
struct UsageParams {
    /// Unix seconds, inclusive; the first bucket begins here.
    #[param(minimum = 0)]
    start_time: i64,
    /// Unix seconds, exclusive; the bucket in which it lies is the last. Default: now.
    #[param(minimum = 0)]
    end_time: Option<i64>,
    /// `1m`, `1h` or `1d` (default).
    #[param(pattern = "^1[mhd]$")]
    bucket_width: Option<String>,
    /// Any of `project_id`, `job_id` and `model`.
    group_by: Option<Vec<String>>,
    /// Only these projects of the organisation.
    #[param(max_items = 100)]
    project_ids: Option<Vec<String>>,
    /// Buckets of a page: at most 31 days (default 7), 168 hours (default 24) or 1440 minutes (default 60).
    #[param(minimum = 1, maximum = 1440)]
    limit: Option<u32>,
    /// `next_page` of the page before.
    page: Option<String>,
}

#[derive(Clone, Copy)]
enum Width {
    Minute,
    Hour,
    Day,
}

impl Width {
    fn parse(text: Option<&str>) -> Result<Self, ApiError> {
        match text {
            None | Some("1d") => Ok(Self::Day),
            Some("1h") => Ok(Self::Hour),
            Some("1m") => Ok(Self::Minute),
            Some(_) => Err(ApiError::invalid("bucket_width", "`bucket_width` must be `1m`, `1h` or `1d`")),
        }
    }

    /// Seconds, and how many buckets a page has by default and at most.
    fn figures(self) -> (u32, u32, u32) {
        match self {
            Self::Minute => (60, 60, 1440),
            Self::Hour => (3600, 24, 168),
            Self::Day => (86_400, 7, 31),
        }
    }
}

/// A checked query.
pub struct UsageQuery {
    /// Of this page.
    start: i64,
    /// `None` for now.
    end: Option<i64>,
    width_seconds: u32,
    limit: u32,
    projects: Option<Vec<ProjectId>>,
    groups: UsageGroups,
}

impl FromQuery for UsageQuery {
    fn from_query(fields: &mut Fields) -> Result<Self, ApiError> {
        let start = seconds(fields, "start_time")?;
        let start =
            start.ok_or_else(|| ApiError::invalid("start_time", "`start_time` must be given in Unix seconds"))?;
        let end = seconds(fields, "end_time")?;
        if end.is_some_and(|end| end <= start) {
            return Err(ApiError::invalid("end_time", "`end_time` must lie after `start_time`"));
        }
        let (width_seconds, default, most) = Width::parse(fields.take("bucket_width")?.as_deref())?.figures();
        let limit = fields.take_number("limit", default, 1..=most)?;
        let groups = groups(fields.take_list("group_by"))?;
        let projects = projects(fields.take_list("project_ids"))?;
        let start = match fields.take("page")? {
            None => start,
            Some(page) => page_start(&page, start, width_seconds)?,
        };
        Ok(Self { start, end, width_seconds, limit, projects, groups })
    }
}

fn seconds(fields: &mut Fields, name: &'static str) -> Result<Option<i64>, ApiError> {
    let Some(text) = fields.take(name)? else { return Ok(None) };
    let seconds = text.parse().ok().filter(|seconds| (0..=LAST_SECOND).contains(seconds) && !text.starts_with('+'));
    let refused = || ApiError::invalid(name, format!("`{name}` must be Unix seconds; it is `{text}`"));
    seconds.map(Some).ok_or_else(refused)
}

fn groups(names: Vec<String>) -> Result<UsageGroups, ApiError> {
    let mut groups = UsageGroups::default();
    for name in names {
        match name.as_str() {
            "project_id" => groups.by_project = true,
            "job_id" => groups.by_job = true,
            "model" => groups.by_model = true,
            _ => {
                let message = format!("`group_by` must be `project_id`, `job_id` or `model`; it is `{name}`");
                return Err(ApiError::invalid("group_by", message));
            }
        }
    }
    Ok(groups)
}

fn projects(ids: Vec<String>) -> Result<Option<Vec<ProjectId>>, ApiError> {
    if ids.len() > MOST_PROJECTS {
        return Err(ApiError::invalid("project_ids", format!("`project_ids` has at most {MOST_PROJECTS} items")));
    }
    let refused = |error| ApiError::invalid("project_ids", format!("`project_ids` is not valid: {error}"));
    let ids: Vec<ProjectId> = ids.iter().map(|id| id.parse().map_err(refused)).collect::<Result<_, _>>()?;
    Ok((!ids.is_empty()).then_some(ids))
}

/// A page's name is where its first bucket begins.
fn page_start(page: &str, start: i64, width_seconds: u32) -> Result<i64, ApiError> {
    let begins = page.strip_prefix("page_").and_then(|digits| digits.parse::<i64>().ok());
    let begins = begins
        .filter(|begins| (start..=LAST_SECOND).contains(begins) && (begins - start) % i64::from(width_seconds) == 0);
    begins.ok_or_else(|| ApiError::invalid("page", "`page` must be `next_page` of a page of the same query"))
}

/// What the organisation's jobs used, by the time at which they ended.
#[utoipa::path(
    get, path = "/v1/organization/usage/fine_tuning", tag = "organization", params(UsageParams),
    responses((status = 200, body = UsagePage), (status = 400, body = ErrorResponse)),
)]
pub async fn get_usage(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    Query(query): Query<UsageQuery>,
) -> Result<Json<UsagePage>, ApiError> {
    let width = i64::from(query.width_seconds);
    let end = query.end.unwrap_or_else(|| OffsetDateTime::now_utc().unix_timestamp() + 1);
    let left = (end - query.start).max(0).unsigned_abs().div_ceil(u64::from(query.width_seconds));
    let buckets = left.min(u64::from(query.limit)) as u32;
    let start = OffsetDateTime::from_unix_timestamp(query.start).map_err(ApiError::internal)?;
    let span = UsageSpan { start, bucket_seconds: query.width_seconds, buckets, projects: query.projects };
    let used = app.store.usage(caller.tenant, &span, query.groups).await?;
    let bucket = |index: u32| {
        let start_time = query.start + i64::from(index) * width;
        let results = used.iter().filter(|line| line.bucket == index).map(result).collect();
        UsageBucket { object: "bucket", start_time, end_time: start_time + width, results }
    };
    let has_more = left > u64::from(buckets);
    let next_page = has_more.then(|| format!("page_{}", query.start + i64::from(buckets) * width));
    Ok(Json(UsagePage { object: "page", data: (0..buckets).map(bucket).collect(), has_more, next_page }))
}

fn result(line: &Usage) -> UsageResult {
    let Usage { bucket: _, project, job, model, jobs, trained_tokens, training_seconds } = line;
    UsageResult {
        object: "organization.usage.fine_tuning.result",
        num_jobs: *jobs,
        trained_tokens: *trained_tokens,
        training_seconds: *training_seconds,
        project_id: *project,
        job_id: *job,
        model: model.clone(),
    }
}
