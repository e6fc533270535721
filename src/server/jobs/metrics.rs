//! `GET /v1/fine_tuning/jobs/{fine_tuning_job_id}/metrics`

use std::collections::BTreeMap;

use axum::{Json, extract::State};
use finetuned_protocol::{ids::JobId, metrics::ALL, optimization::HeldOutMetric};
use finetuned_store::{MetricPoint, MetricQuery, Series};
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

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

/// Steps are counted in 31 bits.
const LAST_STEP: u32 = i32::MAX as u32;
/// Points of a series where nothing is asked for: more than a chart shows.
const DEFAULT_POINTS: u32 = 1000;
const MOST_POINTS: u32 = 10_000;

/// The series of a job.
#[derive(Debug, Serialize, ToSchema)]
pub struct JobMetrics {
    /// Always `fine_tuning.job.metrics`.
    pub object: &'static str,
    #[schema(value_type = String)]
    pub fine_tuning_job_id: JobId,
    /// Points by name, each series by ascending step.
    pub series: BTreeMap<String, Vec<Point>>,
    /// The series of which not all points are given, with how many there are between `from_step` and `to_step`.
    pub thinned: BTreeMap<String, u64>,
}

/// A number of a series.
#[derive(Debug, Serialize, ToSchema)]
pub struct Point {
    pub step: u32,
    pub value: f64,
    /// Unix seconds, with fractions.
    pub time: f64,
}

impl From<MetricPoint> for Point {
    fn from(MetricPoint { step, value, time }: MetricPoint) -> Self {
        Self { step, value, time: (time.unix_timestamp_nanos() / 1_000_000) as f64 / 1e3 }
    }
}

/// Which points to give.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Chosen {
    /// Names with commas between them; all series where absent.
    #[param(value_type = Option<String>)]
    names: Vec<String>,
    /// First step; default 0.
    #[param(value_type = Option<u32>)]
    from_step: u32,
    /// Last step, inclusive; all that follow where absent.
    #[param(value_type = Option<u32>)]
    to_step: u32,
    /// Most points of a series, 4 to 10000; default 1000. A series of more is thinned out and named in `thinned`: its first
    /// and last point stay, and of equally large groups of points the lowest and the highest value of each.
    #[param(value_type = Option<u32>)]
    max_points: u32,
}

impl FromQuery for Chosen {
    fn from_query(fields: &mut Fields) -> Result<Self, ApiError> {
        let text = fields.take("names")?.unwrap_or_default();
        let names: Vec<String> =
            text.split(',').map(str::trim).filter(|name| !name.is_empty()).map(ToOwned::to_owned).collect();
        if let Some(unknown) = names.iter().find(|name| !is_series(name)) {
            let message = format!(
                "no series is called `{unknown}`; there are {}, and `valid_` with the name of a text metric",
                ALL.join(", ")
            );
            return Err(ApiError::invalid("names", message));
        }
        let from_step = fields.take_number("from_step", 0, 0..=LAST_STEP)?;
        let to_step = fields.take_number("to_step", LAST_STEP, 0..=LAST_STEP)?;
        if from_step > to_step {
            let message = format!("`from_step` is {from_step}, which comes after `to_step`, {to_step}");
            return Err(ApiError::invalid("from_step", message));
        }
        let max_points = fields.take_number("max_points", DEFAULT_POINTS, 4..=MOST_POINTS)?;
        Ok(Self { names, from_step, to_step, max_points })
    }
}

fn is_series(name: &str) -> bool {
    ALL.contains(&name) || name.parse::<HeldOutMetric>().is_ok()
}

/// Read the numbers that a job recorded, at most `max_points` of each series.
#[utoipa::path(
    get, path = "/v1/fine_tuning/jobs/{fine_tuning_job_id}/metrics", tag = "fine-tuning",
    params(("fine_tuning_job_id" = String, Path), Chosen),
    responses((status = 200, body = JobMetrics), (status = 404, body = ErrorResponse)),
)]
pub async fn get_metrics(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    Id(id): Id<JobId>,
    Query(Chosen { names, from_step, to_step, max_points }): Query<Chosen>,
) -> Result<Json<JobMetrics>, ApiError> {
    let query = MetricQuery { names: &names, from_step, to_step, max_points: Some(max_points) };
    let found = found(app.store.metrics(caller.tenant, id, query).await, "fine-tuning job", id)?;
    let is_thinned = |series: &&Series| series.recorded > series.points.len() as u64;
    let thinned = found.iter().filter(is_thinned).map(|series| (series.name.clone(), series.recorded)).collect();
    let series =
        found.into_iter().map(|series| (series.name, series.points.into_iter().map(Point::from).collect())).collect();
    Ok(Json(JobMetrics { object: "fine_tuning.job.metrics", fine_tuning_job_id: id, series, thinned }))
}
