//! `POST /v1/files/{file_id}/versions`: a file's rows, edited, are its next version.

use axum::{
    body::Body,
    extract::{Request, State},
    response::Response,
};
use bytes::{BufMut, Bytes, BytesMut};
use finetuned_dataset::{RowText, RowTexts};
use finetuned_protocol::{
    ids::FileId,
    lint::{Finding, ReadingSpec},
};
use finetuned_store::{File, fingerprint};
use futures::TryStreamExt;
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    create::judged,
    edits::{Done, Edits, RowEdit},
    form::{Form, MAX_FILENAME_BYTES, Purpose},
    intake::{Intake, Sink},
    wire::FileObject,
};
use crate::{
    http::{
        auth::Authenticated,
        error::{ApiError, Code, ErrorResponse},
        found,
        idempotency::{Repetition, answer_created},
        path::{Id, PathId},
        query::{NoParameters, Query},
    },
    state::App,
};

/// Edits of one request. They wait in memory.
const MAX_EDIT_BYTES: usize = 32 << 20;
/// Rows are written in pieces of about this size.
const PIECE_BYTES: usize = 256 << 10;

/// The next version of a file, and what the edits did.
#[derive(Debug, Serialize, ToSchema)]
pub struct FileVersion {
    /// Always `file.version`.
    pub object: &'static str,
    pub file: FileObject,
    pub changed_rows: u64,
    pub removed_rows: u64,
    pub added_rows: u64,
}

/// Make the next version of a dataset by editing its rows.
///
/// Each line of the body is an edit: `{"line": 3, "row": {…}}` puts another row in the place of the one that starts in
/// line 3, `{"line": 3, "remove": true}` leaves it out, `{"row": {…}}` adds one at the end. The download of
/// `evaluation/mend` has such lines; edit their `row`. The version is a file of JSON lines, whatever the layout of the
/// file was, and is checked like an upload. At most 32 MB.
#[utoipa::path(
    post, path = "/v1/files/{file_id}/versions", tag = "files", params(("file_id" = String, Path)),
    request_body(content = RowEdit, content_type = "application/jsonl"),
    responses(
        (status = 200, body = FileVersion),
        (status = 400, body = ErrorResponse, description = "A line is no edit, or no row starts in the line that it names"),
        (status = 404, body = ErrorResponse),
        (status = 413, body = ErrorResponse),
    ),
)]
pub async fn create_file_version(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    repetition: Repetition,
    Id(id): Id<FileId>,
    Query(NoParameters): Query<NoParameters>,
    request: Request,
) -> Result<Response, ApiError> {
    let parent = found(app.store.get_file(caller.tenant, id).await, FileId::KIND, id)?;
    require_dataset(&parent)?;
    app.store.check_stored_bytes(caller.tenant).await?;
    let _place = app.upload_place().await?;
    let body = read(&app, request.into_body()).await?;
    let edits = Edits::parse(&body)?;
    let fingerprint = fingerprint(&[id.to_string().as_bytes(), &body]);
    let idempotency = repetition.of(&caller, "POST /v1/files/{file_id}/versions", fingerprint);
    // Rows are lines of JSON from here on, which show by themselves; what the columns mean does not change.
    let reading = ReadingSpec { layout: None, ..parent.reading.clone() };
    let sink = Sink::open(&app, caller.tenant, Some(reading.clone())).await?;
    let (intake, done) = carry_out(&app, &parent, edits, sink).await?;
    let Done { changed: changed_rows, removed: removed_rows, added: added_rows } = done;
    let filename = next_name(&parent.filename, parent.version);
    let form = Form { filename, purpose: Purpose::FineTune, expires_after: None, reading, intake };
    let made = app.store.create_file_version(caller.tenant, id, judged(form), &idempotency).await?;
    let version =
        |file: File| FileVersion { object: "file.version", file: file.into(), changed_rows, removed_rows, added_rows };
    Ok(answer_created(made, version))
}

