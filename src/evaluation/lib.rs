//! Text in, figures out: text metrics, kinds of error, paired intervals, likelihood and the report of base against tuned.

mod agreement;
mod answers;
mod assess;
mod bleu;
mod bootstrap;
mod categories;
mod chrf;
mod compare;
mod edit;
mod error;
mod json;
pub mod judge;
mod likelihood;
mod mend;
mod nearness;
mod ngrams;
mod rouge;
mod score;
mod squad;

pub use agreement::{Level, cohen_kappa, krippendorff_alpha};
pub use answers::{AnswerRow, GivenAnswer, answers_report};
pub use assess::{Aids, RowSimilarity, assess};
pub use bleu::BleuCounts;
pub use bootstrap::{CONFIDENCE, RESAMPLES, paired_bootstrap};
pub use categories::{Categoriser, Judged, KnownWords, Spelling, add_known_words, typical_words};
pub use chrf::ChrfCounts;
pub use compare::{compare_jobs, row_id};
pub use edit::edit_similarity;
pub use error::EvaluationError;
pub use likelihood::LikelihoodSum;
pub use mend::{origins, rows_to_mend};
pub use nearness::{Features, nearest};
pub use rouge::{Prf, Rouge, rouge_l};
pub use score::{CorpusFigure, CorpusScores, RowScores, score};
pub use squad::word_f1;
