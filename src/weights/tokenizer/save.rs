//! The tokenizer beside an adapter, as `tokenizers` and `transformers` read it.

use std::{fs, path::Path};

use serde_json::{Map, Value};

use super::{
    TextTokenizer, failed,
    folder::{DETAILS, TEMPLATE, TOKENIZER},
};
use crate::error::WeightsError;

impl TextTokenizer {
    /// Writes `tokenizer.json`, `tokenizer_config.json` and, where there is a template, `chat_template.jinja`; gives their
    /// names.
    ///
    /// # Errors
    /// A folder that cannot be written.
    pub fn save(&self, folder: &Path) -> Result<Vec<String>, WeightsError> {
        let doing = "writing the tokenizer";
        let json = self.inner.tokenizer.to_string(true).map_err(failed(doing))?;
        let details = serde_json::to_string_pretty(&self.details())
            .map_err(|error| WeightsError::Tokenizer { doing, reason: error.to_string() })?;
        let mut files = vec![(TOKENIZER, json), (DETAILS, details)];
        if let Some(source) = self.chat_template() {
            files.push((TEMPLATE, source.to_owned()));
        }
        for (name, text) in &files {
            let path = folder.join(name);
            fs::write(&path, text).map_err(WeightsError::io(doing, &path))?;
        }
        Ok(files.into_iter().map(|(name, _)| name.to_owned()).collect())
    }

    /// `tokenizer_config.json`. The template is in it as well, for programs older than `chat_template.jinja`.
    fn details(&self) -> Map<String, Value> {
        let mut details = self.inner.details.clone();
        // Local paths and code of its own have no meaning beside an adapter.
        for dropped in ["name_or_path", "auto_map"] {
            details.remove(dropped);
        }
        let special = &self.inner.special;
        let tokens = [
            ("bos_token", &special.bos),
            ("eos_token", &special.eos),
            ("unk_token", &special.unk),
            ("pad_token", &special.pad),
        ];
        for (name, text) in tokens {
            if let Some(text) = text {
                details.entry(name).or_insert_with(|| text.as_str().into());
            }
        }
        if let Some(source) = self.chat_template() {
            details.insert("chat_template".to_owned(), source.into());
        }
        details
    }
}