/// # Errors
/// A 400 for a file that has no rows.
pub fn require_dataset(file: &File) -> Result<(), ApiError> {
    if file.purpose == "fine-tune" {
        return Ok(());
    }
    let message =
        format!("`{}` has the purpose `{}`; only files of the purpose `fine-tune` have rows", file.id, file.purpose);
    Err(ApiError::new(Code::InvalidState, message))
}

async fn read(app: &App, body: Body) -> Result<Bytes, ApiError> {
    let whole = axum::body::to_bytes(body, MAX_EDIT_BYTES);
    let limit = app.options.upload_idle_timeout;
    match tokio::time::timeout(limit, whole).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) => {
            let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            Err(match source.contains("length limit exceeded") {
                true => ApiError::too_large(MAX_EDIT_BYTES as u64),
                false => ApiError::new(Code::InvalidBody, "the body ended early").cause(error),
            })
        }
        Err(_) => {
            let message = format!("the body did not come within {} seconds", limit.as_secs());
            Err(ApiError::new(Code::RequestTimeout, message))
        }
    }
}

/// The rows with the edits carried out, in the blob store.
async fn carry_out(app: &App, parent: &File, mut edits: Edits, mut sink: Sink) -> Result<(Intake, Done), ApiError> {
    let mut bytes = app.store.get_blob(parent.content.id, None).await?;
    let mut rows = RowTexts::new(&parent.reading);
    let mut written = BytesMut::new();
    let mut fault: Option<Finding> = None;
    let mut take = |row: Result<RowText, Finding>, written: &mut BytesMut| match row {
        Ok(row) => {
            if let Some(text) = edits.of(row) {
                written.put_slice(&text);
                written.put_u8(b'\n');
            }
        }
        Err(finding) => {
            fault.get_or_insert(finding);
        }
    };
    while let Some(piece) = bytes.try_next().await? {
        // A piece is read in about a millisecond.
        rows.feed(&piece, &mut |row| take(row, &mut written));
        if written.len() >= PIECE_BYTES {
            sink.push(written.split().freeze()).await?;
        }
    }
    rows.finish(&mut |row| take(row, &mut written));
    if let Some(finding) = fault {
        let message = format!(
            "the rows of `{}` cannot be told apart (line {}: {}); mend the file itself and upload it again",
            parent.id, finding.line, finding.reason
        );
        return Err(ApiError::new(Code::InvalidState, message));
    }
    let (added, done) = edits.finish()?;
    for row in &added {
        written.put_slice(row);
        written.put_u8(b'\n');
    }
    sink.push(written.freeze()).await?;
    Ok((sink.finish().await?, done))
}

/// `rows.jsonl` becomes `rows.v2.jsonl`, and that `rows.v3.jsonl`.
fn next_name(filename: &str, version: u32) -> String {
    let packed = filename.strip_suffix(".gz").or_else(|| filename.strip_suffix(".zst")).unwrap_or(filename);
    let stem = packed.rsplit_once('.').map_or(packed, |(stem, _)| stem);
    let stem = stem.strip_suffix(&format!(".v{version}")).unwrap_or(stem);
    let ending = format!(".v{}.jsonl", version.saturating_add(1));
    let room = (0..=stem.len().min(MAX_FILENAME_BYTES - ending.len())).rev().find(|end| stem.is_char_boundary(*end));
    format!("{}{ending}", &stem[..room.unwrap_or(0)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_told_by_their_names() {
        for (name, version, next) in [
            ("rows.jsonl", 1, "rows.v2.jsonl"),
            ("rows.v2.jsonl", 2, "rows.v3.jsonl"),
            ("table.csv.gz", 1, "table.v2.jsonl"),
            ("upload", 9, "upload.v10.jsonl"),
        ] {
            assert_eq!(next_name(name, version), next);
        }
        assert!(next_name(&"é".repeat(256), 1).len() <= MAX_FILENAME_BYTES);
    }
}
