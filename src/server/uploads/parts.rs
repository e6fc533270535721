//! The parts of an upload.

use axum::{
    Json,
    extract::{Multipart, Request, State},
    response::Response,
};
use finetuned_protocol::ids::{TenantId, UploadId};
use finetuned_store::{StoredBlob, fingerprint};

use super::{
    fetch, pending,
    wire::{PartForm, UploadPartObject},
};
use crate::{
    files::{
        form::linger,
        intake::{self, Sink},
    },
    http::{
        auth::Authenticated,
        error::{ApiError, Code, ErrorResponse},
        found,
        idempotency::{Repetition, answer_created},
        multipart::{self, Overhead},
        paging::ListPage,
        path::{Id, PathId},
        query::{NoParameters, Query},
    },
    state::App,
};

/// Largest part, as clients of the wire format cut their files.
const MAX_PART_BYTES: u64 = 64 << 20;

/// Send a part of an upload. Parts may come in any order, and at once.
#[utoipa::path(
    post, path = "/v1/uploads/{upload_id}/parts", tag = "uploads", params(("upload_id" = String, Path)),
    request_body(content = PartForm, content_type = "multipart/form-data"),
    responses(
        (status = 200, body = UploadPartObject),
        (status = 400, body = ErrorResponse, description = "The body is cut off, or the upload has ended"),
        (status = 404, body = ErrorResponse),
        (status = 413, body = ErrorResponse, description = "The part is larger than 64 MiB"),
    ),
)]
pub async fn add_upload_part(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    Id(id): Id<UploadId>,
    repetition: Repetition,
    Query(NoParameters): Query<NoParameters>,
    request: Request,
) -> Result<Response, ApiError> {
    // Before the form is looked at: another's upload is like one that never was.
    let upload = fetch(&app, caller.tenant, id).await;
    let (mut body, overhead) = match &upload {
        Err(refusal) => return Err(refusal.clone()),
        Ok(_) => multipart::open(request, "the field `data`").await?,
    };
    let _place = app.upload_place().await?;
    let content = match upload.and_then(pending) {
        Ok(_) => receive(&app, caller.tenant, &mut body, &overhead).await,
        Err(refusal) => Err(refusal),
    };
    let content = match content {
        Ok(content) => content,
        Err(refusal) => {
            linger(&mut body, &overhead).await;
            return Err(refusal);
        }
    };
    let fingerprint = fingerprint(&[id.0.as_bytes(), content.sha256.as_bytes()]);
    let idempotency = repetition.of(&caller, "POST /v1/uploads/parts", fingerprint);
    let part = app.store.add_part(caller.tenant, id, &content, &idempotency).await;
    let part = found(part, UploadId::KIND, id)?;
    Ok(answer_created(part, UploadPartObject::from))
}

/// Reads the form, whose one field is the part.
async fn receive(
    app: &App,
    tenant: TenantId,
    body: &mut Multipart,
    overhead: &Overhead,
) -> Result<StoredBlob, ApiError> {
    let mut content = None;
    while let Some(field) = intake::in_time(app, body.next_field()).await? {
        let name = field.name().unwrap_or_default().to_owned();
        if name != "data" {
            let message = format!("unknown form field `{name}`; there is `data`");
            return Err(ApiError::new(Code::UnknownParameter, message).param(name));
        }
        if content.is_some() {
            return Err(ApiError::invalid("data", "the form field `data` is given more than once"));
        }
        let sink = Sink::open(app, tenant, None).await?;
        content = Some(intake::take(app, field, overhead, sink, MAX_PART_BYTES).await?.content);
    }
    let content = content
        .ok_or_else(|| ApiError::new(Code::MissingParameter, "the form must have the field `data`").param("data"))?;
    if content.bytes == 0 {
        return Err(ApiError::invalid("data", "`data` is empty; a part has at least one byte"));
    }
    Ok(content)
}

/// List the parts that an upload has, in the order in which they came, so that a client that lost its place goes on.
/// One that has ended has none.
#[utoipa::path(
    get, path = "/v1/uploads/{upload_id}/parts", tag = "uploads", params(("upload_id" = String, Path)),
    responses((status = 200, body = ListPage<UploadPartObject>), (status = 404, body = ErrorResponse)),
)]
pub async fn list_upload_parts(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    Id(id): Id<UploadId>,
    Query(NoParameters): Query<NoParameters>,
) -> Result<Json<ListPage<UploadPartObject>>, ApiError> {
    let parts = found(app.store.upload_parts(caller.tenant, id).await, UploadId::KIND, id)?;
    Ok(Json(ListPage::new(parts.into_iter().map(Into::into).collect(), false)))
}
