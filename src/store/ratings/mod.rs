//! People's ratings of answers: tasks, the items that they consist of, and who holds or has rated which.

mod give;
mod results;
mod tasks;
#[cfg(test)]
mod tests;

use finetuned_protocol::{
    ids::{JobId, KeyId, RatingId, RatingItemId, RatingTaskId, TenantId},
    ratings::{AnswerSource, RatingKind, Verdict},
};
use serde_json::Value;
use time::OffsetDateTime;

/// What raters are asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RatingTask {
    pub id: RatingTaskId,
    pub tenant: TenantId,
    pub kind: RatingKind,
    pub job: JobId,
    /// The job whose answers stand beside the job's own.
    pub with: Option<JobId>,
    pub instructions: Option<String>,
    /// Whether raters see the answer in the row.
    pub show_reference: bool,
    /// Ratings that each item gets, of as many raters.
    pub ratings_per_row: u32,
    /// Rows left out because both answers are the same.
    pub equal_rows: u64,
    pub created_at: OffsetDateTime,
    pub items: u64,
    /// Items that have all their ratings.
    pub rated_items: u64,
    /// Given so far, without those skipped.
    pub ratings: u64,
    /// How many gave them.
    pub raters: u64,
}

/// A task to be made.
#[derive(Debug, Clone, PartialEq)]
pub struct NewRatingTask {
    pub kind: RatingKind,
    pub job: JobId,
    pub with: Option<JobId>,
    pub instructions: Option<String>,
    pub show_reference: bool,
    pub ratings_per_row: u32,
    pub equal_rows: u64,
    /// In the order in which they are rated.
    pub items: Vec<NewRatingItem>,
}

/// An answer with whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourcedAnswer {
    pub source: AnswerSource,
    pub answer: String,
}

/// What there is to rate in a row: one answer, or two.
#[derive(Debug, Clone, PartialEq)]
pub struct NewRatingItem {
    /// Of the held-out row in the job's file.
    pub line: u64,
    pub prompt: String,
    pub reference: String,
    /// The prompt as chat messages.
    pub input: Value,
    pub first: SourcedAnswer,
    pub second: Option<SourcedAnswer>,
}

/// An item of a task.
#[derive(Debug, Clone, PartialEq)]
pub struct RatingItem {
    pub id: RatingItemId,
    pub row: NewRatingItem,
}

/// An item that a rater holds.
#[derive(Debug, Clone, PartialEq)]
pub struct HeldItem {
    pub item: RatingItem,
    /// Whether the second answer is shown first.
    pub swapped: bool,
    /// When it may go to another rater.
    pub expires_at: OffsetDateTime,
}

/// The answer to a rater who asks what is next.
#[derive(Debug, Clone, PartialEq)]
pub struct NextItem {
    pub task: RatingTask,
    /// `None` where there is nothing left, or others hold what is.
    pub held: Option<HeldItem>,
    /// Items that wait for a rating and that this rater has not rated, also where another holds them now.
    pub remaining: u64,
    /// Ratings that this rater gave.
    pub rated: u64,
}

/// What a rater sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRating {
    pub item: RatingItemId,
    pub verdict: Verdict,
    pub comment: Option<String>,
    pub corrected_answer: Option<String>,
}

/// Which of an item's answers was preferred.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Preferred {
    First,
    Second,
    Tie,
}

/// What was said of an item, with the blindfold off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Given {
    Preferred(Preferred),
    Score(u8),
    Skipped,
}

/// A rating.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rating {
    pub id: RatingId,
    pub item: RatingItemId,
    /// `None` for the caller of a service without keys.
    pub rater: Option<KeyId>,
    /// Whether the second answer stood first.
    pub swapped: bool,
    pub given: Given,
    pub comment: Option<String>,
    pub corrected_answer: Option<String>,
    pub rated_at: OffsetDateTime,
}

/// An item with what raters said of it.
#[derive(Debug, Clone, PartialEq)]
pub struct RatedItem {
    pub item: RatingItem,
    /// In the order in which they were begun; skipped ones too.
    pub ratings: Vec<Rating>,
}
