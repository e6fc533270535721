//! Why a dataset could not be prepared, as the client reads it.

use std::io;

use finetuned_dataset::{Blame, StepError};

use crate::http::error::{ApiError, Code};

/// What files and steps are called in a request.
#[derive(Clone, Copy)]
pub struct Names {
    /// The list of files.
    pub files: &'static str,
    /// What the steps lie in, with a dot at its end.
    pub within: &'static str,
}

impl Names {
    fn source(self, index: usize) -> String {
        format!("{}[{index}].id", self.files)
    }

    fn blamed(self, blame: &Blame) -> String {
        match blame {
            Blame::Step { index, field: Some(field) } => format!("{}steps[{index}].{field}", self.within),
            Blame::Step { index, field: None } => format!("{}steps[{index}]", self.within),
            Blame::Source(index) => self.source(*index),
            Blame::Sources => self.files.to_owned(),
        }
    }

    /// `too_long`: what is said where the time was up.
    pub fn refusal(self, error: StepError, too_long: &str) -> ApiError {
        match error {
            StepError::Refused { blame, message } => {
                let param = self.blamed(&blame);
                ApiError::invalid(&param, format!("`{param}`: {message}"))
            }
            StepError::Rows { source_index, findings, total } => {
                let param = self.source(source_index);
                let details = findings.iter().filter_map(|finding| serde_json::to_value(finding).ok()).collect();
                let message = format!("`{param}`: {total} findings must be mended; the first ones are in `details`");
                ApiError::new(Code::InvalidTrainingFile, message).param(param).details(details, total)
            }
            StepError::Disk(error) if is_full(&error) => {
                let message = "the server has no space left for this; nothing was kept";
                ApiError::new(Code::InsufficientStorage, message).cause(error)
            }
            StepError::Disk(error) => ApiError::unavailable(error),
            StepError::Cancelled => ApiError::busy(too_long),
            error @ (StepError::Read(_) | StepError::Tokenizer(_)) => ApiError::internal(error),
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
