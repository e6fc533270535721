//! Texts that end an answer.

use finetuned_weights::{TextTokenizer, WeightsError};

use crate::error::ModelError;

/// Most stop strings of one answer, as OpenAI has it.
const MOST: usize = 4;

/// Texts that end an answer where they first occur in it; they are no part of it.
#[derive(Debug, Clone)]
pub struct StopStrings {
    strings: Vec<String>,
    tokenizer: TextTokenizer,
}

impl StopStrings {
    /// # Errors
    /// No text, too many, or an empty one.
    pub fn new(strings: Vec<String>, tokenizer: TextTokenizer) -> Result<Self, ModelError> {
        let refuse = |reason: String| Err(ModelError::Setting { field: "stop", reason });
        if strings.is_empty() || strings.len() > MOST {
            return refuse(format!("must have 1 to {MOST} texts; it has {}", strings.len()));
        }
        if strings.iter().any(String::is_empty) {
            return refuse("has an empty text, which would end every answer at once".to_owned());
        }
        Ok(Self { strings, tokenizer })
    }

    /// The text of an answer up to the first of the strings, and whether one was there.
    ///
    /// # Errors
    /// Ids that the tokenizer refuses.
    pub fn cut(&self, ids: &[u32]) -> Result<(String, bool), WeightsError> {
        let mut text = self.tokenizer.decode(ids, true)?;
        match self.strings.iter().filter_map(|string| text.find(string)).min() {
            Some(end) => {
                text.truncate(end);
                Ok((text, true))
            }
            None => Ok((text, false)),
        }
    }
}
