//! Text in, figures out: ROUGE, paired intervals, likelihood and the report of base against tuned.

mod answers;
mod bootstrap;
mod error;
mod likelihood;
mod rouge;

pub use answers::{AnswerRow, GivenAnswer, answers_report};
pub use bootstrap::{CONFIDENCE, RESAMPLES, paired_bootstrap};
pub use error::EvaluationError;
pub use likelihood::LikelihoodSum;
pub use rouge::{Prf, Rouge, rouge_l};
