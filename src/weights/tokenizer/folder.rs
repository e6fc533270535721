//! The tokenizer of a Hugging Face folder.

use std::{fs, io, path::Path};

use serde_json::{Map, Value};

use super::{SpecialTokens, TextTokenizer};
use crate::error::WeightsError;

pub(crate) const TOKENIZER: &str = "tokenizer.json";
pub(crate) const DETAILS: &str = "tokenizer_config.json";
pub(crate) const SPECIAL_TOKENS: &str = "special_tokens_map.json";
pub(crate) const TEMPLATE: &str = "chat_template.jinja";
/// All files that a tokenizer may consist of.
pub(crate) const FILES: [&str; 4] = [TOKENIZER, DETAILS, SPECIAL_TOKENS, TEMPLATE];

/// Whether the folder's tokenizer has a chat template; unreadable files count as none here and are reported when read.
pub(crate) fn has_chat_template(folder: &Path) -> bool {
    let in_details = || read_map(folder, DETAILS).is_ok_and(|details| details.contains_key("chat_template"));
    folder.join(TOKENIZER).is_file() && (folder.join(TEMPLATE).is_file() || in_details())
}

/// The tokenizer of a folder, such as an adapter's; its ids must lie below `vocab_size`.
///
/// # Errors
/// A folder without one, or one that cannot be read.
pub fn read(folder: &Path, vocab_size: u32) -> Result<TextTokenizer, WeightsError> {
    let Some(json) = read_if_there(folder, TOKENIZER)? else {
        let reason = format!("`{}` has no {TOKENIZER}", folder.display());
        return Err(WeightsError::NoTokenizer { reason });
    };
    let details = read_map(folder, DETAILS)?;
    let map = read_map(folder, SPECIAL_TOKENS)?;
    let token = |name: &str| token_text(details.get(name)).or_else(|| token_text(map.get(name)));
    let special = SpecialTokens {
        bos: token("bos_token"),
        eos: token("eos_token"),
        unk: token("unk_token"),
        pad: token("pad_token"),
    };
    // transformers, too, lets the file of its own win.
    let template = match read_if_there(folder, TEMPLATE)? {
        Some(bytes) => {
            Some(String::from_utf8(bytes).map_err(|_| WeightsError::malformed(&folder.join(TEMPLATE), "not UTF-8"))?)
        }
        None => template_in(&details, folder)?,
    };
    TextTokenizer::new(&json, details, special, template, vocab_size)
}

/// The `chat_template` field: one text, or a list of named ones of which `default` is meant for plain chats.
fn template_in(details: &Map<String, Value>, folder: &Path) -> Result<Option<String>, WeightsError> {
    let named = |items: &[Value]| {
        let by_name = |item: &&Value| item["name"] == "default";
        let chosen = items.iter().find(by_name).or_else(|| items.first().filter(|_| items.len() == 1));
        chosen.and_then(|item| item["template"].as_str()).map(str::to_owned)
    };
    match details.get("chat_template") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(source)) => Ok(Some(source.clone())),
        Some(Value::Array(items)) if named(items).is_some() => Ok(named(items)),
        Some(_) => {
            let reason = "`chat_template` is neither a text nor a list with a template named `default`";
            Err(WeightsError::malformed(&folder.join(DETAILS), reason))
        }
    }
}

/// A token as a text, or as an object with `content`.
fn token_text(value: Option<&Value>) -> Option<String> {
    let value = value?;
    value.as_str().or_else(|| value.get("content")?.as_str()).map(str::to_owned)
}

fn read_if_there(folder: &Path, name: &str) -> Result<Option<Vec<u8>>, WeightsError> {
    let path = folder.join(name);
    match fs::read(&path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(WeightsError::io("reading the tokenizer", &path)(error)),
    }
}

fn read_map(folder: &Path, name: &str) -> Result<Map<String, Value>, WeightsError> {
    match read_if_there(folder, name)? {
        Some(bytes) => serde_json::from_slice(&bytes)
            .map_err(|error| WeightsError::malformed(&folder.join(name), format!("not a JSON object: {error}"))),
        None => Ok(Map::new()),
    }
}
