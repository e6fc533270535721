//! Files as clients read them.

use finetuned_protocol::{
    ids::FileId,
    lint::{Finding, LintSummary, ReadingSpec},
    status::FileStatus,
};
use finetuned_store::File;
use serde::Serialize;
use utoipa::ToSchema;

use crate::http::paging::Listed;

/// A file: OpenAI's fields, and `lint` and `sha256` beside them.
#[derive(Debug, Serialize, ToSchema)]
pub struct FileObject {
    #[schema(value_type = String)]
    pub id: FileId,
    /// Always `file`.
    pub object: &'static str,
    pub bytes: u64,
    /// Unix seconds.
    pub created_at: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<i64>,
    pub filename: String,
    pub purpose: String,
    pub status: FileStatus,
    /// What is the matter, in one sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status_details: Option<String>,
    /// Of the bytes, in hexadecimal digits.
    pub sha256: String,
    /// What was found in the rows of a file for fine-tuning.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lint: Option<LintSummary>,
    /// How the upload asked for it to be read.
    #[serde(skip_serializing_if = "ReadingSpec::is_default")]
    #[schema(required = false)]
    pub reading: ReadingSpec,
    /// The file that this one is the next version of.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub parent: Option<FileId>,
    /// 1 for an upload, and one more than its parent's for a version.
    pub version: u32,
}

impl From<File> for FileObject {
    fn from(file: File) -> Self {
        let File {
            id,
            tenant: _,
            filename,
            purpose,
            created_at,
            expires_at,
            status,
            status_details,
            content,
            mut lint,
            reading,
            findings: _,
            parent,
            version,
        } = file;
        // A list of files is no place for the examples of each rule; the report has them.
        lint.iter_mut().flat_map(|lint| &mut lint.by_rule).for_each(|count| count.examples.clear());
        Self {
            id,
            object: "file",
            bytes: content.bytes,
            created_at: created_at.unix_timestamp(),
            expires_at: expires_at.map(|time| time.unix_timestamp()),
            filename,
            purpose,
            status,
            status_details,
            sha256: content.sha256,
            lint,
            reading,
            parent,
            version,
        }
    }
}

impl Listed for FileObject {
    fn id(&self) -> String {
        self.id.to_string()
    }
}

/// The answer to a deletion.
#[derive(Debug, Serialize, ToSchema)]
pub struct FileDeleted {
    #[schema(value_type = String)]
    pub id: FileId,
    /// Always `file`.
    pub object: &'static str,
    pub deleted: bool,
}

/// What was found in a file. Written as a stream, so this type only describes it.
#[derive(Debug, Serialize, ToSchema)]
pub struct LintReport {
    /// Always `file.lint`.
    pub object: &'static str,
    #[schema(value_type = String)]
    pub file_id: FileId,
    pub summary: LintSummary,
    /// In the order of the file.
    pub data: Vec<Finding>,
    pub has_more: bool,
    /// Give this as `after` to go on; null at the end.
    pub next_after: Option<u64>,
}

/// One form body of an upload. Read as a stream, so this type only describes it.
#[derive(ToSchema)]
#[allow(dead_code)]
pub struct UploadForm {
    #[schema(format = Binary, content_media_type = "application/octet-stream")]
    file: String,
    /// A JSON object, [`ReadingSpec`], before `file`: how the rows lie in the file where that does not show.
    reading: Option<String>,
    /// `fine-tune`, `assistants`, `batch`, `vision`, `user_data` or `evals`; only `fine-tune` is linted.
    #[schema(pattern = "^(fine-tune|assistants|batch|vision|user_data|evals)$")]
    purpose: String,
}
