//! `POST /v1/files/prepare`

use std::path::Path;

use axum::{extract::State, response::Response};
use finetuned_dataset::check_steps;
use finetuned_protocol::{
    ids::{FileId, TenantId},
    lint::ReadingSpec,
    preparation::{Manifest, PreparationStep, PrepareFilesRequest, PreparedRecord, token_model},
};
use finetuned_store::{Caller, Created, NewFile, NewPrepared, Prepared, fingerprint};
use finetuned_weights::TextTokenizer;
use futures::StreamExt;
use serde::Serialize;
use tokio_util::io::ReaderStream;
use tracing::Instrument;
use utoipa::ToSchema;

use super::{
    apply::{Job, Work, apply},
    refusal::Names,
    sources,
};
use crate::{
    files::{
        form::{Form, MAX_FILENAME_BYTES, Purpose},
        intake::Sink,
        judged,
        wire::FileObject,
    },
    http::{
        auth::Authenticated,
        body::JsonBody,
        error::{ApiError, ErrorResponse},
        idempotency::{Repetition, answer_created},
        query::{NoParameters, Query},
    },
    state::App,
    tokenizers::base_model,
};

const PIECE_BYTES: usize = 256 << 10;
const NAMES: Names = Names { files: "files", within: "" };

/// What a preparation made.
#[derive(Debug, Serialize, ToSchema)]
pub struct PreparedFiles {
    /// Always `file.preparation`.
    pub object: &'static str,
    pub training_file: FileObject,
    /// Where a step splits.
    pub held_out_file: Option<FileObject>,
    pub manifest: Manifest,
}

impl From<Prepared> for PreparedFiles {
    fn from(Prepared { training, held_out, manifest }: Prepared) -> Self {
        let (training_file, held_out_file) = (training.into(), held_out.map(FileObject::from));
        Self { object: "file.preparation", training_file, held_out_file, manifest }
    }
}

/// Make a new training file of others, by steps.
///
/// The rows keep their own form and all their fields; the new file is JSON lines. The same files, steps and seed give
/// the same bytes. A preparation goes on when its client leaves.
#[utoipa::path(
    post, path = "/v1/files/prepare", tag = "files",
    request_body = PrepareFilesRequest,
    responses(
        (status = 200, body = PreparedFiles),
        (status = 400, body = ErrorResponse, description = "Files and steps do not go together; `param` names which"),
        (status = 404, body = ErrorResponse, description = "No such file"),
    ),
)]
pub async fn prepare_files(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    repetition: Repetition,
    Query(NoParameters): Query<NoParameters>,
    JsonBody(request): JsonBody<PrepareFilesRequest>,
) -> Result<Response, ApiError> {
    request.check()?;
    check_steps(NAMES.within, &request.steps)?;
    app.store.check_stored_bytes(caller.tenant).await?;
    let preparing = async move { prepare(&app, &caller, repetition, request).await };
    let created = tokio::spawn(preparing.in_current_span()).await.map_err(ApiError::internal)??;
    Ok(answer_created(created, PreparedFiles::from))
}

async fn prepare(
    app: &App,
    caller: &Caller,
    repetition: Repetition,
    request: PrepareFilesRequest,
) -> Result<Created<Prepared>, ApiError> {
    let canonical = serde_json::to_vec(&request).map_err(ApiError::internal)?;
    let idempotency = repetition.of(caller, "POST /v1/files/prepare", fingerprint(&[&canonical]));
    let sources = sources::open(app, caller, (NAMES.files, &request.files), &request.steps).await?;
    let tokenizer = tokenizer(app, caller, &request.steps).await?;
    let _place = app.upload_place().await?;
    let name = match sources.as_slice() {
        [only] => stem(&only.file.filename).to_owned(),
        _ => "rows".to_owned(),
    };
    let seed = request.seed.unwrap_or(0);
    let work = apply(app, Job { sources, steps: request.steps, seed, tokenizer, names: NAMES }).await?;
    let prepared = store(app, caller.tenant, (&name, seed), &work).await?;
    Ok(app.store.create_prepared(caller.tenant, &prepared, &idempotency).await?)
}

/// The tokenizer of the model whose tokens a step counts.
async fn tokenizer(app: &App, caller: &Caller, steps: &[PreparationStep]) -> Result<Option<TextTokenizer>, ApiError> {
    let Some((index, model)) = token_model(steps) else { return Ok(None) };
    let opened = async { app.tokenizers.of(&base_model(app, caller, model).await?).await };
    opened.await.map(Some).map_err(|error| error.param(format!("steps[{index}].model")))
}

/// The name of a file without what tells its kind.
fn stem(filename: &str) -> &str {
    let stem = filename.split('.').next().filter(|stem| !stem.is_empty()).unwrap_or("rows");
    // A name is a little longer at the end.
    let end = (0..=stem.len().min(MAX_FILENAME_BYTES - 32)).rev().find(|end| stem.is_char_boundary(*end));
    &stem[..end.unwrap_or(0)]
}

/// Stores the files that were made, past the linter as any other.
async fn store(
    app: &App,
    tenant: TenantId,
    (name, seed): (&str, u32),
    Work { training, held_out, applied, .. }: &Work,
) -> Result<NewPrepared, ApiError> {
    let store = async |path: &Path, filename: String| take(app, tenant, &applied.reading, (path, filename)).await;
    let training = store(training, format!("{name}-prepared.jsonl")).await?;
    let held_out = match applied.held_out_rows {
        0 => None,
        _ => Some(store(held_out, format!("{name}-held-out.jsonl")).await?),
    };
    let record = |file: &NewFile, rows| PreparedRecord {
        file_id: FileId::generate(),
        sha256: file.content.sha256.clone(),
        bytes: file.content.bytes,
        rows,
    };
    let held_out_record = held_out.as_ref().map(|file| record(file, applied.held_out_rows));
    let manifest = applied.manifest(seed, record(&training, applied.training_rows), held_out_record);
    Ok(NewPrepared { training, held_out, manifest })
}

async fn take(
    app: &App,
    tenant: TenantId,
    reading: &ReadingSpec,
    (path, filename): (&Path, String),
) -> Result<NewFile, ApiError> {
    let file = tokio::fs::File::open(path).await.map_err(ApiError::unavailable)?;
    let mut pieces = ReaderStream::with_capacity(file, PIECE_BYTES);
    let mut sink = Sink::open(app, tenant, Some(reading.clone())).await?;
    while let Some(piece) = pieces.next().await {
        sink.push(piece.map_err(ApiError::unavailable)?).await?;
    }
    let (reading, intake) = (reading.clone(), sink.finish().await?);
    Ok(judged(Form { filename, purpose: Purpose::FineTune, expires_after: None, reading, intake }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prepared_file_is_named_after_its_source() {
        assert_eq!(stem("rows.jsonl.gz"), "rows");
        assert_eq!(stem(".hidden"), "rows");
        assert!(stem(&"é".repeat(400)).len() <= MAX_FILENAME_BYTES - 32);
    }
}
