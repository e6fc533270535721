//! Why figures could not be computed.

/// Input from which no figure can be made.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum EvaluationError {
    /// There is nothing to compare.
    #[error("while comparing base and tuned: there is no row to compare")]
    NoRows,
    /// The two lists do not belong together.
    #[error(
        "while comparing base and tuned: {base} figures of the base model do not pair with {tuned} of the tuned one"
    )]
    Unpaired { base: usize, tuned: usize },
    /// A figure is infinite or not a number.
    #[error("while comparing base and tuned: the figure of row {row} is not finite")]
    NotFinite { row: usize },
    /// No interval can be drawn from nothing.
    #[error("while comparing base and tuned: `resamples` must be at least 1")]
    NoResamples,
    /// A category's pattern is no regular expression that we can use.
    #[error("the pattern of the category `{name}` does not compile: {source}")]
    Pattern { name: String, source: regex::Error },
    /// A dictionary cannot be used.
    #[error("the dictionary in {folder} cannot be used: {why}")]
    Dictionary { folder: String, why: String },
}
