//! `POST /v1/rating_tasks/{rating_task_id}/ratings/export`: ratings become rows to train on.

use std::collections::BTreeMap;

use axum::{extract::State, response::Response};
use bytes::Bytes;
use finetuned_protocol::ids::RatingTaskId;
use finetuned_store::{File, Given, Preferred, RatedItem, fingerprint};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::{
    files::{keep_rows, wire::FileObject},
    http::{
        auth::Authenticated,
        body::JsonBody,
        error::{ApiError, Code, ErrorResponse},
        found,
        idempotency::{Repetition, answer_created},
        path::{Id, PathId},
        query::{NoParameters, Query},
    },
    state::App,
};

/// What rows are made of ratings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ExportFormat {
    /// Pairs for DPO: the answer that most raters preferred, or that has the higher mean score, before the other; a
    /// corrected answer before those shown.
    Preference,
    /// Prompts with their corrected answers.
    Supervised,
}

/// Which rows are to be made.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ExportRatings {
    pub format: ExportFormat,
}

/// The file that was made, and what is not in it.
#[derive(Debug, Serialize, ToSchema)]
pub struct RatingExport {
    /// Always `rating_task.export`.
    pub object: &'static str,
    #[schema(value_type = String)]
    pub rating_task_id: RatingTaskId,
    pub format: ExportFormat,
    /// Of the purpose `fine-tune`, linted like an upload.
    pub file: FileObject,
    pub rows: u64,
    /// Held-out rows that gave no row: nobody has rated them, raters are undecided, or nothing was corrected.
    pub rows_left_out: u64,
}

/// Make a training file of a task's ratings.
///
/// `preference` makes rows of OpenAI's preference format (`input`, `preferred_output`, `non_preferred_output`), for a job
/// with `method.type` `dpo`: one for each item that more raters decided one way than the other (ties count for neither);
/// where somebody corrected an item, its newest correction is preferred to each answer shown. `supervised` makes a chat of
/// each item's newest correction. Prompts are the messages of the held-out rows; so do not evaluate what is trained on
/// these rows on the same rows.
#[utoipa::path(
    post, path = "/v1/rating_tasks/{rating_task_id}/ratings/export", tag = "ratings",
    params(("rating_task_id" = String, Path)), request_body = ExportRatings,
    responses(
        (status = 200, body = RatingExport),
        (status = 400, body = ErrorResponse, description = "No rating makes such a row"),
        (status = 404, body = ErrorResponse),
    ),
)]
pub async fn export_ratings(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    repetition: Repetition,
    Id(id): Id<RatingTaskId>,
    Query(NoParameters): Query<NoParameters>,
    JsonBody(ExportRatings { format }): JsonBody<ExportRatings>,
) -> Result<Response, ApiError> {
    let items = found(app.store.rating_results(caller.tenant, id).await, RatingTaskId::KIND, id)?;
    let (rows, rows_left_out) = rows_of(format, &items);
    if rows.is_empty() {
        let message = match format {
            ExportFormat::Preference => "no rating of this task decides between two answers; rate more items",
            ExportFormat::Supervised => "no rating of this task has a `corrected_answer`",
        };
        return Err(ApiError::new(Code::InvalidState, message));
    }
    let text: String = rows.iter().map(|row| format!("{row}\n")).collect();
    let name = if format == ExportFormat::Preference { "preference" } else { "supervised" };
    let fingerprint = fingerprint(&[id.to_string().as_bytes(), text.as_bytes()]);
    let idempotency = repetition.of(&caller, "POST /v1/rating_tasks/{rating_task_id}/ratings/export", fingerprint);
    let file = (format!("{id}-{name}.jsonl"), Bytes::from(text));
    let kept = keep_rows(&app, &caller, file, &idempotency).await?;
    let rows = rows.len() as u64;
    let export = |file: File| {
        let object = "rating_task.export";
        RatingExport { object, rating_task_id: id, format, file: file.into(), rows, rows_left_out }
    };
    Ok(answer_created(kept, export))
}

