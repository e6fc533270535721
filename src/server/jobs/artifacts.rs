//! `GET /v1/fine_tuning/jobs/{fine_tuning_job_id}/artifacts` and `/artifacts/{name}`

use axum::{Json, extract::State, http::HeaderMap, response::Response};
use finetuned_protocol::ids::JobId;
use finetuned_store::StoredFile;
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    http::{
        auth::Authenticated,
        download::Download,
        error::{ApiError, ErrorResponse},
        found,
        paging::{ListPage, Listed},
        path::{Id, Name},
        query::{NoParameters, Query},
    },
    state::App,
};

/// A file of a job's adapter.
#[derive(Debug, Serialize, ToSchema)]
pub struct Artifact {
    /// Always `fine_tuning.job.artifact`.
    pub object: &'static str,
    pub name: String,
    pub bytes: u64,
    /// In hexadecimal digits.
    pub sha256: String,
}

impl From<StoredFile> for Artifact {
    fn from(StoredFile { name, content }: StoredFile) -> Self {
        Self { object: "fine_tuning.job.artifact", name, bytes: content.bytes, sha256: content.sha256 }
    }
}

impl Listed for Artifact {
    fn id(&self) -> String {
        self.name.clone()
    }
}

/// List the files of a job's adapter; none before the job has succeeded.
#[utoipa::path(
    get, path = "/v1/fine_tuning/jobs/{fine_tuning_job_id}/artifacts", tag = "fine-tuning",
    params(("fine_tuning_job_id" = String, Path)),
    responses((status = 200, body = ListPage<Artifact>), (status = 404, body = ErrorResponse)),
)]
pub async fn list_artifacts(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    Id(id): Id<JobId>,
    Query(NoParameters): Query<NoParameters>,
) -> Result<Json<ListPage<Artifact>>, ApiError> {
    let artifacts = found(app.store.artifacts(caller.tenant, id).await, "fine-tuning job", id)?;
    Ok(Json(ListPage::new(artifacts.into_iter().map(Artifact::from).collect(), false)))
}

/// Download a file of a job's adapter.
#[utoipa::path(
    get, path = "/v1/fine_tuning/jobs/{fine_tuning_job_id}/artifacts/{name}", tag = "fine-tuning",
    params(("fine_tuning_job_id" = String, Path), ("name" = String, Path)),
    responses(
        (status = 200, body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 206, description = "The range that was asked for"),
        (status = 304, description = "The client has these bytes"),
        (status = 404, body = ErrorResponse),
        (status = 416, body = ErrorResponse),
    ),
)]
pub async fn get_artifact(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    Id(id): Id<JobId>,
    Name(name): Name,
    Query(NoParameters): Query<NoParameters>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let artifacts = found(app.store.artifacts(caller.tenant, id).await, "fine-tuning job", id)?;
    // Only a name of the list is ever looked up.
    let artifact = artifacts.into_iter().find(|artifact| artifact.name == name);
    let StoredFile { name, content } = artifact.ok_or_else(|| ApiError::not_found("artifact", name))?;
    let download = Download {
        bytes: content.bytes,
        sha256: content.sha256,
        content_type: "application/octet-stream",
        filename: name,
    };
    download.respond_with_blob(&app.store, content.id, &headers).await
}
