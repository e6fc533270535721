//! `GET /v1/files/{file_id}/manifest`

use axum::{Json, extract::State};
use finetuned_protocol::{ids::FileId, preparation::Manifest};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    http::{
        auth::Authenticated,
        error::{ApiError, Code, ErrorResponse},
        found,
        path::Id,
        query::{NoParameters, Query},
    },
    state::App,
};

/// How a file was made.
#[derive(Debug, Serialize, ToSchema)]
pub struct FileManifest {
    /// Always `file.manifest`.
    pub object: &'static str,
    #[schema(value_type = String)]
    pub file_id: FileId,
    #[serde(flatten)]
    pub manifest: Manifest,
}

/// Read how a prepared file was made: its sources and their hashes, the steps, the seed, and what became of the rows.
#[utoipa::path(
    get, path = "/v1/files/{file_id}/manifest", tag = "files",
    params(("file_id" = String, Path)),
    responses(
        (status = 200, body = FileManifest),
        (status = 404, body = ErrorResponse, description = "No such file, or one that was not prepared here"),
    ),
)]
pub async fn get_file_manifest(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    Id(file_id): Id<FileId>,
    Query(NoParameters): Query<NoParameters>,
) -> Result<Json<FileManifest>, ApiError> {
    match found(app.store.get_manifest(caller.tenant, file_id).await, "file", file_id)? {
        Some(manifest) => Ok(Json(FileManifest { object: "file.manifest", file_id, manifest })),
        None => {
            let message = format!("`{file_id}` has no manifest: it was not made by POST /v1/files/prepare");
            Err(ApiError::new(Code::NotFound, message))
        }
    }
}
