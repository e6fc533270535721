//! Text encoders of the BERT family (Devlin et al. 2019), in the folder layout of sentence-transformers: `config.json`,
//! `model.safetensors`, `tokenizer.json`, `modules.json` and the pooling's own config.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};

use serde_json::{Map, Value};
use tokenizers::{Tokenizer, TruncationParams};

use crate::{
    config::{Activation, Fields, activation_of},
    error::WeightsError,
    folder::{CONFIG, SINGLE},
};

const TOKENIZER: &str = "tokenizer.json";
const MODULES: &str = "modules.json";
/// Longest text of the model as sentence-transformers uses it.
const LENGTHS: &str = "sentence_bert_config.json";

/// What the mathematics of an encoder depends on.
#[derive(Debug, Clone, PartialEq)]
pub struct EncoderConfig {
    pub vocab_size: u32,
    pub hidden_size: u32,
    pub num_hidden_layers: u32,
    pub num_attention_heads: u32,
    pub intermediate_size: u32,
    pub max_position_embeddings: u32,
    pub layer_norm_eps: f64,
    pub activation: Activation,
}

/// Token ids of a text as the encoder takes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedText {
    /// With the tokens that the tokenizer puts around a text.
    pub ids: Vec<u32>,
    /// Whether each of them is the text's own.
    pub is_content: Vec<bool>,
    /// Whether the text was longer than the encoder takes, and its end is left out.
    pub truncated: bool,
}

/// An opened encoder whose texts are pooled by their mean and scaled to length one.
pub struct EncoderFolder {
    path: PathBuf,
    config: EncoderConfig,
    tokenizer: Tokenizer,
}

impl fmt::Debug for EncoderFolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EncoderFolder").field("path", &self.path).field("config", &self.config).finish_non_exhaustive()
    }
}

impl EncoderFolder {
    /// Opens a folder.
    ///
    /// # Errors
    /// A file that is not there or cannot be read, or a model that computes otherwise than is implemented, by field.
    pub fn open(path: &Path) -> Result<Self, WeightsError> {
        let config = EncoderConfig::read(&object(path, CONFIG)?)?;
        check_modules(path)?;
        let longest = longest(path, &config)?;
        let tokenizer = tokenizer(path, &config, longest)?;
        Ok(Self { path: path.to_owned(), config, tokenizer })
    }

    pub fn config(&self) -> &EncoderConfig {
        &self.config
    }

    /// The file of its weights.
    pub fn tensors(&self) -> PathBuf {
        self.path.join(SINGLE)
    }

    /// Token ids of a text, cut to what the encoder takes.
    ///
    /// # Errors
    /// A text that the tokenizer refuses.
    pub fn encode(&self, text: &str) -> Result<EncodedText, WeightsError> {
        let encoding = self.tokenizer.encode_fast(text, true).map_err(|error| WeightsError::Tokenizer {
            doing: "encoding a text for the encoder",
            reason: error.to_string(),
        })?;
        Ok(EncodedText {
            ids: encoding.get_ids().to_vec(),
            is_content: encoding.get_special_tokens_mask().iter().map(|&special| special == 0).collect(),
            truncated: !encoding.get_overflowing().is_empty(),
        })
    }
}

impl EncoderConfig {
    fn read(map: &Map<String, Value>) -> Result<Self, WeightsError> {
        let fields = Fields::new("", map);
        one_of(&fields, "model_type", "bert", None)?;
        one_of(&fields, "position_embedding_type", "absolute", Some("absolute"))?;
        let config = Self {
            vocab_size: fields.u32("vocab_size")?,
            hidden_size: fields.u32("hidden_size")?,
            num_hidden_layers: fields.u32("num_hidden_layers")?,
            num_attention_heads: fields.u32("num_attention_heads")?,
            intermediate_size: fields.u32("intermediate_size")?,
            max_position_embeddings: fields.u32("max_position_embeddings")?,
            layer_norm_eps: fields.f64("layer_norm_eps")?,
            activation: activation_of(&fields, &["hidden_act"], Activation::Gelu)?,
        };
        // They say nothing of a model that is not trained; the first type is every text's.
        for known in ["architectures", "attention_probs_dropout_prob", "hidden_dropout_prob", "type_vocab_size"] {
            fields.get(known);
        }
        for dtype in ["torch_dtype", "dtype"] {
            fields.get(dtype);
        }
        fields.refuse_unread("text encoders")?;
        let heads = config.num_attention_heads;
        if heads == 0 || !config.hidden_size.is_multiple_of(heads) {
            return Err(WeightsError::config("num_attention_heads", "does not divide `hidden_size`"));
        }
        Ok(config)
    }
}

fn one_of(fields: &Fields<'_>, name: &str, wanted: &str, default: Option<&str>) -> Result<(), WeightsError> {
    let given = fields.maybe_text(name)?;
    match given.as_deref().or(default) {
        Some(value) if value == wanted => Ok(()),
        value => Err(WeightsError::unsupported(format!("{name} of a text encoder"), value.unwrap_or("none"), wanted)),
    }
}

