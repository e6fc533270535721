//! The tokenizer of a GGUF file: byte-level BPE from its lists, with the rules that the named pre-tokenizer stands for.

use serde_json::{Map, Value, json};

use super::{
    GgufError, malformed,
    metadata::{Metadata, missing},
};
use crate::{
    config::ModelConfig,
    error::WeightsError,
    tokenizer::{SpecialTokens, TextTokenizer},
};

/// What a name in `tokenizer.ggml.pre` stands for.
struct Rules {
    name: &'static str,
    /// How text is cut before bytes are merged.
    cut: Cut,
    normalizer_nfc: bool,
    /// Whether a piece that is a token as it stands is taken without merging.
    ignore_merges: bool,
    /// Whether a text begins with the bos token where the file does not say.
    adds_bos: bool,
}

enum Cut {
    /// GPT-2's pattern, built into byte-level pre-tokenizers.
    Gpt2,
    /// GPT-2's, then every digit apart.
    Gpt2ThenDigits,
    Pattern(&'static str),
}

const LLAMA3_PATTERN: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2_PATTERN: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

const fn rules(name: &'static str, cut: Cut) -> Rules {
    Rules { name, cut, normalizer_nfc: false, ignore_merges: false, adds_bos: false }
}

const RULES: &[Rules] = &[
    rules("default", Cut::Gpt2),
    rules("gpt-2", Cut::Gpt2),
    // The reference figures for SmolLM2 were made so. Digits first, as llama.cpp cuts, would differ where white space of
    // several characters stands before a digit.
    rules("smollm", Cut::Gpt2ThenDigits),
    Rules { ignore_merges: true, adds_bos: true, ..rules("llama-bpe", Cut::Pattern(LLAMA3_PATTERN)) },
    Rules { normalizer_nfc: true, ..rules("qwen2", Cut::Pattern(QWEN2_PATTERN)) },
];

/// The name of how the tokenizer of a `tokenizer.json` cuts text, where it is byte-level BPE.
pub(super) fn name_of(json: &Value) -> Result<&'static str, WeightsError> {
    if json["model"]["type"] != "BPE" || json["model"]["byte_fallback"] == true {
        let kind = json["model"]["type"].as_str().unwrap_or("unnamed");
        return Err(WeightsError::unsupported("GGUF export of the tokenizer", kind, "byte-level BPE"));
    }
    let nfc = json["normalizer"]["type"] == "NFC";
    let found = cut_of(&json["pre_tokenizer"]);
    let same = |rules: &&Rules| {
        rules.normalizer_nfc == nfc
            && match (&rules.cut, &found) {
                (Cut::Gpt2, Some(Found::Gpt2)) | (Cut::Gpt2ThenDigits, Some(Found::Digits)) => rules.name != "default",
                (Cut::Pattern(known), Some(Found::Pattern(pattern))) => known == pattern,
                _ => false,
            }
    };
    match RULES.iter().find(same) {
        Some(rules) if nfc || json["normalizer"].is_null() => Ok(rules.name),
        _ => {
            let known: Vec<_> = RULES.iter().map(|rules| rules.name).collect();
            Err(WeightsError::unsupported("GGUF export of the tokenizer", "an unknown pre-tokenizer", known.join(", ")))
        }
    }
}

enum Found<'a> {
    Gpt2,
    /// GPT-2's, with every digit apart.
    Digits,
    Pattern(&'a str),
}

fn cut_of(pre_tokenizer: &Value) -> Option<Found<'_>> {
    let by_regex = |part: &Value| part["type"] == "ByteLevel" && part["use_regex"] != false;
    let digits = |part: &Value| part["type"] == "Digits" && part["individual_digits"] == true;
    let split = |part: &Value| part["type"] == "Split" && part["behavior"] == "Isolated" && part["invert"] != true;
    match pre_tokenizer["pretokenizers"].as_array().map(Vec::as_slice) {
        None => by_regex(pre_tokenizer).then_some(Found::Gpt2),
        Some([first, second]) if by_regex(first) && digits(second) || digits(first) && by_regex(second) => {
            Some(Found::Digits)
        }
        Some([first, second]) if split(first) && second["type"] == "ByteLevel" => {
            first["pattern"]["Regex"].as_str().map(Found::Pattern)
        }
        Some(_) => None,
    }
}

/// Token types in `tokenizer.ggml.token_type` that are recognised in text before it is cut.
const CONTROL: i128 = 3;
const USER_DEFINED: i128 = 4;

