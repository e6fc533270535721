//! `GET /v1/fine_tuning/jobs/{fine_tuning_job_id}/events`

use axum::{
    Json,
    extract::State,
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use finetuned_protocol::{
    ids::{EventId, JobId},
    status::{EventLevel, EventType},
};
use finetuned_store::Event;
use serde::Serialize;
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::{control::KIND, stream};
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
    #[param(value_type = Option<u32>, minimum = 1, maximum = 1000)]
    limit: u32,
    /// `true`: server-sent events, oldest first, until the job has ended; each has its `sequence` as id. A reader that was
    /// cut off goes on with the header `Last-Event-ID`.
    #[param(value_type = Option<bool>)]
    stream: bool,
}

impl FromQuery for EventPage {
    fn from_query(fields: &mut Fields) -> Result<Self, ApiError> {
        let stream = fields.take_parsed("stream")?.unwrap_or(false);
        let page =
            Self { after: fields.take_parsed("after")?, limit: fields.take_number("limit", 20, 1..=1000)?, stream };
        if stream && page.after.is_some() {
            return Err(ApiError::invalid("after", "`after` is for pages; a stream goes on after `Last-Event-ID`"));
        }
        Ok(page)
    }
}

/// List a job's events, newest first; or follow them, with `stream=true`.
#[utoipa::path(
    get, path = "/v1/fine_tuning/jobs/{fine_tuning_job_id}/events", tag = "fine-tuning",
    params(("fine_tuning_job_id" = String, Path), EventPage),
    responses(
        (status = 200, description = "A page, or a stream of `JobEvent`s and at last `event: done`",
         content((ListPage<JobEvent> = "application/json"), (String = "text/event-stream"))),
        (status = 204, description = "A stream: the job has ended, and nothing is left to tell"),
        (status = 404, body = ErrorResponse),
    ),
)]
pub async fn list_events(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    Id(id): Id<JobId>,
    headers: HeaderMap,
    Query(EventPage { after, limit, stream }): Query<EventPage>,
) -> Result<Response, ApiError> {
    if stream {
        let last = stream::last_event_id(&headers)?;
        return found(stream::events(app, caller.tenant, id, last).await, KIND, id);
    }
    let page = found(app.store.list_events(caller.tenant, id, after, limit).await, KIND, id)?;
    let page = ListPage::new(page.data.into_iter().map(JobEvent::from).collect(), page.has_more);
    Ok(Json(page).into_response())
}
