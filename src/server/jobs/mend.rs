//! `GET /v1/fine_tuning/jobs/{fine_tuning_job_id}/evaluation/mend`

use std::collections::{BTreeMap, BTreeSet};

use axum::{
    Json,
    extract::State,
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use finetuned_dataset::{RowText, RowTexts};
use finetuned_evaluation::{origins, rows_to_mend};
use finetuned_protocol::{
    ids::{FileId, JobId},
    mend::{CategoryOrigin, NearError, NearnessMethod, RowToMend},
};
use finetuned_store::{Job, StoreError};
use futures::TryStreamExt;
use serde::Serialize;
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::{
    compare::answers_of,
    evaluation_file::{FileKind, jsonl, record, send},
};
use crate::{
    http::{
        auth::Authenticated,
        error::{ApiError, Code, ErrorResponse},
        found,
        path::Id,
        query::{Fields, FromQuery, Query},
    },
    state::App,
};

/// How the score comes about, for those who read it.
const FORMULA: &str = "sum over categories c of w(c) * (shows(c, row) * (1 - p(c)) + near(c, row) / 2): w(c) is the share of the \
    tuned model's answers with the error, near(c, row) the mean over its worst answers (at most 10) of the row's similarity \
    where it is among the 5 nearest and at least 0.2, shows(c, row) is 1 where the row's own answer has the error, and p(c) \
    the share of training rows that have it";

/// Which rows, as what.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct MendQuery {
    /// Only what this kind of error says.
    category: Option<String>,
    /// Rows of the list, 1 to 2048; default 50.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 2048)]
    limit: u32,
    /// `jsonl` or `csv` downloads the list as a file. The lines of `jsonl`, with their `row` edited, are what
    /// `POST /v1/files/{file_id}/versions` takes.
    #[param(value_type = Option<String>, pattern = "^(jsonl|csv)$")]
    format: Option<FileKind>,
}

impl FromQuery for MendQuery {
    fn from_query(fields: &mut Fields) -> Result<Self, ApiError> {
        let (category, format) = (fields.take("category")?, fields.take_parsed("format")?);
        Ok(Self { category, limit: fields.take_number("limit", 50, 1..=2048)?, format })
    }
}

/// A training row to mend, as it stands in its file.
#[derive(Debug, Serialize, ToSchema)]
pub struct MendRow {
    /// Always `fine_tuning.job.mend.row`.
    pub object: &'static str,
    /// Counted from 1.
    pub rank: usize,
    /// Line of the row in the training file, counted from 1.
    pub line: u64,
    /// JSON pointer to its answer within the row; empty for the row itself.
    pub pointer: String,
    pub score: f64,
    pub reason: String,
    /// Kinds of error that its own answer shows, among those that the tuned model makes.
    pub categories: Vec<String>,
    /// Held-out rows with errors that it is among the nearest to.
    pub near: Vec<NearError>,
    #[schema(value_type = Object)]
    pub row: Value,
}

/// What to change in the data.
#[derive(Debug, Serialize, ToSchema)]
pub struct MendList {
    /// Always `fine_tuning.job.mend`.
    pub object: &'static str,
    #[schema(value_type = String)]
    pub fine_tuning_job_id: JobId,
    /// The file that the lines are of.
    #[schema(value_type = String)]
    pub training_file: FileId,
    /// How nearness is told.
    pub method: NearnessMethod,
    /// Rows that the job was trained on, and how many of them were looked at (at most 2048).
    pub training_rows: u64,
    pub training_rows_looked_at: u64,
    /// How `score` comes about.
    pub formula: &'static str,
    /// What could not be judged, and why.
    pub not_judged: Vec<String>,
    /// Each kind of error of the tuned model, the most frequent first.
    pub categories: Vec<CategoryOrigin>,
    /// Rows to mend, the most promising first.
    pub data: Vec<MendRow>,
    /// Whether there are more than `limit`.
    pub has_more: bool,
}

