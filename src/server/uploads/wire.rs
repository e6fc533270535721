//! Uploads as clients see and send them.

use std::time::Duration;

use finetuned_dataset::check_reading;
use finetuned_protocol::{
    ids::{PartId, UploadId},
    lint::ReadingSpec,
    status::UploadStatus,
};
use finetuned_store::{NewUpload, Upload, UploadPart};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    files::{
        form::{self, LIFETIME_SECONDS, MAX_FILENAME_BYTES, Purpose},
        wire::FileObject,
    },
    http::{error::ApiError, paging::Listed},
};

const MAX_MIME_TYPE_BYTES: usize = 255;

/// A file that is to come in parts.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateUpload {
    #[schema(min_length = 1, max_length = 512)]
    pub filename: String,
    /// `fine-tune`, `assistants`, `batch`, `vision`, `user_data` or `evals`; only `fine-tune` is linted.
    #[schema(pattern = "^(fine-tune|assistants|batch|vision|user_data|evals)$")]
    pub purpose: String,
    /// Of the whole file.
    #[schema(minimum = 1)]
    pub bytes: u64,
    #[schema(min_length = 1, max_length = 255)]
    pub mime_type: String,
    #[serde(default)]
    pub expires_after: Option<ExpiresAfter>,
    /// How the rows lie in the file, where that does not show.
    #[serde(default)]
    pub reading: Option<ReadingSpec>,
}

/// When the file is deleted.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ExpiresAfter {
    /// Always `created_at`: counted from the completion on.
    #[schema(pattern = "^created_at$")]
    pub anchor: String,
    #[schema(minimum = 3600, maximum = 2_592_000)]
    pub seconds: u64,
}

impl CreateUpload {
    /// # Errors
    /// A 400 that names the field.
    pub fn checked(self, max_bytes: u64) -> Result<NewUpload, ApiError> {
        let Self { filename, purpose, bytes, mime_type, expires_after, reading } = self;
        check_length("filename", &filename, MAX_FILENAME_BYTES)?;
        check_length("mime_type", &mime_type, MAX_MIME_TYPE_BYTES)?;
        let purpose = Purpose::parse(&purpose)?.as_str().to_owned();
        if !(1..=max_bytes).contains(&bytes) {
            return Err(ApiError::invalid("bytes", format!("`bytes` must be 1 to {max_bytes}; it is {bytes}")));
        }
        if let Some(reading) = &reading {
            check_reading("reading", reading)?;
        }
        let reading = form::reading(&filename, reading);
        let file_expires_after = expires_after.map(lifetime).transpose()?;
        Ok(NewUpload { filename, purpose, mime_type, bytes, reading, file_expires_after })
    }
}

fn check_length(field: &'static str, text: &str, most: usize) -> Result<(), ApiError> {
    if text.is_empty() || text.len() > most {
        return Err(ApiError::invalid(field, format!("`{field}` must have 1 to {most} bytes; it has {}", text.len())));
    }
    Ok(())
}

fn lifetime(ExpiresAfter { anchor, seconds }: ExpiresAfter) -> Result<Duration, ApiError> {
    if anchor != "created_at" {
        let message = format!("`expires_after.anchor` must be `created_at`; it is `{anchor}`");
        return Err(ApiError::invalid("expires_after.anchor", message));
    }
    if !LIFETIME_SECONDS.contains(&seconds) {
        let (low, high) = (LIFETIME_SECONDS.start(), LIFETIME_SECONDS.end());
        let message = format!("`expires_after.seconds` must be between {low} and {high}; it is {seconds}");
        return Err(ApiError::invalid("expires_after.seconds", message));
    }
    Ok(Duration::from_secs(seconds))
}

/// One form body with a part. Read as a stream, so this type only describes it.
#[derive(ToSchema)]
#[allow(dead_code)]
pub struct PartForm {
    /// At most 64 MiB.
    #[schema(format = Binary, content_media_type = "application/octet-stream")]
    data: String,
}

/// Which parts make the file.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CompleteUpload {
    /// In the order of the file.
    #[schema(value_type = Vec<String>, min_items = 1)]
    pub part_ids: Vec<PartId>,
    /// Of the whole file, as 32 hexadecimal digits.
    #[serde(default)]
    #[schema(pattern = "^[0-9A-Fa-f]{32}$")]
    pub md5: Option<String>,
}

/// A file that comes in parts: OpenAI's fields, and `mime_type` beside them.
#[derive(Debug, Serialize, ToSchema)]
pub struct UploadObject {
    #[schema(value_type = String)]
    pub id: UploadId,
    /// Always `upload`.
    pub object: &'static str,
    /// Of the whole file, as announced.
    pub bytes: u64,
    /// Unix seconds.
    pub created_at: i64,
    /// Unix seconds; parts are taken until then.
    pub expires_at: i64,
    pub filename: String,
    pub purpose: String,
    pub mime_type: String,
    pub status: UploadStatus,
    /// Once completed, until it is deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<FileObject>,
}

impl From<Upload> for UploadObject {
    fn from(upload: Upload) -> Self {
        Self {
            id: upload.id,
            object: "upload",
            bytes: upload.bytes,
            created_at: upload.created_at.unix_timestamp(),
            expires_at: upload.expires_at.unix_timestamp(),
            filename: upload.filename,
            purpose: upload.purpose,
            mime_type: upload.mime_type,
            status: upload.status,
            file: upload.file.map(FileObject::from),
        }
    }
}

/// A part: OpenAI's fields, and what it holds beside them.
#[derive(Debug, Serialize, ToSchema)]
pub struct UploadPartObject {
    #[schema(value_type = String)]
    pub id: PartId,
    /// Always `upload.part`.
    pub object: &'static str,
    pub created_at: i64,
    #[schema(value_type = String)]
    pub upload_id: UploadId,
    pub bytes: u64,
    /// In hexadecimal digits.
    pub sha256: String,
}

impl From<UploadPart> for UploadPartObject {
    fn from(UploadPart { id, upload, content, created_at }: UploadPart) -> Self {
        Self {
            id,
            object: "upload.part",
            created_at: created_at.unix_timestamp(),
            upload_id: upload,
            bytes: content.bytes,
            sha256: content.sha256,
        }
    }
}

impl Listed for UploadPartObject {
    fn id(&self) -> String {
        self.id.to_string()
    }
}
