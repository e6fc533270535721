//! `GET /v1/files/{file_id}/lint`: the summary and every finding, streamed from the blob they lie in.

use std::io;

use axum::{
    Json,
    body::Body,
    extract::State,
    http::header::{CONTENT_DISPOSITION, CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use finetuned_protocol::ids::FileId;
use finetuned_store::{BlobStream, File};
use futures::{Stream, StreamExt, TryStreamExt, stream};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader, Lines};
use tokio_util::io::StreamReader;
use utoipa::{IntoParams, ToSchema};

use super::{
    model_lint::{self, ModelLint},
    wire::LintReport,
};
use crate::{
    http::{
        auth::Authenticated,
        error::{ApiError, Code, ErrorResponse},
        found,
        path::Id,
        query::{Fields, FromQuery, Query},
    },
    scratch::Scratch,
    state::App,
};

/// The answer is written in pieces of about this size.
const PIECE_BYTES: usize = 32 << 10;

/// Which findings to give.
#[derive(Debug, Clone, Copy, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct LintPage {
    /// How many findings to pass over: `next_after` of the page before.
    #[param(value_type = Option<u64>)]
    after: u64,
    /// At most so many; all of them where absent.
    #[param(minimum = 1)]
    limit: Option<u64>,
}

impl FromQuery for LintPage {
    fn from_query(fields: &mut Fields) -> Result<Self, ApiError> {
        let limit = fields.take_parsed("limit")?;
        if limit == Some(0) {
            return Err(ApiError::invalid("limit", "`limit` must be at least 1"));
        }
        Ok(Self { after: fields.take_parsed("after")?.unwrap_or(0), limit })
    }
}

/// What was found at the upload, or what a model finds.
pub enum LintQuery {
    Stored(LintPage),
    OfModel(model_lint::Both),
}

impl FromQuery for LintQuery {
    fn from_query(fields: &mut Fields) -> Result<Self, ApiError> {
        if fields.has("model") {
            return model_lint::Both::from_query(fields).map(Self::OfModel);
        }
        LintPage::from_query(fields).map(Self::Stored)
    }
}

/// Either of the reports.
#[derive(ToSchema)]
#[serde(untagged)]
#[allow(dead_code)]
pub enum AnyLintReport {
    Stored(LintReport),
    OfModel(ModelLint),
}

/// Read what was found in a file's rows: all of it, not only the first. With `model`, what the rules find that need a
/// model or a second file.
#[utoipa::path(
    get, path = "/v1/files/{file_id}/lint", tag = "files",
    params(
        ("file_id" = String, Path),
        LintPage,
        model_lint::Against,
        ("model" = Option<String>, Query, description = "A model: the rules that need one are applied"),
        ("template" = Option<String>, Query, description = "With `model`: as in a job"),
        ("max_seq_len" = Option<u32>, Query, description = "With `model`: as in a job"),
    ),
    responses((status = 200, body = AnyLintReport), (status = 404, body = ErrorResponse)),
)]
pub async fn get_file_lint(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    Id(id): Id<FileId>,
    Query(query): Query<LintQuery>,
) -> Result<Response, ApiError> {
    let page = match query {
        LintQuery::Stored(page) => page,
        LintQuery::OfModel(asked) => {
            return Ok(Json(model_lint::lint(&app, &caller, id, asked).await?).into_response());
        }
    };
    let file = found(app.store.get_file(caller.tenant, id).await, "file", id)?;
    let head = head(&file)?;
    let findings: BlobStream = match file.findings {
        Some(blob) => app.store.get_blob(blob, None).await?,
        None => Box::pin(stream::empty()),
    };
    let body = stream::once(async { Ok(Bytes::from(head)) }).chain(rest(findings, page));
    Ok(([(CONTENT_TYPE, "application/json")], Body::from_stream(body)).into_response())
}

/// Which findings to download.
#[derive(Debug, Clone, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct RuleFilter {
    /// Only those of this rule.
    rule: Option<String>,
}

