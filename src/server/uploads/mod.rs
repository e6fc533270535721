//! `/v1/uploads`: files that come in parts, for what is too large or too slow for one request.

mod complete;
mod create;
mod parts;
mod wire;

use finetuned_protocol::{
    ids::{TenantId, UploadId},
    status::UploadStatus,
};
use finetuned_store::Upload;

pub use self::{
    complete::{__path_complete_upload, Completions, complete_upload},
    create::{__path_cancel_upload, __path_create_upload, __path_get_upload, cancel_upload, create_upload, get_upload},
    parts::{__path_add_upload_part, __path_list_upload_parts, add_upload_part, list_upload_parts},
};
use crate::{
    http::{
        error::{ApiError, Code},
        found,
        path::PathId,
    },
    state::App,
};

impl PathId for UploadId {
    const KIND: &'static str = "upload";
}

/// An upload that has not ended.
fn pending(upload: Upload) -> Result<Upload, ApiError> {
    match upload.status {
        UploadStatus::Pending => Ok(upload),
        status => Err(ApiError::new(Code::InvalidState, format!("upload `{}` is {status}; begin another", upload.id))),
    }
}

async fn fetch(app: &App, tenant: TenantId, id: UploadId) -> Result<Upload, ApiError> {
    found(app.store.get_upload(tenant, id).await, UploadId::KIND, id)
}
