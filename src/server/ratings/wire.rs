//! Rating tasks as clients write and read them.

use finetuned_protocol::{
    ids::{JobId, KeyId, RatingId, RatingItemId, RatingTaskId},
    ratings::{AnswerSource, Choice, RatingKind, Verdict},
};
use finetuned_store::{Given, HeldItem, NextItem, Preferred, RatedItem, Rating, RatingTask};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::http::{error::ApiError, paging::Listed, path::PathId};

const MAX_TEXT_BYTES: usize = 32 << 10;

impl PathId for RatingTaskId {
    const KIND: &'static str = "rating task";
}

/// What raters are to be asked.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateRatingTask {
    /// A succeeded job with answers to held-out rows.
    pub fine_tuning_job_id: String,
    /// Another such job: its tuned model's answers stand beside those of the first, on the rows that both answered. Only
    /// of the kind `preference`.
    pub with: Option<String>,
    /// `preference` (the default): which of two answers is better, base and tuned or those of both jobs, shuffled and
    /// without names. `scale`: how good one answer is, from 1 to 5.
    pub kind: Option<RatingKind>,
    /// Of the kind `scale`: whose answers are rated, `tuned` (the default), `base`, or both, each as an item of its own.
    #[schema(min_items = 1, max_items = 2)]
    pub sources: Option<Vec<AnswerSource>>,
    /// Rows to rate, drawn by `seed`; all by default.
    #[schema(minimum = 1, maximum = 256)]
    pub rows: Option<u32>,
    /// Only rows with this kind of error in an answer that is rated.
    pub category: Option<String>,
    /// 1 (the default) to 10 raters an item.
    #[schema(minimum = 1, maximum = 10)]
    pub ratings_per_row: Option<u32>,
    /// Shown to raters.
    pub instructions: Option<String>,
    /// Whether raters see the answer in the row; true by default.
    pub show_reference: Option<bool>,
    /// Of the order of the items; 0 by default.
    pub seed: Option<u32>,
}

/// A rating task.
#[derive(Debug, Serialize, ToSchema)]
pub struct RatingTaskObject {
    #[schema(value_type = String)]
    pub id: RatingTaskId,
    /// Always `rating_task`.
    pub object: &'static str,
    /// Unix seconds.
    pub created_at: i64,
    pub kind: RatingKind,
    #[schema(value_type = String)]
    pub fine_tuning_job_id: JobId,
    #[schema(value_type = Option<String>)]
    pub with: Option<JobId>,
    pub instructions: Option<String>,
    pub show_reference: bool,
    pub ratings_per_row: u32,
    pub items: u64,
    /// Rows left out because both answers are the same.
    pub equal_rows: u64,
    /// Items that have all their ratings.
    pub rated_items: u64,
    /// Given so far, without those skipped.
    pub ratings: u64,
    pub raters: u64,
}

impl From<RatingTask> for RatingTaskObject {
    fn from(task: RatingTask) -> Self {
        Self {
            id: task.id,
            object: "rating_task",
            created_at: task.created_at.unix_timestamp(),
            kind: task.kind,
            fine_tuning_job_id: task.job,
            with: task.with,
            instructions: task.instructions,
            show_reference: task.show_reference,
            ratings_per_row: task.ratings_per_row,
            items: task.items,
            equal_rows: task.equal_rows,
            rated_items: task.rated_items,
            ratings: task.ratings,
            raters: task.raters,
        }
    }
}

impl Listed for RatingTaskObject {
    fn id(&self) -> String {
        self.id.to_string()
    }
}

/// The answer to a deletion.
#[derive(Debug, Serialize, ToSchema)]
pub struct RatingTaskDeleted {
    #[schema(value_type = String)]
    pub id: RatingTaskId,
    /// Always `rating_task.deleted`.
    pub object: &'static str,
    pub deleted: bool,
}

/// What a rater has to judge. Nothing in it tells whose an answer is.
#[derive(Debug, Serialize, ToSchema)]
pub struct RatingItemObject {
    #[schema(value_type = String)]
    pub id: RatingItemId,
    pub prompt: String,
    /// The answer in the row, where the task shows it.
    pub reference: Option<String>,
    /// Of the kind `scale`.
    pub answer: Option<String>,
    /// Of the kind `preference`; which answer is `a` is drawn for each rater.
    pub answer_a: Option<String>,
    pub answer_b: Option<String>,
    /// Unix seconds: when it may go to another rater.
    pub expires_at: i64,
}

/// What a rater is asked next.
#[derive(Debug, Serialize, ToSchema)]
pub struct NextRatingItem {
    /// Always `rating_task.next`.
    pub object: &'static str,
    pub kind: RatingKind,
    pub instructions: Option<String>,
    /// Null where there is nothing left for this rater, or where others hold what is (`remaining` is above 0 then).
    pub item: Option<RatingItemObject>,
    /// Items that wait for a rating and that this rater has not rated, with this one and those that others hold.
    pub remaining: u64,
    /// Ratings that this rater gave.
    pub rated: u64,
}

impl From<NextItem> for NextRatingItem {
    fn from(NextItem { task, held, remaining, rated }: NextItem) -> Self {
        let show_reference = task.show_reference;
        Self {
            object: "rating_task.next",
            kind: task.kind,
            instructions: task.instructions,
            item: held.map(|held| blind(held, show_reference)),
            remaining,
            rated,
        }
    }
}

fn blind(HeldItem { item, swapped, expires_at }: HeldItem, show_reference: bool) -> RatingItemObject {
    let (first, second) = (item.row.first.answer, item.row.second.map(|second| second.answer));
    let (answer, answer_a, answer_b) = match second {
        None => (Some(first), None, None),
        Some(second) if swapped => (None, Some(second), Some(first)),
        Some(second) => (None, Some(first), Some(second)),
    };
    RatingItemObject {
        id: item.id,
        prompt: item.row.prompt,
        reference: show_reference.then_some(item.row.reference),
        answer,
        answer_a,
        answer_b,
        expires_at: expires_at.unix_timestamp(),
    }
}