/// Which findings, and whose.
pub struct FindingsQuery {
    filter: RuleFilter,
    of_model: Option<model_lint::Both>,
}

impl FromQuery for FindingsQuery {
    fn from_query(fields: &mut Fields) -> Result<Self, ApiError> {
        let rule = fields.take("rule")?;
        if let Some(None) = rule.as_deref().map(finetuned_dataset::rule) {
            return Err(ApiError::invalid("rule", "`rule` is no rule of the linter"));
        }
        let of_model = if fields.has("model") { Some(model_lint::Both::from_query(fields)?) } else { None };
        Ok(Self { filter: RuleFilter { rule }, of_model })
    }
}

/// Download what was found in a file's rows, one JSON object a line: every line number of every rule. With `model`, what
/// the rules find that need a model or a second file; each finding then names its `file`, `training` or `validation`.
#[utoipa::path(
    get, path = "/v1/files/{file_id}/lint/findings", tag = "files",
    params(
        ("file_id" = String, Path),
        RuleFilter,
        model_lint::Against,
        ("model" = Option<String>, Query, description = "A model: the rules that need one are applied"),
        ("template" = Option<String>, Query, description = "With `model`: as in a job"),
        ("max_seq_len" = Option<u32>, Query, description = "With `model`: as in a job"),
    ),
    responses(
        (status = 200, body = Vec<u8>, content_type = "application/jsonl"),
        (status = 404, body = ErrorResponse),
    ),
)]
pub async fn get_file_findings(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    Id(id): Id<FileId>,
    Query(FindingsQuery { filter, of_model }): Query<FindingsQuery>,
) -> Result<Response, ApiError> {
    if let Some(asked) = of_model {
        let (path, scratch) = model_lint::findings(&app, &caller, id, asked).await?;
        let lines = tokio::fs::File::open(&path).await.map_err(ApiError::unavailable)?;
        return Ok(download(id, lines, filter, Some(scratch)));
    }
    let file = found(app.store.get_file(caller.tenant, id).await, "file", id)?;
    head(&file)?;
    let findings: BlobStream = match file.findings {
        Some(blob) => app.store.get_blob(blob, None).await?,
        None => Box::pin(stream::empty()),
    };
    Ok(download(id, StreamReader::new(findings.map_err(io::Error::other)), filter, None))
}

/// The wanted ones of findings, as a file; `scratch` lasts as long as it is read.
fn download(
    id: FileId,
    findings: impl AsyncRead + Send + Unpin + 'static,
    filter: RuleFilter,
    scratch: Option<Scratch>,
) -> Response {
    let lines = BufReader::new(findings).lines();
    let wanted = filter.rule.map(|rule| format!("\"rule\":\"{rule}\""));
    let body = stream::try_unfold((lines, wanted, scratch), |(mut lines, wanted, scratch)| async move {
        let mut piece = String::new();
        while piece.len() < PIECE_BYTES {
            let Some(line) = lines.next_line().await? else { break };
            // The writer puts no space into its JSON, and quotes within a text are escaped.
            if wanted.as_ref().is_none_or(|wanted| line.contains(wanted)) {
                piece.push_str(&line);
                piece.push('\n');
            }
        }
        Ok::<_, io::Error>((!piece.is_empty()).then(|| (Bytes::from(piece), (lines, wanted, scratch))))
    });
    let disposition = format!("attachment; filename=\"{id}-findings.jsonl\"");
    let headers = [(CONTENT_TYPE, "application/jsonl".to_owned()), (CONTENT_DISPOSITION, disposition)];
    (headers, Body::from_stream(body)).into_response()
}

