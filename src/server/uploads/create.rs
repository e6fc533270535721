//! Beginning, reading and giving up an upload.

use axum::{Json, extract::State, response::Response};
use finetuned_protocol::ids::UploadId;
use finetuned_store::fingerprint;

use super::{
    fetch,
    wire::{CreateUpload, UploadObject},
};
use crate::{
    http::{
        auth::Authenticated,
        body::{JsonBody, NoBody},
        error::{ApiError, ErrorResponse},
        found,
        idempotency::{Repetition, answer_created},
        path::{Id, PathId},
        query::{NoParameters, Query},
    },
    state::App,
};

/// Begin a file that comes in parts.
///
/// Parts are taken for a day. Those that came are there however often the client goes away in between.
#[utoipa::path(
    post, path = "/v1/uploads", tag = "uploads", request_body = CreateUpload,
    responses((status = 200, body = UploadObject), (status = 400, body = ErrorResponse)),
)]
pub async fn create_upload(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    repetition: Repetition,
    Query(NoParameters): Query<NoParameters>,
    JsonBody(request): JsonBody<CreateUpload>,
) -> Result<Response, ApiError> {
    let canonical = serde_json::to_vec(&request).map_err(ApiError::internal)?;
    let upload = request.checked(app.options.max_upload_bytes)?;
    app.store.check_stored_bytes(caller.tenant).await?;
    let idempotency = repetition.of(&caller, "POST /v1/uploads", fingerprint(&[&canonical]));
    let begun = app.store.create_upload(caller.tenant, &upload, &idempotency).await?;
    Ok(answer_created(begun, UploadObject::from))
}

/// Read an upload.
#[utoipa::path(
    get, path = "/v1/uploads/{upload_id}", tag = "uploads", params(("upload_id" = String, Path)),
    responses((status = 200, body = UploadObject), (status = 404, body = ErrorResponse)),
)]
pub async fn get_upload(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    Id(id): Id<UploadId>,
    Query(NoParameters): Query<NoParameters>,
) -> Result<Json<UploadObject>, ApiError> {
    Ok(Json(fetch(&app, caller.tenant, id).await?.into()))
}

/// Give an upload up; its parts are let go.
#[utoipa::path(
    post, path = "/v1/uploads/{upload_id}/cancel", tag = "uploads", params(("upload_id" = String, Path)),
    responses(
        (status = 200, body = UploadObject),
        (status = 400, body = ErrorResponse, description = "It was completed or has expired"),
        (status = 404, body = ErrorResponse),
    ),
)]
pub async fn cancel_upload(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    Id(id): Id<UploadId>,
    Query(NoParameters): Query<NoParameters>,
    _: NoBody,
) -> Result<Json<UploadObject>, ApiError> {
    Ok(Json(found(app.store.cancel_upload(caller.tenant, id).await, UploadId::KIND, id)?.into()))
}
