//! `GET /v1/files/{file_id}/content`

use axum::{extract::State, http::HeaderMap, response::Response};
use finetuned_protocol::ids::FileId;

use crate::{
    http::{
        auth::Authenticated,
        download::Download,
        error::{ApiError, ErrorResponse},
        found,
        path::Id,
        query::{NoParameters, Query},
    },
    state::App,
};

/// The bytes of a file, as they came.
#[utoipa::path(
    get, path = "/v1/files/{file_id}/content", tag = "files",
    params(("file_id" = String, Path)),
    responses(
        (status = 200, body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 206, description = "The range that was asked for"),
        (status = 304, description = "The client has these bytes"),
        (status = 404, body = ErrorResponse),
        (status = 416, body = ErrorResponse),
    ),
)]
pub async fn get_file_content(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    Id(id): Id<FileId>,
    Query(NoParameters): Query<NoParameters>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let file = found(app.store.get_file(caller.tenant, id).await, "file", id)?;
    let download = Download {
        bytes: file.content.bytes,
        sha256: file.content.sha256,
        content_type: "application/octet-stream",
        filename: file.filename,
    };
    download.respond_with_blob(&app.store, file.content.id, &headers).await
}