/// The answer up to its first finding.
fn head(file: &File) -> Result<String, ApiError> {
    let (id, purpose) = (file.id, &file.purpose);
    let Some(summary) = &file.lint else {
        let message = format!("`{id}` has the purpose `{purpose}`; only files of purpose `fine-tune` are checked");
        return Err(ApiError::new(Code::NotFound, message));
    };
    let summary = serde_json::to_string(summary).map_err(ApiError::internal)?;
    Ok(format!(r#"{{"object":"file.lint","file_id":"{id}","summary":{summary},"data":["#))
}

struct Findings<R> {
    lines: Lines<R>,
    /// Findings read so far.
    seen: u64,
    page: LintPage,
    first: bool,
    ended: bool,
}

/// The findings of the page, and the end of the answer.
fn rest(findings: BlobStream, page: LintPage) -> impl Stream<Item = io::Result<Bytes>> + Send {
    let lines = BufReader::new(StreamReader::new(findings.map_err(io::Error::other))).lines();
    let findings = Findings { lines, seen: 0, page, first: true, ended: false };
    stream::try_unfold(findings, |mut findings| async move {
        let piece = findings.piece().await?;
        Ok(piece.map(|piece| (Bytes::from(piece), findings)))
    })
}

impl<R: AsyncRead + tokio::io::AsyncBufRead + Unpin> Findings<R> {
    async fn piece(&mut self) -> io::Result<Option<String>> {
        if self.ended {
            return Ok(None);
        }
        let mut piece = String::new();
        while piece.len() < PIECE_BYTES {
            let end = self.page.limit.map(|limit| self.page.after.saturating_add(limit));
            let Some(line) = self.lines.next_line().await? else {
                self.ended = true;
                piece.push_str(r#"],"has_more":false,"next_after":null}"#);
                break;
            };
            if let Some(end) = end.filter(|end| self.seen >= *end) {
                self.ended = true;
                piece.push_str(&format!(r#"],"has_more":true,"next_after":{end}}}"#));
                break;
            }
            self.seen += 1;
            if self.seen <= self.page.after {
                continue;
            }
            if !std::mem::take(&mut self.first) {
                piece.push(',');
            }
            piece.push_str(&line);
        }
        Ok(Some(piece))
    }
}

/// The first findings of a file that a job cannot use, at most `most`, as particulars of an error.
///
/// # Errors
/// Findings that cannot be read.
pub async fn first_findings(app: &App, file: &File, most: usize) -> Result<Vec<serde_json::Value>, ApiError> {
    let Some(blob) = file.findings else { return Ok(Vec::new()) };
    let bytes = app.store.get_blob(blob, None).await?.map_err(io::Error::other);
    let mut lines = BufReader::new(StreamReader::new(bytes)).lines();
    let mut findings = Vec::new();
    while findings.len() < most
        && let Some(line) = lines.next_line().await.map_err(ApiError::internal)?
    {
        let finding: serde_json::Value = serde_json::from_str(&line).map_err(ApiError::internal)?;
        if finding["severity"] == "error" {
            findings.push(finding);
        }
    }
    Ok(findings)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use super::*;

    fn answer(count: u64, after: u64, limit: Option<u64>) -> Value {
        let lines = (1..=count).map(|line| Ok(Bytes::from(format!("{{\"line\":{line}}}\n"))));
        let body = rest(Box::pin(stream::iter(lines)), LintPage { after, limit });
        let pieces: Vec<Bytes> = futures::executor::block_on(body.try_collect()).unwrap();
        serde_json::from_slice(&[b"{\"data\":[".as_slice(), &pieces.concat()].concat()).unwrap()
    }

    #[test]
    fn pages_of_findings_are_exact() {
        assert_eq!(answer(0, 0, None), json!({"data": [], "has_more": false, "next_after": null}));
        assert_eq!(answer(2, 0, Some(2))["has_more"], false);
        let first = answer(3, 0, Some(2));
        assert_eq!(first, json!({"data": [{"line": 1}, {"line": 2}], "has_more": true, "next_after": 2}));
        assert_eq!(answer(3, 2, Some(2)), json!({"data": [{"line": 3}], "has_more": false, "next_after": null}));
        assert_eq!(answer(3, 9, None)["data"], json!([]));
    }

    #[test]
    fn many_findings_come_in_many_pieces() {
        let all = answer(10_000, 0, None);
        assert_eq!(all["data"].as_array().unwrap().len(), 10_000);
    }
}
