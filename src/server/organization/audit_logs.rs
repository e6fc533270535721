//! `GET /v1/organization/audit_logs`

use axum::{Json, extract::State};
use finetuned_protocol::ids::{AuditId, KeyId};
use finetuned_store::AuditEntry;
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use crate::{
    http::{
        auth::Authenticated,
        error::{ApiError, ErrorResponse},
        paging::{ListPage, Listed},
        query::{Fields, FromQuery, Query},
    },
    state::App,
};

/// A request that may have changed something.
#[derive(Debug, Serialize, ToSchema)]
pub struct AuditLogEntry {
    #[schema(value_type = String)]
    pub id: AuditId,
    /// Always `organization.audit_log`.
    pub object: &'static str,
    /// When it began, before anything was changed.
    pub effective_at: i64,
    /// The key that it came with; null while the service has none.
    #[schema(value_type = Option<String>)]
    pub api_key_id: Option<KeyId>,
    /// The request's `x-request-id`.
    pub request_id: String,
    pub method: String,
    pub path: String,
    /// Of the answer; null where none was given, because it is still being worked on or its process died. 499: the
    /// client left first.
    pub status: Option<u16>,
    pub finished_at: Option<i64>,
}

impl From<AuditEntry> for AuditLogEntry {
    fn from(entry: AuditEntry) -> Self {
        let AuditEntry { id, key, request, method, path, started_at, ended } = entry;
        Self {
            id,
            object: "organization.audit_log",
            effective_at: started_at.unix_timestamp(),
            api_key_id: key,
            request_id: request,
            method,
            path,
            status: ended.map(|(_, status)| status),
            finished_at: ended.map(|(at, _)| at.unix_timestamp()),
        }
    }
}

impl Listed for AuditLogEntry {
    fn id(&self) -> String {
        self.id.to_string()
    }
}

/// Which entries to list.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct AuditPage {
    /// `last_id` of the page before.
    #[param(value_type = Option<String>)]
    after: Option<AuditId>,
    /// 1 to 100; default 20.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 100)]
    limit: u32,
}

impl FromQuery for AuditPage {
    fn from_query(fields: &mut Fields) -> Result<Self, ApiError> {
        Ok(Self { after: fields.take_parsed("after")?, limit: fields.take_number("limit", 20, 1..=100)? })
    }
}

/// List who changed what, newest first. Kept for 400 days.
#[utoipa::path(
    get, path = "/v1/organization/audit_logs", tag = "organization", params(AuditPage),
    responses((status = 200, body = ListPage<AuditLogEntry>), (status = 400, body = ErrorResponse)),
)]
pub async fn list_audit_logs(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    Query(AuditPage { after, limit }): Query<AuditPage>,
) -> Result<Json<ListPage<AuditLogEntry>>, ApiError> {
    let page = app.store.audit_log(caller.tenant, after, limit).await?;
    Ok(Json(ListPage::new(page.data.into_iter().map(Into::into).collect(), page.has_more)))
}
