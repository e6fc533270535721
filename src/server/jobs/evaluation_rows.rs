//! `GET /v1/fine_tuning/jobs/{fine_tuning_job_id}/evaluation/rows`

use std::{collections::BTreeMap, str::FromStr};

use axum::{
    Json,
    extract::State,
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use finetuned_protocol::{
    engine::{AnsweredRow, Answerer},
    evaluation::{AnswerPair, Scores},
    ids::{EvaluationRunId, JobId},
    text_metric::TextMetric,
};
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::{
    evaluation_file::{FileKind, download},
    evaluation_runs::named_run,
};
use crate::{
    http::{
        auth::Authenticated,
        error::{ApiError, ErrorResponse},
        found,
        paging::{ListPage, Listed},
        path::Id,
        query::{Fields, FromQuery, Query},
    },
    state::App,
};

/// A held-out row with both answers.
#[derive(Debug, Serialize, ToSchema)]
pub struct EvaluationRow {
    /// Always `fine_tuning.job.evaluation.row`.
    pub object: &'static str,
    #[serde(flatten)]
    pub row: Row,
}

/// A row as far as it is known.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum Row {
    Judged(Box<AnswerPair>),
    Answered(AnsweredSoFar),
}

/// A row of an evaluation that is still going on.
#[derive(Debug, Serialize, ToSchema)]
pub struct AnsweredSoFar {
    /// Line of the row in its file, counted from 1.
    pub line: u64,
    pub prompt: String,
    pub reference: String,
    /// Null until the base model has answered.
    pub base: Option<String>,
    /// Null until the tuned model has answered.
    pub tuned: Option<String>,
    /// Whether the answer ended by itself.
    pub base_ended: Option<bool>,
    pub tuned_ended: Option<bool>,
}

impl Listed for EvaluationRow {
    fn id(&self) -> String {
        match &self.row {
            Row::Judged(pair) => pair.line.to_string(),
            Row::Answered(row) => row.line.to_string(),
        }
    }
}

/// Answers by row, whoever gave them.
fn so_far(answers: Vec<AnsweredRow>) -> Vec<AnsweredSoFar> {
    let mut by_line: BTreeMap<u64, AnsweredSoFar> = BTreeMap::new();
    for AnsweredRow { by, line, prompt, reference, text, ended } in answers {
        let new =
            AnsweredSoFar { line, prompt, reference, base: None, tuned: None, base_ended: None, tuned_ended: None };
        let row = by_line.entry(line).or_insert(new);
        match by {
            Answerer::Base => (row.base, row.base_ended) = (Some(text), Some(ended)),
            Answerer::Tuned => (row.tuned, row.tuned_ended) = (Some(text), Some(ended)),
        }
    }
    by_line.into_values().collect()
}

/// Whose answers are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Base,
    Tuned,
    /// The tuned model's figure less the base model's; errors that the tuned model made alone.
    Change,
}

impl FromStr for Side {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "base" => Ok(Self::Base),
            "tuned" => Ok(Self::Tuned),
            "change" => Ok(Self::Change),
            _ => Err("it is `base`, `tuned` or `change`"),
        }
    }
}

impl Side {
    fn figure(self, pair: &AnswerPair, metric: TextMetric) -> Option<f64> {
        let of = |scores: &Scores| scores.get(&metric).copied();
        match self {
            Self::Base => of(&pair.base_scores),
            Self::Tuned => of(&pair.tuned_scores),
            Self::Change => Some(of(&pair.tuned_scores)? - of(&pair.base_scores)?),
        }
    }

    fn has(self, pair: &AnswerPair, category: &str) -> bool {
        let of = |categories: &[String]| categories.iter().any(|name| name == category);
        match self {
            Self::Base => of(&pair.base_categories),
            Self::Tuned => of(&pair.tuned_categories),
            Self::Change => of(&pair.tuned_categories) && !of(&pair.base_categories),
        }
    }
}

/// Which rows, in which order, as what.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct RowsQuery {
    /// A further evaluation; without it, the job's own.
    #[param(value_type = Option<String>)]
    run: Option<EvaluationRunId>,
    /// Whose figures and categories count: `base`, `tuned` (the default), or `change` from base to tuned.
    #[param(value_type = Option<String>, pattern = "^(base|tuned|change)$")]
    side: Side,
    /// Only rows with this kind of error.
    category: Option<String>,
    /// A metric's name, or `line` (the default). Rows that have no such figure come last.
    #[param(value_type = Option<String>)]
    sort: Option<TextMetric>,
    /// `asc` (the default) or `desc`.
    #[param(value_type = Option<String>, rename = "order", pattern = "^(asc|desc)$")]
    descending: bool,
    /// Only rows whose `sort` figure is above this.
    above: Option<f64>,
    /// Only rows whose `sort` figure is below this.
    below: Option<f64>,
    /// `last_id` of the page before.
    after: Option<u64>,
    /// 1 to 256; default 20.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 256)]
    limit: u32,
    /// `jsonl` or `csv` downloads all of these rows as a file, without pages.
    #[param(value_type = Option<String>, pattern = "^(jsonl|csv)$")]
    format: Option<FileKind>,
}

