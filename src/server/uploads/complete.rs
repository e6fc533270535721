//! Making one file of an upload's parts.

use std::collections::HashMap;

use axum::{Json, extract::State};
use finetuned_protocol::{
    ids::{PartId, TenantId, UploadId},
    status::UploadStatus,
};
use finetuned_store::{Upload, UploadPart};
use futures::StreamExt;
use md5::{Digest, Md5};
use tokio::sync::Mutex;
use tracing::Instrument;

use super::{
    fetch, pending,
    wire::{CompleteUpload, UploadObject},
};
use crate::{
    files::{
        form::{Form, Purpose},
        intake::{Intake, Sink},
        judged,
    },
    http::{
        auth::Authenticated,
        body::JsonBody,
        error::{ApiError, ErrorResponse},
        found,
        path::{Id, PathId},
        query::{NoParameters, Query},
    },
    state::App,
    telemetry,
};

/// Lets one completion of an upload go on at a time: a client that asks again, because its proxy did not wait, meets the
/// end of the first. Uploads share locks, which only makes some wait a little.
#[derive(Debug, Default)]
pub struct Completions([Mutex<()>; 16]);

impl Completions {
    fn of(&self, upload: UploadId) -> &Mutex<()> {
        let [.., last] = *upload.0.as_bytes();
        &self.0[usize::from(last) % self.0.len()]
    }
}

/// Make one file of an upload's parts, in the order of `part_ids`.
///
/// The file is then like one that came in a single request. A completion goes on when its client leaves; asking again
/// gives its result.
#[utoipa::path(
    post, path = "/v1/uploads/{upload_id}/complete", tag = "uploads", params(("upload_id" = String, Path)),
    request_body = CompleteUpload,
    responses(
        (status = 200, body = UploadObject),
        (status = 400, body = ErrorResponse, description = "The parts are not the announced file, or the upload has ended"),
        (status = 404, body = ErrorResponse),
    ),
)]
pub async fn complete_upload(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    Id(id): Id<UploadId>,
    Query(NoParameters): Query<NoParameters>,
    JsonBody(request): JsonBody<CompleteUpload>,
) -> Result<Json<UploadObject>, ApiError> {
    let completing = async move {
        let _alone = app.completions.of(id).lock().await;
        complete(&app, caller.tenant, id, request).await
    };
    let completed = tokio::spawn(completing.in_current_span()).await.map_err(ApiError::internal)?;
    Ok(Json(completed?.into()))
}

async fn complete(
    app: &App,
    tenant: TenantId,
    id: UploadId,
    CompleteUpload { part_ids, md5 }: CompleteUpload,
) -> Result<Upload, ApiError> {
    let upload = fetch(app, tenant, id).await?;
    if upload.status == UploadStatus::Completed && upload.was_made_of(&part_ids) {
        return Ok(upload);
    }
    let upload = pending(upload)?;
    let expected = md5.map(check_md5).transpose()?;
    let parts = chosen(&upload, &part_ids, found(app.store.upload_parts(tenant, id).await, UploadId::KIND, id)?)?;
    let _place = app.upload_place().await?;
    let purpose = Purpose::parse(&upload.purpose)?;
    let (intake, found_md5) = join(app, tenant, &upload, &parts).await?;
    if let Some(expected) = expected
        && expected != found_md5
    {
        let message = format!("the parts in this order have the md5 {found_md5}, and `md5` says {expected}");
        return Err(ApiError::invalid("md5", message));
    }
    let Upload { filename, reading, file_expires_after, .. } = upload;
    let file = judged(Form { filename, purpose, expires_after: file_expires_after, reading, intake });
    let (status, bytes) = (file.status.as_str(), file.content.bytes);
    let completed = found(app.store.complete_upload(tenant, id, &part_ids, file).await, UploadId::KIND, id)?;
    if completed.is_new() {
        telemetry::upload_done(status, bytes);
    }
    Ok(completed.into_inner())
}

fn check_md5(text: String) -> Result<String, ApiError> {
    if text.len() == 32 && text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Ok(text.to_ascii_lowercase());
    }
    Err(ApiError::invalid("md5", "`md5` must be 32 hexadecimal digits"))
}

/// The parts that were named, as often and in the order in which they were.
fn chosen(upload: &Upload, ids: &[PartId], parts: Vec<UploadPart>) -> Result<Vec<UploadPart>, ApiError> {
    if ids.is_empty() {
        return Err(ApiError::invalid("part_ids", "`part_ids` must name at least one part"));
    }
    let parts: HashMap<PartId, UploadPart> = parts.into_iter().map(|part| (part.id, part)).collect();
    let mut chosen = Vec::new();
    for (index, id) in ids.iter().enumerate() {
        let part = parts.get(id).ok_or_else(|| {
            let param = format!("part_ids[{index}]");
            ApiError::invalid(&param, format!("`{param}`: `{id}` is not a part of upload `{}`", upload.id))
        })?;
        chosen.push(part.clone());
    }
    let bytes: u64 = chosen.iter().map(|part| part.content.bytes).fold(0, u64::saturating_add);
    if bytes != upload.bytes {
        let message = format!("the parts have {bytes} bytes together, and the upload announced {}", upload.bytes);
        return Err(ApiError::invalid("part_ids", message));
    }
    Ok(chosen)
}

/// Brings the bytes of all parts past the linter into one blob; gives their md5 beside it.
async fn join(
    app: &App,
    tenant: TenantId,
    upload: &Upload,
    parts: &[UploadPart],
) -> Result<(Intake, String), ApiError> {
    let linted = Purpose::parse(&upload.purpose)?.is_linted();
    let mut sink = Sink::open(app, tenant, linted.then(|| upload.reading.clone())).await?;
    let mut md5 = Md5::new();
    for part in parts {
        let mut bytes = app.store.get_blob(part.content.id, None).await?;
        while let Some(piece) = bytes.next().await {
            let piece = piece?;
            md5.update(&piece);
            sink.push(piece).await?;
        }
    }
    Ok((sink.finish().await?, hex::encode(md5.finalize())))
}
