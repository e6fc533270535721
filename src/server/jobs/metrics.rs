//! `GET /v1/fine_tuning/jobs/{fine_tuning_job_id}/metrics`

use std::collections::BTreeMap;

use axum::{Json, extract::State};
use finetuned_protocol::{ids::JobId, metrics::ALL};
use finetuned_store::MetricPoint;
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

/// The series of a job.
#[derive(Debug, Serialize, ToSchema)]
pub struct JobMetrics {
    /// Always `fine_tuning.job.metrics`.
    pub object: &'static str,
    #[schema(value_type = String)]
    pub fine_tuning_job_id: JobId,
    /// Points by name, each series by ascending step.
    pub series: BTreeMap<String, Vec<Point>>,
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

/// Which series to give.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Names {
    /// Names with commas between them; all series where absent.
    #[param(value_type = Option<String>)]
    names: Vec<String>,
}

impl FromQuery for Names {
    fn from_query(fields: &mut Fields) -> Result<Self, ApiError> {
        let text = fields.take("names")?.unwrap_or_default();
        let names: Vec<String> =
            text.split(',').map(str::trim).filter(|name| !name.is_empty()).map(ToOwned::to_owned).collect();
        if let Some(unknown) = names.iter().find(|name| !ALL.contains(&name.as_str())) {
            let message = format!("no series is called `{unknown}`; there are {}", ALL.join(", "));
            return Err(ApiError::invalid("names", message));
        }
        Ok(Self { names })
    }
}

/// Read the numbers that a job recorded.
#[utoipa::path(
    get, path = "/v1/fine_tuning/jobs/{fine_tuning_job_id}/metrics", tag = "fine-tuning",
    params(("fine_tuning_job_id" = String, Path), Names),
    responses((status = 200, body = JobMetrics), (status = 404, body = ErrorResponse)),
)]
pub async fn get_metrics(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    Id(id): Id<JobId>,
    Query(Names { names }): Query<Names>,
) -> Result<Json<JobMetrics>, ApiError> {
    let series = found(app.store.metrics(caller.tenant, id, &names).await, "fine-tuning job", id)?;
    let series =
        series.into_iter().map(|series| (series.name, series.points.into_iter().map(Point::from).collect())).collect();
    Ok(Json(JobMetrics { object: "fine_tuning.job.metrics", fine_tuning_job_id: id, series }))
}
