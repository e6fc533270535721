//! A tokenizer as llama.cpp keeps it: the lists of byte-level BPE, and a name for how text is cut.

use serde_json::Value;

use super::{GgufModel, file::Header};
use crate::{error::WeightsError, gguf::tokenizer as reading};

/// `tokenizer.ggml.token_type`.
const NORMAL: i32 = 1;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;

/// # Errors
/// A tokenizer that is no byte-level BPE, or that cuts text in a way llama.cpp has no known name for.
pub(super) fn describe(header: &mut Header, model: &GgufModel) -> Result<(), WeightsError> {
    let Some(tokenizer) = model.tokenizer else {
        header.text("tokenizer.ggml.model", "no_vocab");
        return Ok(());
    };
    let json = tokenizer.json()?;
    let pre = reading::name_of(&json)?;
    header.text("tokenizer.ggml.model", "gpt2");
    header.text("tokenizer.ggml.pre", pre);
    let (tokens, types) = vocabulary(&json, model.config.common.vocab_size as usize)?;
    header.texts("tokenizer.ggml.tokens", tokens.iter().map(String::as_str));
    header.i32s("tokenizer.ggml.token_type", &types);
    let merges = merges(&json)?;
    header.texts("tokenizer.ggml.merges", merges.iter().map(String::as_str));
    let id = |text: Option<&str>| text.and_then(|text| tokenizer.token_id(text));
    let eos = id(tokenizer.eos()).or(model.eos_ids.first().copied());
    let ids = [
        ("bos", id(tokenizer.bos())),
        ("eos", eos),
        // The end of a turn, where that is another token.
        ("eot", model.eos_ids.iter().copied().find(|id| Some(*id) != eos)),
        ("padding", model.config.common.pad_token_id),
    ];
    for (name, id) in ids {
        if let Some(id) = id {
            header.u32(&format!("tokenizer.ggml.{name}_token_id"), id);
        }
    }
    header.flag("tokenizer.ggml.add_bos_token", tokenizer.adds_bos(&json));
    if let Some(template) = tokenizer.chat_template() {
        header.text("tokenizer.chat_template", template);
    }
    Ok(())
}

fn malformed(what: &str) -> WeightsError {
    WeightsError::Tokenizer { doing: "exporting the tokenizer", reason: what.to_owned() }
}

/// Every id's text and type, up to the rows of the embedding.
fn vocabulary(json: &Value, rows: usize) -> Result<(Vec<String>, Vec<i32>), WeightsError> {
    let mut tokens: Vec<String> = (0..rows).map(|id| format!("[PAD{id}]")).collect();
    let mut types = vec![UNUSED; rows];
    let mut put = |id: Option<u64>, text: Option<&str>, kind: i32| -> Result<(), WeightsError> {
        let place = id.and_then(|id| usize::try_from(id).ok()).filter(|id| *id < rows);
        let (Some(place), Some(text)) = (place, text) else {
            return Err(malformed("a token has no id or one beyond the model's embeddings"));
        };
        (tokens[place], types[place]) = (text.to_owned(), kind);
        Ok(())
    };
    let vocabulary = json["model"]["vocab"].as_object().ok_or_else(|| malformed("it has no vocabulary"))?;
    for (text, id) in vocabulary {
        put(id.as_u64(), Some(text), NORMAL)?;
    }
    for added in json["added_tokens"].as_array().into_iter().flatten() {
        let kind = if added["special"] == true { CONTROL } else { USER_DEFINED };
        put(added["id"].as_u64(), added["content"].as_str(), kind)?;
    }
    Ok((tokens, types))
}

/// Merges as texts; newer files hold them as pairs.
fn merges(json: &Value) -> Result<Vec<String>, WeightsError> {
    let merges = json["model"]["merges"].as_array().ok_or_else(|| malformed("it has no merges"))?;
    let one = |merge: &Value| match merge {
        Value::String(text) => Some(text.clone()),
        Value::Array(pair) => match pair.as_slice() {
            [left, right] => Some(format!("{} {}", left.as_str()?, right.as_str()?)),
            _ => None,
        },
        _ => None,
    };
    merges.iter().map(|merge| one(merge).ok_or_else(|| malformed("a merge is no pair"))).collect()
}
