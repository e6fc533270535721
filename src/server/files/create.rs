//! `POST /v1/files`: bytes are counted, hashed and linted on their way to the blob store.

use axum::{
    extract::{Request, State},
    response::Response,
};
use finetuned_protocol::status::FileStatus;
use finetuned_store::{Caller, Created, File, NewFile, fingerprint};

use super::{
    form::{self, Form},
    intake::Intake,
    wire::{FileObject, UploadForm},
};
use crate::{
    http::{
        auth::Authenticated,
        error::{ApiError, ErrorResponse},
        idempotency::{Repetition, answer_created},
        query::{NoParameters, Query},
    },
    state::App,
    telemetry,
};

/// Upload a file.
///
/// Always answers 200 with an id once the bytes have come in whole; a dataset with bad rows has the status `error`.
/// The fields may come in any order.
#[utoipa::path(
    post, path = "/v1/files", tag = "files",
    request_body(content = UploadForm, content_type = "multipart/form-data"),
    responses(
        (status = 200, body = FileObject),
        (status = 400, body = ErrorResponse, description = "The body is cut off or a field is not allowed"),
        (status = 413, body = ErrorResponse, description = "The file is too large"),
    ),
)]
pub async fn create_file(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    repetition: Repetition,
    Query(NoParameters): Query<NoParameters>,
    request: Request,
) -> Result<Response, ApiError> {
    // Before the bytes are sent in vain.
    app.store.check_stored_bytes(caller.tenant).await?;
    let _place = app.upload_place().await?;
    let form = form::receive(&app, &caller, request).await?;
    let created = record(&app, &caller, repetition, form).await?;
    if let Created::New(file) = &created {
        telemetry::upload_done(file.status.as_str(), file.content.bytes);
    }
    Ok(answer_created(created, FileObject::from))
}

async fn record(app: &App, caller: &Caller, repetition: Repetition, form: Form) -> Result<Created<File>, ApiError> {
    let lifetime = form.expires_after.map_or(0, |lifetime| lifetime.as_secs());
    // The boundary differs at every attempt, so it is the content that tells.
    let fingerprint = fingerprint(&[
        form.filename.as_bytes(),
        form.purpose.as_str().as_bytes(),
        &lifetime.to_le_bytes(),
        &serde_json::to_vec(&form.reading).map_err(ApiError::internal)?,
        form.intake.content.sha256.as_bytes(),
    ]);
    let idempotency = repetition.of(caller, "POST /v1/files", fingerprint);
    Ok(app.store.create_file(caller.tenant, judged(form), Some(&idempotency)).await?)
}

/// A file with what its bytes turned out to be worth.
pub fn judged(form: Form) -> NewFile {
    let Form { filename, purpose, expires_after, reading, intake } = form;
    let (status, status_details) = judge(&intake, purpose.is_linted());
    let linted = intake.linted.filter(|_| purpose.is_linted());
    let (lint, findings) = linted.map_or((None, None), |linted| (Some(linted.summary), linted.findings));
    NewFile {
        filename,
        purpose: purpose.as_str().to_owned(),
        expires_after,
        status,
        status_details,
        content: intake.content,
        lint,
        reading,
        findings,
    }
}

/// Whether a job may use the file, and why not, in one sentence.
fn judge(intake: &Intake, linted: bool) -> (FileStatus, Option<String>) {
    if intake.content.bytes == 0 {
        return (FileStatus::Error, Some("The file is empty.".to_owned()));
    }
    let Some(linted) = intake.linted.as_ref().filter(|_| linted) else { return (FileStatus::Processed, None) };
    let summary = &linted.summary;
    if summary.is_usable() {
        let warned = summary.warning_rows;
        let note = (warned > 0).then(|| format!("{warned} of {} rows have warnings.", summary.rows));
        return (FileStatus::Processed, note);
    }
    let first = linted.first_error.as_ref().map(|finding| format!("; line {}: {}", finding.line, finding.reason));
    let sentence = match (summary.rows, summary.error_rows) {
        (0, _) => "The file has no rows".to_owned(),
        (rows, bad) => format!("{bad} of {rows} rows cannot be used{}", first.unwrap_or_default()),
    };
    (FileStatus::Error, Some(format!("{}.", sentence.trim_end_matches('.'))))
}
