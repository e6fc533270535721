//! Bytes to examples to text to tokens to batches: formats, lint, templates, masks and the split.
//!
//! A file goes one way through this crate: [`container`] unpacks them, [`splitter`] cuts them into rows, [`reader`] reads each row into an
//! [`Example`] or into findings, [`Linter`] reports them all, and [`prepare`] renders, tokenises, masks and splits what
//! is good. The linter needs no model; preparation needs its tokenizer.

mod asked;
mod checks;
mod container;
mod error;
mod example;
mod format;
mod json;
mod lint;
mod near;
mod order;
mod prepare;
mod reader;
mod row_text;
mod rules;
mod seen;
mod spill;
mod split;
mod splitter;
mod steps;
mod tally;
mod texts;

pub use asked::{Asked, asked, messages_json, question};
pub use error::{PrepareError, ReadError, RowCounts, SourceFile};
pub use example::{Example, Role, Row, Turn};
pub use lint::{LintScope, Linter};
pub use order::{batch_of_step, epoch_order, micro_batches};
pub use prepare::{
    Encoded, Formats, HeldOut, IGNORED_LABEL, Prepared, Rejected, Survey, Watch, prepare, survey, token_statistics,
    view_row,
};
pub use reader::{RowOutcome, RowStream, read_rows};
pub use row_text::{RowChange, RowText, RowTexts, diff_rows};
pub use rules::{RULES, Rule, can_be_disabled, check_reading, rule};
pub use split::held_out_split;
pub use steps::{
    Applied, Blame, StepError, StepPlan, StepProgress, StepSource, apply_steps, check_steps, dropped_rules,
};
pub use tally::RuleTally;
