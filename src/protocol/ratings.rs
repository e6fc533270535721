//! People's judgement of answers: what is rated, and how far raters agree.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::status::named_enum;

named_enum!(
    /// What a rater is asked.
    RatingKind, "rating kind" {
        /// Which of two answers is better, without knowing whose they are.
        Preference = "preference",
        /// How good one answer is, from 1 to 5.
        Scale = "scale",
    }
);

named_enum!(
    /// Whose answer it is.
    AnswerSource, "answer source" {
        /// The job's base model.
        Base = "base",
        /// The job's tuned model.
        Tuned = "tuned",
        /// The tuned model of the job that it is compared with.
        With = "with",
    }
);

named_enum!(
    /// Which of the two answers before the rater is better.
    Choice, "choice" {
        A = "a",
        B = "b",
        /// Both are as good, or as bad.
        Tie = "tie",
    }
);

/// What a rater says of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Choice(Choice),
    /// 1 to 5.
    Score(u8),
    /// The rater cannot tell; the item is theirs no longer and asks another.
    Skip,
}

/// Cohen's kappa of two raters, and what it is made of.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PairAgreement {
    /// Items that both rated.
    pub items: u64,
    /// Share of them on which both agree (0 to 1).
    pub observed: f64,
    /// The share that chance would give (0 to 1).
    pub expected: f64,
    /// `(observed - expected) / (1 - expected)`; null where chance alone gives full agreement.
    pub kappa: Option<f64>,
}

/// Krippendorff's alpha of all raters.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Agreement {
    /// Items with two ratings or more.
    pub items: u64,
    /// Ratings of these items.
    pub values: u64,
    /// 1 for full agreement, 0 for chance; null where every rating is the same.
    pub alpha: Option<f64>,
}