/// The only chain of modules that is implemented: the transformer, the mean over its tokens, length one.
fn check_modules(path: &Path) -> Result<(), WeightsError> {
    let modules: Vec<Map<String, Value>> = json(path, MODULES)?;
    let text = |module: &Map<String, Value>, field: &str| module.get(field)?.as_str().map(str::to_owned);
    let kinds: Vec<String> = modules.iter().filter_map(|module| text(module, "type")).collect();
    let last = |kind: &String| kind.rsplit('.').next().unwrap_or_default().to_owned();
    if kinds.iter().map(last).collect::<Vec<_>>() != ["Transformer", "Pooling", "Normalize"] {
        let wanted = "Transformer, Pooling, Normalize";
        return Err(WeightsError::unsupported("chain of modules", kinds.join(", "), wanted));
    }
    let folder = modules.get(1).and_then(|module| text(module, "path")).unwrap_or_default();
    // The path comes from a file, and must not lead out of the folder.
    if folder.is_empty() || folder.contains(['/', '\\']) || folder == ".." {
        return Err(WeightsError::malformed(&path.join(MODULES), "the pooling's `path` is no folder beside it"));
    }
    let pooling = object(&path.join(folder), CONFIG)?;
    let on = |name: &&String| name.starts_with("pooling_mode_") && pooling.get(*name) == Some(&Value::Bool(true));
    let modes: Vec<&str> = pooling.keys().filter(on).map(String::as_str).collect();
    match modes[..] {
        ["pooling_mode_mean_tokens"] => Ok(()),
        _ => Err(WeightsError::unsupported("pooling", modes.join(", "), "pooling_mode_mean_tokens")),
    }
}

/// Tokens of the longest text.
fn longest(path: &Path, config: &EncoderConfig) -> Result<usize, WeightsError> {
    let limit = config.max_position_embeddings as usize;
    let lengths = object(path, LENGTHS)?;
    let own = Fields::new("", &lengths).maybe_u32("max_seq_length")?.map_or(limit, |length| length as usize);
    // Two tokens stand around a text.
    if own < 3 { Err(WeightsError::config("max_seq_length", "leaves no room for a text")) } else { Ok(own.min(limit)) }
}

fn tokenizer(path: &Path, config: &EncoderConfig, longest: usize) -> Result<Tokenizer, WeightsError> {
    let failed = |reason: String| WeightsError::Tokenizer { doing: "reading the encoder's tokenizer", reason };
    let mut tokenizer = Tokenizer::from_bytes(bytes(path, TOKENIZER)?).map_err(|error| failed(error.to_string()))?;
    tokenizer.with_padding(None);
    let cut = TruncationParams { max_length: longest, ..TruncationParams::default() };
    tokenizer.with_truncation(Some(cut)).map_err(|error| failed(error.to_string()))?;
    match tokenizer.get_vocab(true).into_values().max() {
        Some(id) if id >= config.vocab_size => {
            Err(failed(format!("it has the id {id}, and the model embeds ids below {}", config.vocab_size)))
        }
        _ => Ok(tokenizer),
    }
}

fn object(folder: &Path, name: &str) -> Result<Map<String, Value>, WeightsError> {
    json(folder, name)
}

fn json<T: serde::de::DeserializeOwned>(folder: &Path, name: &str) -> Result<T, WeightsError> {
    let malformed = |error: serde_json::Error| WeightsError::malformed(&folder.join(name), error.to_string());
    serde_json::from_slice(&bytes(folder, name)?).map_err(malformed)
}

fn bytes(folder: &Path, name: &str) -> Result<Vec<u8>, WeightsError> {
    let path = folder.join(name);
    fs::read(&path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            WeightsError::MissingFiles { folder: folder.to_owned(), files: vec![name.to_owned()] }
        }
        _ => WeightsError::io("reading the text encoder", &path)(error),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;

    fn config(change: impl FnOnce(&mut Map<String, Value>)) -> Result<EncoderConfig, WeightsError> {
        let Value::Object(mut map) = json!({
            "model_type": "bert", "vocab_size": 50, "hidden_size": 8, "num_hidden_layers": 2,
            "num_attention_heads": 2, "intermediate_size": 16, "max_position_embeddings": 32,
            "layer_norm_eps": 1e-12, "hidden_act": "gelu", "hidden_dropout_prob": 0.1, "pad_token_id": 0,
        }) else {
            unreachable!()
        };
        change(&mut map);
        EncoderConfig::read(&map)
    }

    #[test]
    fn what_is_not_implemented_is_refused_by_name() {
        assert_eq!(config(|_| {}).unwrap().activation, Activation::Gelu);
        let refusal =
            |name: &str, value: Value| config(|map| drop(map.insert(name.to_owned(), value))).unwrap_err().to_string();
        assert!(refusal("model_type", json!("roberta")).contains("`roberta`"));
        assert!(refusal("position_embedding_type", json!("relative_key")).contains("`relative_key`"));
        assert!(refusal("num_attention_heads", json!(3)).contains("`num_attention_heads`"));
        assert!(refusal("sparse_attention", json!(true)).contains("`sparse_attention`"));
    }

    #[test]
    fn other_chains_of_modules_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, value: Value| {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, value.to_string()).unwrap();
        };
        let chain = |types: &[&str]| -> Value {
            types.iter().map(|kind| json!({"type": format!("x.{kind}"), "path": "1_Pooling"})).collect()
        };
        assert!(check_modules(folder.path()).unwrap_err().to_string().contains("modules.json"));
        write(MODULES, chain(&["Transformer", "Pooling", "Dense", "Normalize"]));
        assert!(check_modules(folder.path()).unwrap_err().to_string().contains("x.Dense"));
        write(MODULES, chain(&["Transformer", "Pooling", "Normalize"]));
        write("1_Pooling/config.json", json!({"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false}));
        assert!(check_modules(folder.path()).unwrap_err().to_string().contains("pooling_mode_cls_token"));
        write("1_Pooling/config.json", json!({"pooling_mode_cls_token": false, "pooling_mode_mean_tokens": true}));
        assert!(check_modules(folder.path()).is_ok());
        write(
            MODULES,
            json!([{"type": "x.Transformer"}, {"type": "x.Pooling", "path": "../.."}, {"type": "x.Normalize"}]),
        );
        assert!(check_modules(folder.path()).is_err());
    }
}
