//! Bytes to examples to text to tokens to batches: formats, lint, templates, masks and the split.
//!
//! A file goes one way through this crate: [`splitter`] cuts bytes into rows, [`reader`] reads each row into an
//! [`Example`] or into findings, [`Linter`] reports them all, and [`prepare`] renders, tokenises, masks and splits what
//! is good. The linter needs no model; preparation needs its tokenizer.

mod error;
mod example;
mod format;
mod json;
mod lint;
mod order;
mod prepare;
mod reader;
mod rules;
mod seen;
mod split;
mod splitter;

pub use error::{PrepareError, ReadError, SourceFile};
pub use example::{Example, Role, Row, Turn};
pub use lint::Linter;
pub use order::{batch_of_step, epoch_order, micro_batches};
pub use prepare::{Encoded, Formats, HeldOut, IGNORED_LABEL, Prepared, Rejected, Survey, prepare, survey};
pub use reader::{RowOutcome, read_rows};
pub use rules::{RULES, Rule, rule};
pub use split::held_out_split;
