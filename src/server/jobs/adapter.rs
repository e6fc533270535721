//! `GET /v1/fine_tuning/jobs/{fine_tuning_job_id}/adapter` and `/merged`: the adapter, or the model with it put in, as one tar,
//! the same bytes every time.

use std::{collections::HashMap, ops::Range, sync::Mutex};

use axum::{extract::State, http::HeaderMap, response::Response};
use bytes::Bytes;
use finetuned_protocol::{
    export::{MERGED_PREFIX, is_of_the_adapter},
    ids::JobId,
};
use finetuned_store::{Caller, Store, StoreError, StoredFile, fingerprint};
use futures::{Stream, StreamExt, TryStreamExt, stream};
use sha2::{Digest, Sha256};

use super::tar::{Layout, Member, Slice};
use crate::{
    http::{
        auth::Authenticated,
        download::Download,
        error::{ApiError, Code, ErrorResponse},
        found,
        path::Id,
        query::{NoParameters, Query},
    },
    state::App,
};

/// Hashes of archives by the hashes of their files. An archive is read whole for its hash, but once a process.
#[derive(Default)]
pub struct Digests(Mutex<HashMap<[u8; 32], String>>);

/// Archives whose hash is remembered.
const MAX_DIGESTS: usize = 4096;

impl Digests {
    fn get(&self, key: &[u8; 32]) -> Option<String> {
        // A panic of another holder leaves a whole map behind.
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get(key).cloned()
    }

    fn put(&self, key: [u8; 32], sha256: String) {
        let mut map = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if map.len() >= MAX_DIGESTS {
            map.clear();
        }
        map.insert(key, sha256);
    }
}

/// Download a job's adapter as one uncompressed tar, in peft's layout.
#[utoipa::path(
    get, path = "/v1/fine_tuning/jobs/{fine_tuning_job_id}/adapter", tag = "fine-tuning",
    params(("fine_tuning_job_id" = String, Path)),
    responses(
        (status = 200, body = Vec<u8>, content_type = "application/x-tar"),
        (status = 206, description = "The range that was asked for"),
        (status = 304, description = "The client has these bytes"),
        (status = 404, body = ErrorResponse, description = "No such job, or one without an adapter yet"),
        (status = 416, body = ErrorResponse),
    ),
)]
pub async fn get_adapter(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    Id(id): Id<JobId>,
    Query(NoParameters): Query<NoParameters>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let mut files = files_of(&app, &caller, id).await?;
    files.retain(|file| is_of_the_adapter(&file.name));
    archive(app, files, format!("{id}.tar"), &headers).await
}

/// Download a job's tuned model with the adapter put in, where its `export` asked for `merged`, as one uncompressed tar in
/// Hugging Face's layout.
#[utoipa::path(
    get, path = "/v1/fine_tuning/jobs/{fine_tuning_job_id}/merged", tag = "fine-tuning",
    params(("fine_tuning_job_id" = String, Path)),
    responses(
        (status = 200, body = Vec<u8>, content_type = "application/x-tar"),
        (status = 206, description = "The range that was asked for"),
        (status = 304, description = "The client has these bytes"),
        (status = 404, body = ErrorResponse, description = "No such job, or one without a merged model"),
        (status = 416, body = ErrorResponse),
    ),
)]
pub async fn get_merged(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    Id(id): Id<JobId>,
    Query(NoParameters): Query<NoParameters>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let files = files_of(&app, &caller, id).await?;
    let of_model = |file: &StoredFile| {
        let own = file.name.strip_prefix(MERGED_PREFIX);
        let shared = TOKENIZER_FILES.contains(&file.name.as_str()).then_some(file.name.as_str());
        own.or(shared).map(|name| StoredFile { name: name.to_owned(), content: file.content.clone() })
    };
    if !files.iter().any(|file| file.name.starts_with(MERGED_PREFIX)) {
        let message = format!("`{id}` has no merged model: `merged` is not in its `export`");
        return Err(ApiError::new(Code::NotFound, message));
    }
    archive(app, files.iter().filter_map(of_model).collect(), format!("{id}-merged.tar"), &headers).await
}

/// Files that a merged model shares with the adapter it was made of.
const TOKENIZER_FILES: [&str; 3] = ["chat_template.jinja", "tokenizer.json", "tokenizer_config.json"];

/// All files of a job that has some.
async fn files_of(app: &App, caller: &Caller, id: JobId) -> Result<Vec<StoredFile>, ApiError> {
    let job = found(app.store.get_job(caller.tenant, id).await, "fine-tuning job", id)?;
    let files = app.store.artifacts(caller.tenant, id).await?;
    if files.is_empty() {
        let message = format!("`{id}` has no adapter: it is `{}`", job.status);
        return Err(ApiError::new(Code::NotFound, message));
    }
    Ok(files)
}

async fn archive(
    app: App,
    mut files: Vec<StoredFile>,
    filename: String,
    headers: &HeaderMap,
) -> Result<Response, ApiError> {
    files.sort_by(|one, other| one.name.cmp(&other.name));
    let members: Vec<Member> =
        files.iter().map(|file| Member { name: file.name.clone(), bytes: file.content.bytes }).collect();
    let layout = Layout::new(&members).map_err(ApiError::internal)?;
    let download = Download {
        bytes: layout.bytes(),
        sha256: digest(&app, &layout, &files).await?,
        content_type: "application/x-tar",
        filename,
    };
    let wanted = download.wanted(headers)?;
    let content = content(app.store, &layout, &files, wanted.range(download.bytes).unwrap_or(0..0));
    download.respond(&wanted, content)
}

/// The sha256 of the whole archive.
async fn digest(app: &App, layout: &Layout, files: &[StoredFile]) -> Result<String, ApiError> {
    let parts: Vec<&[u8]> =
        files.iter().flat_map(|file| [file.name.as_bytes(), file.content.sha256.as_bytes()]).collect();
    let key = fingerprint(&parts);
    if let Some(known) = app.digests.get(&key) {
        return Ok(known);
    }
    let mut hash = Sha256::new();
    let mut pieces = content(app.store.clone(), layout, files, 0..layout.bytes());
    while let Some(piece) = pieces.try_next().await? {
        hash.update(&piece);
    }
    let sha256 = hex::encode(hash.finalize());
    app.digests.put(key, sha256.clone());
    Ok(sha256)
}

type Pieces = std::pin::Pin<Box<dyn Stream<Item = Result<Bytes, StoreError>> + Send>>;

/// The bytes of a range; each blob is opened when its turn comes.
fn content(store: Store, layout: &Layout, files: &[StoredFile], range: Range<u64>) -> Pieces {
    let blobs: Vec<_> = files.iter().map(|file| file.content.id).collect();
    let pieces = stream::iter(layout.slices(range)).then(move |slice| {
        let store = store.clone();
        let blob = match &slice {
            Slice::Content { member, .. } => blobs.get(*member).copied(),
            Slice::Literal(_) => None,
        };
        async move {
            let pieces: Pieces = match (slice, blob) {
                (Slice::Literal(bytes), _) => Box::pin(stream::once(async { Ok(bytes) })),
                (Slice::Content { range, .. }, Some(blob)) => store.get_blob(blob, Some(range)).await?,
                // The layout was made of these very files.
                (Slice::Content { .. }, None) => return Err(StoreError::NotFound { what: "artifact" }),
            };
            Ok(pieces)
        }
    });
    Box::pin(pieces.try_flatten())
}