/// The rows, in the order of the items, and how many held-out rows gave none.
fn rows_of(format: ExportFormat, items: &[RatedItem]) -> (Vec<Value>, u64) {
    let mut by_line: BTreeMap<u64, Vec<&RatedItem>> = BTreeMap::new();
    items.iter().for_each(|item| by_line.entry(item.item.row.line).or_default().push(item));
    let mut rows = Vec::new();
    let mut left_out = 0;
    for items in by_line.values() {
        let made = match format {
            ExportFormat::Preference => preference_rows(items),
            ExportFormat::Supervised => items.iter().filter_map(|item| supervised_row(item)).collect(),
        };
        left_out += u64::from(made.is_empty());
        rows.extend(made);
    }
    (rows, left_out)
}

fn preference_rows(items: &[&RatedItem]) -> Vec<Value> {
    let mut rows = Vec::new();
    for item in items {
        let (first, second) = (&item.item.row.first.answer, item.item.row.second.as_ref().map(|second| &second.answer));
        // Who corrects an item found neither answer good.
        if let Some(better) = correction(item) {
            rows.extend([Some(first), second].into_iter().flatten().filter_map(|worse| pair(item, better, worse)));
            continue;
        }
        rows.extend(match (decided(item), second) {
            (Some(Preferred::First), Some(second)) => pair(item, first, second),
            (Some(Preferred::Second), Some(second)) => pair(item, second, first),
            _ => None,
        });
    }
    // Scored answers to one prompt, of which one is better.
    for (at, one) in items.iter().enumerate() {
        for other in &items[at + 1..] {
            let (Some(mean), Some(others)) = (mean_score(one), mean_score(other)) else { continue };
            let (better, worse) = if mean > others { (one, other) } else { (other, one) };
            if mean != others {
                rows.extend(pair(one, &better.item.row.first.answer, &worse.item.row.first.answer));
            }
        }
    }
    rows
}

fn pair(item: &RatedItem, better: &str, worse: &str) -> Option<Value> {
    let answer = |text: &str| json!([{"role": "assistant", "content": text}]);
    // An empty answer can be neither learned nor told from another.
    let differ = better.trim() != worse.trim() && !better.trim().is_empty() && !worse.trim().is_empty();
    differ.then(|| {
        json!({"input": {"messages": item.item.row.input}, "preferred_output": answer(better),
               "non_preferred_output": answer(worse)})
    })
}

fn supervised_row(item: &RatedItem) -> Option<Value> {
    let mut messages = item.item.row.input.as_array().cloned().unwrap_or_default();
    messages.push(json!({"role": "assistant", "content": correction(item)?}));
    Some(json!({ "messages": messages }))
}

/// The newest correction.
fn correction(item: &RatedItem) -> Option<&String> {
    let newest =
        item.ratings.iter().filter(|rating| rating.corrected_answer.is_some()).max_by_key(|rating| rating.rated_at);
    newest?.corrected_answer.as_ref()
}

/// What more raters said than the opposite.
fn decided(item: &RatedItem) -> Option<Preferred> {
    let votes = |wanted| item.ratings.iter().filter(|rating| rating.given == Given::Preferred(wanted)).count();
    let (first, second) = (votes(Preferred::First), votes(Preferred::Second));
    match first.cmp(&second) {
        std::cmp::Ordering::Greater => Some(Preferred::First),
        std::cmp::Ordering::Less => Some(Preferred::Second),
        std::cmp::Ordering::Equal => None,
    }
}

fn mean_score(item: &RatedItem) -> Option<f64> {
    let scores: Vec<f64> = item
        .ratings
        .iter()
        .filter_map(|rating| match rating.given {
            Given::Score(score) => Some(f64::from(score)),
            _ => None,
        })
        .collect();
    (!scores.is_empty()).then(|| scores.iter().sum::<f64>() / scores.len() as f64)
}

#[cfg(test)]
#[path = "export_tests.rs"]
mod tests;