pub(super) fn build(metadata: &Metadata, bytes: &[u8], config: &ModelConfig) -> Result<TextTokenizer, GgufError> {
    let Some(kind) = metadata.text("tokenizer.ggml.model")? else {
        return Err(WeightsError::NoTokenizer { reason: "the GGUF metadata holds none".to_owned() }.into());
    };
    if kind != "gpt2" {
        return Err(WeightsError::unsupported("GGUF tokenizer", kind, "gpt2 (byte-level BPE)").into());
    }
    let pre = metadata.text("tokenizer.ggml.pre")?.unwrap_or_else(|| "default".to_owned());
    let Some(rules) = RULES.iter().find(|rules| rules.name == pre) else {
        let known: Vec<_> = RULES.iter().map(|rules| rules.name).collect();
        return Err(WeightsError::unsupported("GGUF pre-tokenizer", pre, known.join(", ")).into());
    };
    let tokens = required_texts(metadata, "tokenizer.ggml.tokens", bytes)?;
    let merges = required_texts(metadata, "tokenizer.ggml.merges", bytes)?;
    let types = metadata.wholes("tokenizer.ggml.token_type", bytes)?.unwrap_or_default();
    if !types.is_empty() && types.len() != tokens.len() {
        return malformed(format!("{} token types are given for {} tokens", types.len(), tokens.len()));
    }
    let special = special_tokens(metadata, &tokens)?;
    let adds_bos = metadata.flag("tokenizer.ggml.add_bos_token")?.unwrap_or(rules.adds_bos);
    let bos = special.bos.as_deref().filter(|_| adds_bos).zip(config.common.bos_token_id);
    let json = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added_tokens(&tokens, &types),
        "normalizer": if rules.normalizer_nfc { json!({"type": "NFC"}) } else { Value::Null },
        "pre_tokenizer": pre_tokenizer(&rules.cut),
        "post_processor": post_processor(bos),
        "decoder": byte_level(true),
        "model": model(&tokens, &merges, rules)?,
    });
    let details = Map::from_iter([
        ("tokenizer_class".to_owned(), json!("PreTrainedTokenizerFast")),
        ("model_max_length".to_owned(), json!(config.common.max_position_embeddings)),
        ("clean_up_tokenization_spaces".to_owned(), json!(false)),
    ]);
    let template = metadata.text("tokenizer.chat_template")?;
    Ok(TextTokenizer::new(json.to_string().as_bytes(), details, special, template, config.common.vocab_size)?)
}

fn required_texts<'a>(metadata: &Metadata, key: &str, bytes: &'a [u8]) -> Result<Vec<&'a str>, GgufError> {
    metadata.texts(key, bytes)?.map_or_else(|| missing(key), Ok)
}

fn special_tokens(metadata: &Metadata, tokens: &[&str]) -> Result<SpecialTokens, GgufError> {
    let text = |key: &str| -> Result<Option<String>, GgufError> {
        let Some(id) = metadata.u32(key)? else { return Ok(None) };
        match tokens.get(id as usize) {
            Some(token) => Ok(Some((*token).to_owned())),
            None => malformed(format!("`{key}` is {id}, and there are {} tokens", tokens.len())),
        }
    };
    Ok(SpecialTokens {
        bos: text("tokenizer.ggml.bos_token_id")?,
        eos: text("tokenizer.ggml.eos_token_id")?,
        unk: text("tokenizer.ggml.unknown_token_id")?,
        pad: text("tokenizer.ggml.padding_token_id")?,
    })
}

fn added_tokens(tokens: &[&str], types: &[i128]) -> Vec<Value> {
    let added = |(id, (token, kind)): (usize, (&&str, &i128))| {
        matches!(*kind, CONTROL | USER_DEFINED).then(|| {
            json!({
                "id": id, "content": token, "special": *kind == CONTROL,
                "single_word": false, "lstrip": false, "rstrip": false, "normalized": false
            })
        })
    };
    tokens.iter().zip(types).enumerate().filter_map(added).collect()
}

fn byte_level(use_regex: bool) -> Value {
    json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex})
}

fn pre_tokenizer(cut: &Cut) -> Value {
    let parts = match cut {
        Cut::Gpt2 => return byte_level(true),
        Cut::Gpt2ThenDigits => [byte_level(true), json!({"type": "Digits", "individual_digits": true})],
        Cut::Pattern(pattern) => [
            json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false}),
            byte_level(false),
        ],
    };
    json!({"type": "Sequence", "pretokenizers": parts})
}

/// What other programs do around a text; our own encoding adds nothing.
fn post_processor(bos: Option<(&str, u32)>) -> Value {
    let Some((text, id)) = bos else {
        return json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": true});
    };
    let special = json!({"SpecialToken": {"id": text, "type_id": 0}});
    let sequence = |id: &str, type_id: u32| json!({"Sequence": {"id": id, "type_id": type_id}});
    let second = json!({"SpecialToken": {"id": text, "type_id": 1}});
    json!({
        "type": "TemplateProcessing",
        "single": [special, sequence("A", 0)],
        "pair": [special, sequence("A", 0), second, sequence("B", 1)],
        "special_tokens": {text: {"id": text, "ids": [id], "tokens": [text]}}
    })
}

fn model(tokens: &[&str], merges: &[&str], rules: &Rules) -> Result<Value, GgufError> {
    let mut vocab = Map::with_capacity(tokens.len());
    for (id, token) in tokens.iter().enumerate() {
        if vocab.insert((*token).to_owned(), id.into()).is_some() {
            return malformed(format!("token {id} repeats the text of an earlier one"));
        }
    }
    let mut pairs = Vec::with_capacity(merges.len());
    for merge in merges {
        match merge.split_once(' ') {
            Some((left, right)) if !left.is_empty() && !right.is_empty() && !right.contains(' ') => {
                pairs.push(json!([left, right]));
            }
            _ => return malformed(format!("the merge `{}` is no pair", merge.chars().take(40).collect::<String>())),
        }
    }
    Ok(json!({
        "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
        "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
        "ignore_merges": rules.ignore_merges, "vocab": vocab, "merges": pairs
    }))
}