/// Follow a job's errors back to its training rows: which to mend first, and why.
///
/// For each kind of error of the tuned model there are its worst answers with the training rows nearest to them, and the
/// training rows whose own answers show the error. `data` ranks the rows; `formula` says how.
#[utoipa::path(
    get, path = "/v1/fine_tuning/jobs/{fine_tuning_job_id}/evaluation/mend", tag = "fine-tuning",
    params(("fine_tuning_job_id" = String, Path), MendQuery),
    responses(
        (status = 200, body = MendList),
        (status = 304, description = "The client has these bytes"),
        (status = 400, body = ErrorResponse, description = "A job without answers"),
        (status = 404, body = ErrorResponse),
    ),
)]
pub async fn list_rows_to_mend(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    Id(id): Id<JobId>,
    Query(query): Query<MendQuery>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let job = found(app.store.get_job(caller.tenant, id).await, "fine-tuning job", id)?;
    let answers = answers_of(&job, "the job")?;
    if let Some(category) = query.category.as_ref().filter(|category| !answers.categories.contains_key(*category)) {
        let known: Vec<&str> = answers.categories.keys().map(String::as_str).collect();
        let message = format!("this job has no category `{category}`; it has {}", known.join(", "));
        return Err(ApiError::invalid("category", message));
    }
    let rows = app.store.training_rows(caller.tenant, id).await.map_err(|error| match error {
        StoreError::NotFound { .. } => {
            let message = "nothing is known of this job's training rows: it ended before they were looked at, or they could \
                           not be; train it again";
            ApiError::new(Code::InvalidState, message)
        }
        error => error.into(),
    })?;
    let mut ranked = rows_to_mend(answers, &rows, query.category.as_deref());
    let has_more = ranked.len() > query.limit as usize;
    ranked.truncate(query.limit as usize);
    let data = with_texts(&app, &job, ranked).await?;
    if let Some(kind) = query.format {
        let text = match kind {
            FileKind::Jsonl => jsonl(&data)?,
            FileKind::Csv => csv(&data),
        };
        return send(kind, text, &format!("{id}-mend"), &headers);
    }
    let mut categories = origins(answers, &rows);
    categories.retain(|origin| query.category.as_ref().is_none_or(|wanted| origin.category == *wanted));
    let list = MendList {
        object: "fine_tuning.job.mend",
        fine_tuning_job_id: id,
        training_file: job.training_file,
        method: rows.method,
        training_rows: rows.rows,
        training_rows_looked_at: rows.rows_looked_at,
        formula: FORMULA,
        not_judged: rows.not_judged,
        categories,
        data,
        has_more,
    };
    Ok(Json(list).into_response())
}

/// The rows as their file has them.
async fn with_texts(app: &App, job: &Job, ranked: Vec<RowToMend>) -> Result<Vec<MendRow>, ApiError> {
    let lines: BTreeSet<u64> = ranked.iter().map(|row| row.line).collect();
    let data = app.store.job_data(job.tenant, job.id).await?;
    let rows = job.effective.as_ref().map(|effective| effective.preparation.rows.clone()).unwrap_or_default();
    let mut bytes = app.store.get_blob(data.training, None).await?;
    let mut stream = RowTexts::new(&rows.training);
    let mut texts: BTreeMap<u64, Value> = BTreeMap::new();
    let mut take = |row: Result<RowText, _>| {
        if let Ok(row) = row
            && lines.contains(&row.line)
        {
            texts.insert(row.line, serde_json::from_slice(&row.text).unwrap_or_default());
        }
    };
    while let Some(piece) = bytes.try_next().await? {
        // A piece is read in about a millisecond.
        stream.feed(&piece, &mut take);
    }
    stream.finish(&mut take);
    let with_text = |(row, rank): (RowToMend, usize)| {
        let RowToMend { line, pointer, score, reason, categories, near } = row;
        let row = texts.remove(&line).unwrap_or_default();
        MendRow { object: "fine_tuning.job.mend.row", rank, line, pointer, score, reason, categories, near, row }
    };
    Ok(ranked.into_iter().zip(1..).map(with_text).collect())
}

fn csv(rows: &[MendRow]) -> String {
    let head = ["rank", "line", "pointer", "score", "reason", "categories", "row"];
    let mut text = record(head.map(str::to_owned).into_iter());
    for row in rows {
        let cells = [
            row.rank.to_string(),
            row.line.to_string(),
            row.pointer.clone(),
            row.score.to_string(),
            row.reason.clone(),
            row.categories.join(" "),
            row.row.to_string(),
        ];
        text.push_str(&record(cells.into_iter()));
    }
    text
}