/// What a rater says of an item: one of `choice`, `score` and `skip`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GiveRating {
    pub item_id: String,
    /// Of the kind `preference`.
    pub choice: Option<Choice>,
    /// Of the kind `scale`.
    #[schema(minimum = 1, maximum = 5)]
    pub score: Option<u8>,
    /// True where the rater cannot tell; the item goes to another.
    pub skip: Option<bool>,
    pub comment: Option<String>,
    /// What would have been a good answer; an export makes rows of it.
    pub corrected_answer: Option<String>,
}

impl GiveRating {
    /// # Errors
    /// A 400 that names the field.
    pub fn checked(self) -> Result<finetuned_store::NewRating, ApiError> {
        let Self { item_id, choice, score, skip, comment, corrected_answer } = self;
        let item = item_id.parse().map_err(|error| ApiError::invalid("item_id", format!("`item_id`: {error}")))?;
        let verdict = match (choice, score, skip.unwrap_or(false)) {
            (Some(choice), None, false) => Verdict::Choice(choice),
            (None, Some(score @ 1..=5), false) => Verdict::Score(score),
            (None, Some(_), false) => {
                return Err(ApiError::invalid("score", "`score` must be a whole number from 1 to 5"));
            }
            (None, None, true) => Verdict::Skip,
            _ => {
                return Err(ApiError::invalid(
                    "choice",
                    "a rating has exactly one of `choice`, `score` and `skip: true`",
                ));
            }
        };
        check_text("comment", comment.as_deref())?;
        check_text("corrected_answer", corrected_answer.as_deref())?;
        if verdict == Verdict::Skip && corrected_answer.is_some() {
            return Err(ApiError::invalid("corrected_answer", "whoever skips an item corrects no answer"));
        }
        Ok(finetuned_store::NewRating { item, verdict, comment, corrected_answer })
    }
}

/// # Errors
/// A 400 for a text that is empty or too long.
pub fn check_text(param: &str, text: Option<&str>) -> Result<(), ApiError> {
    let Some(text) = text else { return Ok(()) };
    if text.trim().is_empty() || text.len() > MAX_TEXT_BYTES {
        let message =
            format!("`{param}` must be more than white space and at most {MAX_TEXT_BYTES} bytes, or left out");
        return Err(ApiError::invalid(param, message));
    }
    Ok(())
}

/// Which answer was preferred, with the blindfold off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PreferredSource {
    Base,
    Tuned,
    With,
    Tie,
}

impl From<AnswerSource> for PreferredSource {
    fn from(source: AnswerSource) -> Self {
        match source {
            AnswerSource::Base => Self::Base,
            AnswerSource::Tuned => Self::Tuned,
            AnswerSource::With => Self::With,
        }
    }
}

/// A rating with whose answers it was about.
#[derive(Debug, Serialize, ToSchema)]
pub struct RatingObject {
    #[schema(value_type = String)]
    pub id: RatingId,
    /// Always `rating`.
    pub object: &'static str,
    #[schema(value_type = String)]
    pub item_id: RatingItemId,
    /// Of the held-out row in the job's file.
    pub line: u64,
    /// The API key of the rater; null on a service without keys.
    #[schema(value_type = Option<String>)]
    pub rater: Option<KeyId>,
    /// Whose answer was rated, or stood as `a`.
    pub source: AnswerSource,
    /// Of the kind `preference`; null where the item was skipped.
    pub preferred: Option<PreferredSource>,
    /// Of the kind `scale`; null where the item was skipped.
    pub score: Option<u8>,
    pub skipped: bool,
    pub comment: Option<String>,
    pub corrected_answer: Option<String>,
    /// Unix seconds.
    pub rated_at: i64,
}

impl RatingObject {
    pub fn new(item: &RatedItem, rating: &Rating) -> Self {
        let row = &item.item.row;
        let shown_first = row.second.as_ref().filter(|_| rating.swapped).unwrap_or(&row.first);
        let (preferred, score) = match rating.given {
            Given::Preferred(preferred) => (Some(preferred_source(item, preferred)), None),
            Given::Score(score) => (None, Some(score)),
            Given::Skipped => (None, None),
        };
        Self {
            id: rating.id,
            object: "rating",
            item_id: rating.item,
            line: row.line,
            rater: rating.rater,
            source: shown_first.source,
            preferred,
            score,
            skipped: rating.given == Given::Skipped,
            comment: rating.comment.clone(),
            corrected_answer: rating.corrected_answer.clone(),
            rated_at: rating.rated_at.unix_timestamp(),
        }
    }
}

/// Whose answer was preferred.
pub fn preferred_source(item: &RatedItem, preferred: Preferred) -> PreferredSource {
    let row = &item.item.row;
    match (preferred, &row.second) {
        (Preferred::First, _) => row.first.source.into(),
        (Preferred::Second, Some(second)) => second.source.into(),
        (Preferred::Second | Preferred::Tie, _) => PreferredSource::Tie,
    }
}

impl Listed for RatingObject {
    fn id(&self) -> String {
        self.id.to_string()
    }
}

/// What a rater gets back: that it was taken, with the eyes still bound.
#[derive(Debug, Serialize, ToSchema)]
pub struct RatingGiven {
    #[schema(value_type = String)]
    pub id: RatingId,
    /// Always `rating.given`.
    pub object: &'static str,
    #[schema(value_type = String)]
    pub item_id: RatingItemId,
    /// Unix seconds.
    pub rated_at: i64,
}
