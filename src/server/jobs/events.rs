//! `GET /v1/fine_tuning/jobs/{fine_tuning_job_id}/events`

use axum::{Json, extract::State};
use finetuned_protocol::{
    ids::{EventId, JobId},
    status::{EventLevel, EventType},
};
use finetuned_store::Event;
use serde::Serialize;
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use crate::{
    http::{
        auth::Authenticated,
        error::{ApiError, ErrorResponse},
        found,
        paging::{ListPage, Listed},
        path::Id,
        query::{Fields, FromQuery, Query},
    },
    state::App,
};

/// An event of a job.
#[derive(Debug, Serialize, ToSchema)]
pub struct JobEvent {
    #[schema(value_type = String)]
    pub id: EventId,
    /// Always `fine_tuning.job.event`.
    pub object: &'static str,
    pub created_at: i64,
    pub level: EventLevel,
    #[serde(rename = "type")]
    pub kind: EventType,
    pub message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub data: Option<Value>,
    /// Counted from 1 in each job, without gaps.
    pub sequence: u64,
}

impl From<Event> for JobEvent {
    fn from(event: Event) -> Self {
        let Event { id, sequence, created_at, level, kind, message, data } = event;
        let created_at = created_at.unix_timestamp();
        Self { id, object: "fine_tuning.job.event", created_at, level, kind, message, data, sequence }
    }
}

impl Listed for JobEvent {
    fn id(&self) -> String {
        self.id.to_string()
    }
}

/// Which events to list.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct EventPage {
    /// `last_id` of the page before.
    #[param(value_type = Option<String>)]
    after: Option<EventId>,
    /// 1 to 1000; default 20.
    #[param(value_type = Option<u32>)]
    limit: u32,
}

impl FromQuery for EventPage {
    fn from_query(fields: &mut Fields) -> Result<Self, ApiError> {
        Ok(Self { after: fields.take_parsed("after")?, limit: fields.take_number("limit", 20, 1..=1000)? })
    }
}

/// List a job's events, newest first.
#[utoipa::path(
    get, path = "/v1/fine_tuning/jobs/{fine_tuning_job_id}/events", tag = "fine-tuning",
    params(("fine_tuning_job_id" = String, Path), EventPage),
    responses((status = 200, body = ListPage<JobEvent>), (status = 404, body = ErrorResponse)),
)]
pub async fn list_events(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    Id(id): Id<JobId>,
    Query(EventPage { after, limit }): Query<EventPage>,
) -> Result<Json<ListPage<JobEvent>>, ApiError> {
    let page = found(app.store.list_events(caller.tenant, id, after, limit).await, "fine-tuning job", id)?;
    Ok(Json(ListPage::new(page.data.into_iter().map(JobEvent::from).collect(), page.has_more)))
}
