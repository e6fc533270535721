//! `GET /v1/files/{file_id}/diff`: what two files' rows differ in.

use axum::{Json, extract::State};
use finetuned_dataset::{RowChange, RowText, RowTexts, diff_rows};
use finetuned_protocol::ids::FileId;
use finetuned_store::{File, StoreError};
use futures::TryStreamExt;
use serde::Serialize;
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::versions::require_dataset;
use crate::{
    http::{
        auth::Authenticated,
        error::{ApiError, Code, ErrorResponse},
        found,
        path::{Id, PathId},
        query::{Fields, FromQuery, Query},
    },
    state::App,
};

/// Rows and bytes of a file that are compared; they lie in memory.
const MAX_ROWS: usize = 200_000;
const MAX_BYTES: usize = 64 << 20;

/// With which file, and which differences.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct DiffQuery {
    /// The file to compare with, such as the next version.
    #[param(value_type = String)]
    with: FileId,
    /// `next_after` of the page before.
    #[param(value_type = Option<u64>)]
    after: usize,
    /// 1 to 256; default 100.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 256)]
    limit: u32,
}

impl FromQuery for DiffQuery {
    fn from_query(fields: &mut Fields) -> Result<Self, ApiError> {
        let with = fields.take_parsed("with")?.ok_or_else(|| {
            ApiError::new(Code::MissingParameter, "`with` must name the file to compare with").param("with")
        })?;
        let after = fields.take_parsed("after")?.unwrap_or(0);
        Ok(Self { with, after, limit: fields.take_number("limit", 100, 1..=256)? })
    }
}

/// What happened to a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    Added,
    Removed,
    Changed,
}

/// A difference.
#[derive(Debug, Serialize, ToSchema)]
pub struct RowDifference {
    pub change: ChangeKind,
    /// Line of the row in the file; null where it was added.
    pub line: Option<u64>,
    /// Line of the row in `with`; null where it was removed.
    pub with_line: Option<u64>,
    /// The row in the file, or its text where it is no JSON.
    #[schema(value_type = Option<Object>)]
    pub before: Option<Value>,
    /// The row in `with`, or its text where it is no JSON.
    #[schema(value_type = Option<Object>)]
    pub after: Option<Value>,
}

/// What two files differ in.
#[derive(Debug, Serialize, ToSchema)]
pub struct FileDiff {
    /// Always `file.diff`.
    pub object: &'static str,
    #[schema(value_type = String)]
    pub file_id: FileId,
    #[schema(value_type = String)]
    pub with: FileId,
    /// Rows of the file, and of `with`.
    pub rows: u64,
    pub with_rows: u64,
    pub added_rows: u64,
    pub removed_rows: u64,
    pub changed_rows: u64,
    /// In the order of the rows.
    pub data: Vec<RowDifference>,
    pub has_more: bool,
    /// Give this as `after` to go on; null at the end.
    pub next_after: Option<usize>,
}

/// Compare the rows of two datasets: which were added, removed and changed.
///
/// Rows are equal where their JSON is, whatever the white space. Files may have different layouts, at most 200,000 rows and
/// 64 MB each.
#[utoipa::path(
    get, path = "/v1/files/{file_id}/diff", tag = "files", params(("file_id" = String, Path), DiffQuery),
    responses(
        (status = 200, body = FileDiff),
        (status = 400, body = ErrorResponse, description = "A file without rows, or one that is too large"),
        (status = 404, body = ErrorResponse),
    ),
)]
pub async fn get_file_diff(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    Id(id): Id<FileId>,
    Query(query): Query<DiffQuery>,
) -> Result<Json<FileDiff>, ApiError> {
    let file = found(app.store.get_file(caller.tenant, id).await, FileId::KIND, id)?;
    let with = app.store.get_file(caller.tenant, query.with).await.map_err(|error| match error {
        StoreError::NotFound { .. } => ApiError::invalid("with", format!("`with`: no such file: `{}`", query.with)),
        error => error.into(),
    })?;
    let (before, after) = (rows_of(&app, &file).await?, rows_of(&app, &with).await?);
    let comparing = move || {
        let changes = diff_rows(&before, &after);
        (before, after, changes)
    };
    let (before, after, changes) = tokio::task::spawn_blocking(comparing).await.map_err(ApiError::internal)?;
    let count = |wanted: fn(&RowChange) -> bool| changes.iter().filter(|change| wanted(change)).count() as u64;
    let end = query.after.saturating_add(query.limit as usize);
    let shown = changes.iter().skip(query.after).take(query.limit as usize);
    Ok(Json(FileDiff {
        object: "file.diff",
        file_id: id,
        with: with.id,
        rows: before.len() as u64,
        with_rows: after.len() as u64,
        added_rows: count(|change| matches!(change, RowChange::Added { .. })),
        removed_rows: count(|change| matches!(change, RowChange::Removed { .. })),
        changed_rows: count(|change| matches!(change, RowChange::Changed { .. })),
        data: shown.map(|change| difference(*change, &before, &after)).collect(),
        has_more: changes.len() > end,
        next_after: (changes.len() > end).then_some(end),
    }))
}

async fn rows_of(app: &App, file: &File) -> Result<Vec<RowText>, ApiError> {
    require_dataset(file)?;
    let mut bytes = app.store.get_blob(file.content.id, None).await?;
    let mut stream = RowTexts::new(&file.reading);
    let (mut rows, mut size, mut fault) = (Vec::new(), 0, None);
    let mut take = |row: Result<RowText, _>, rows: &mut Vec<RowText>| match row {
        Ok(row) if rows.len() <= MAX_ROWS && size <= MAX_BYTES => {
            size += row.text.len();
            rows.push(row);
        }
        Ok(_) => {}
        Err(finding) => {
            fault.get_or_insert(finding);
        }
    };
    while let Some(piece) = bytes.try_next().await? {
        stream.feed(&piece, &mut |row| take(row, &mut rows));
    }
    stream.finish(&mut |row| take(row, &mut rows));
    if let Some(finding) = fault {
        let message =
            format!("the rows of `{}` cannot be told apart: line {}: {}", file.id, finding.line, finding.reason);
        return Err(ApiError::new(Code::InvalidState, message));
    }
    if rows.len() > MAX_ROWS || size > MAX_BYTES {
        let message =
            format!("`{}` has more than the {MAX_ROWS} rows or {} MB that are compared", file.id, MAX_BYTES >> 20);
        return Err(ApiError::new(Code::InvalidState, message));
    }
    Ok(rows)
}

fn difference(change: RowChange, before: &[RowText], after: &[RowText]) -> RowDifference {
    let (kind, old, new) = match change {
        RowChange::Added { after: at } => (ChangeKind::Added, None, after.get(at)),
        RowChange::Removed { before: at } => (ChangeKind::Removed, before.get(at), None),
        RowChange::Changed { before: old, after: new } => (ChangeKind::Changed, before.get(old), after.get(new)),
    };
    let value = |row: &RowText| {
        serde_json::from_slice(&row.text).unwrap_or_else(|_| Value::from(String::from_utf8_lossy(&row.text)))
    };
    RowDifference {
        change: kind,
        line: old.map(|row| row.line),
        with_line: new.map(|row| row.line),
        before: old.map(value),
        after: new.map(value),
    }
}