impl FromQuery for RowsQuery {
    fn from_query(fields: &mut Fields) -> Result<Self, ApiError> {
        let sort = fields.take("sort")?.filter(|name| name != "line");
        let sort = sort.map(|name| {
            let unknown =
                |_| ApiError::invalid("sort", format!("`sort` is `line` or a metric; none is called `{name}`"));
            name.parse::<TextMetric>().map_err(unknown)
        });
        let descending = match fields.take("order")?.as_deref() {
            None | Some("asc") => false,
            Some("desc") => true,
            Some(_) => return Err(ApiError::invalid("order", "`order` must be `asc` or `desc`")),
        };
        let query = Self {
            run: fields.take_parsed("run")?,
            side: fields.take_parsed("side")?.unwrap_or(Side::Tuned),
            category: fields.take("category")?,
            sort: sort.transpose()?,
            descending,
            above: fields.take_parsed("above")?,
            below: fields.take_parsed("below")?,
            after: fields.take_parsed("after")?,
            limit: fields.take_number("limit", 20, 1..=256)?,
            format: fields.take_parsed("format")?,
        };
        if query.sort.is_none() && (query.above.is_some() || query.below.is_some()) {
            return Err(ApiError::invalid("sort", "`above` and `below` are bounds of the metric that `sort` names"));
        }
        if query.format.is_some() && query.after.is_some() {
            return Err(ApiError::invalid("after", "a download with `format` has no pages; leave `after` out"));
        }
        Ok(query)
    }
}

impl RowsQuery {
    /// The rows that are asked for, in their order.
    fn select(&self, mut pairs: Vec<AnswerPair>) -> Vec<AnswerPair> {
        let within = |pair: &AnswerPair| {
            let Some(metric) = self.sort else { return true };
            let figure = self.side.figure(pair, metric);
            let above = self.above.is_none_or(|bound| figure.is_some_and(|figure| figure > bound));
            above && self.below.is_none_or(|bound| figure.is_some_and(|figure| figure < bound))
        };
        pairs.retain(|pair| self.category.as_ref().is_none_or(|category| self.side.has(pair, category)));
        pairs.retain(within);
        // Sorting is stable, so rows of one figure stay in the order of their lines.
        match self.sort {
            None if self.descending => pairs.reverse(),
            None => {}
            Some(metric) => pairs.sort_by(|a, b| match (self.side.figure(a, metric), self.side.figure(b, metric)) {
                (Some(a), Some(b)) if self.descending => b.total_cmp(&a),
                (Some(a), Some(b)) => a.total_cmp(&b),
                (a, b) => b.is_some().cmp(&a.is_some()),
            }),
        }
        pairs
    }

    fn page(&self, rows: Vec<Row>) -> Result<ListPage<EvaluationRow>, ApiError> {
        let row = |row| EvaluationRow { object: "fine_tuning.job.evaluation.row", row };
        let mut rows: Vec<EvaluationRow> = rows.into_iter().map(row).collect();
        if let Some(after) = self.after {
            let place = rows.iter().position(|row| row.id() == after.to_string());
            let place = place.ok_or_else(|| ApiError::invalid("after", format!("none of these rows is `{after}`")))?;
            rows.drain(..=place);
        }
        let has_more = rows.len() > self.limit as usize;
        rows.truncate(self.limit as usize);
        Ok(ListPage::new(rows, has_more))
    }

    /// Whether it asks for what only a judged row has.
    fn needs_a_report(&self) -> bool {
        self.category.is_some() || self.sort.is_some() || self.format.is_some()
    }
}

/// List the held-out rows that both models answered: prompt, reference, answers, every metric, kinds of error. While the
/// models still answer, rows have what is known of them so far.
#[utoipa::path(
    get, path = "/v1/fine_tuning/jobs/{fine_tuning_job_id}/evaluation/rows", tag = "fine-tuning",
    params(("fine_tuning_job_id" = String, Path), RowsQuery),
    responses(
        (status = 200, body = ListPage<EvaluationRow>),
        (status = 304, description = "The client has these bytes"),
        (status = 400, body = ErrorResponse),
        (status = 404, body = ErrorResponse),
    ),
)]
pub async fn list_evaluation_rows(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    Id(id): Id<JobId>,
    Query(query): Query<RowsQuery>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let job = found(app.store.get_job(caller.tenant, id).await, "fine-tuning job", id)?;
    let report = match query.run {
        Some(run) => named_run(&app, caller.tenant, (id, run)).await?.report,
        None => job.evaluation,
    };
    if report.is_none() && !query.needs_a_report() {
        let answers = found(app.store.answers_of_job(caller.tenant, id, query.run).await, "fine-tuning job", id)?;
        let mut rows: Vec<Row> = so_far(answers).into_iter().map(Row::Answered).collect();
        if query.descending {
            rows.reverse();
        }
        return Ok(Json(query.page(rows)?).into_response());
    }
    let answers = report.and_then(|report| report.answers);
    let (pairs, known) = match answers {
        Some(answers) => (answers.answers, answers.categories.into_keys().collect::<Vec<_>>()),
        None => (Vec::new(), Vec::new()),
    };
    if let Some(category) = query.category.as_ref().filter(|category| !pairs.is_empty() && !known.contains(category)) {
        let message = format!("this job has no category `{category}`; it has {}", known.join(", "));
        return Err(ApiError::invalid("category", message));
    }
    let pairs = query.select(pairs);
    match query.format {
        Some(kind) => download(kind, &pairs, id, &headers),
        None => {
            let rows = pairs.into_iter().map(|pair| Row::Judged(Box::new(pair))).collect();
            Ok(Json(query.page(rows)?).into_response())
        }
    }
}

#[cfg(test)]
#[path = "evaluation_rows_tests.rs"]
mod tests;
