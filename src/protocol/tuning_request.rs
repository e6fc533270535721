//! What of a model training changes, as a client asks for it: one of `lora`, `ia3`, `prompt_tuning`, `prefix_tuning` and
//! `full`, or an adapter to go on from.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    error::FieldError,
    request::{CreateJobRequest, range, require},
    tuning::{LoraInit, PromptInit, is_plain_key},
};

/// Modules by name, or every linear layer but the head.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum TargetModules {
    /// Only `"all-linear"`.
    Keyword(String),
    Names(Vec<String>),
}

/// Low-rank adaptation; the method where none is asked for.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LoraRequest {
    /// Rank, 1 to 512; default 16.
    pub r: Option<u32>,
    /// Default `2 * r`.
    pub alpha: Option<f64>,
    /// 0 or more, below 1; default 0.
    pub dropout: Option<f64>,
    /// Module names, or `"all-linear"` (default).
    pub target_modules: Option<TargetModules>,
    pub use_rslora: Option<bool>,
    pub use_dora: Option<bool>,
    /// Other ranks by the end of a module's path, such as `{"q_proj": 8}` or `{"layers.0.mlp.up_proj": 4}`.
    pub rank_pattern: Option<BTreeMap<String, u32>>,
    /// Other alphas, likewise.
    pub alpha_pattern: Option<BTreeMap<String, f64>>,
    /// Indices of the adapted layers, counted from 0; default all.
    pub layers_to_transform: Option<Vec<u32>>,
    /// Vocabulary matrices to train whole: the model's embedding, its head, or both, by name.
    pub modules_to_save: Option<Vec<String>>,
    /// Ids of tokens whose embeddings are trained too; at most 4096.
    pub trainable_token_indices: Option<Vec<u32>>,
    /// `default` or `pissa`; not `pissa` together with `use_dora`.
    pub init: Option<LoraInit>,
    /// Learning rate of the B matrices over that of the rest, 1 to 1000 (LoRA+); default 1.
    pub loraplus_lr_ratio: Option<f64>,
}

/// Training of the model's own weights.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FullRequest {
    /// Only so many of the last layers; default all weights.
    pub last_layers: Option<u32>,
}

/// (IA)³.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Ia3Request {
    /// Default: keys, values, and what leads out of the feed-forward part.
    pub target_modules: Option<Vec<String>>,
    /// Those of them whose inputs are scaled; default: what leads out of the feed-forward part.
    pub feedforward_modules: Option<Vec<String>>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PromptTuningRequest {
    /// 1 to 1024; default 20.
    pub num_virtual_tokens: Option<u32>,
    /// `sample_vocab` (default) or `random`.
    pub init: Option<PromptInit>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PrefixTuningRequest {
    /// 1 to 1024; default 20.
    pub num_virtual_tokens: Option<u32>,
}

/// Most tokens whose embeddings are trained by themselves; beyond that `modules_to_save` is meant.
const MAX_TRAINABLE_TOKENS: usize = 4096;
const MAX_VIRTUAL_TOKENS: u32 = 1024;
const FILES: &str = "continue_from_files";

impl CreateJobRequest {
    /// Names of the methods that the request has settings of.
    fn named_methods(&self) -> Vec<&'static str> {
        let Self { lora, full, ia3, prompt_tuning, prefix_tuning, .. } = self;
        [
            ("lora", lora.is_some()),
            ("full", full.is_some()),
            ("ia3", ia3.is_some()),
            ("prompt_tuning", prompt_tuning.is_some()),
            ("prefix_tuning", prefix_tuning.is_some()),
        ]
        .into_iter()
        .filter_map(|(name, given)| given.then_some(name))
        .collect()
    }

    pub(crate) fn check_tuning(&self) -> Result<(), FieldError> {
        if let [first, second, ..] = self.named_methods()[..] {
            return Err(FieldError::new(second, format!("`{second}` must be absent where `{first}` is given")));
        }
        let brings = [("continue_from", self.continue_from.is_some()), (FILES, self.continue_from_files.is_some())];
        let mut brings = brings.into_iter().filter(|(_, given)| *given).map(|(name, _)| name);
        let (from, other) = (brings.next(), brings.next());
        if let (Some(from), Some(other)) = (from, other) {
            return Err(FieldError::new(other, format!("`{other}` must be absent where `{from}` is given")));
        }
        if let (Some(from), [method, ..]) = (from, &self.named_methods()[..]) {
            let message = format!("`{method}` must be absent where `{from}` brings an adapter's settings");
            return Err(FieldError::new(*method, message));
        }
        self.lora.as_ref().map_or(Ok(()), LoraRequest::check)?;
        let last_layers = self.full.as_ref().and_then(|full| full.last_layers);
        require(last_layers != Some(0), "full.last_layers", "at least 1")?;
        if let Some(ia3) = &self.ia3 {
            let some = |names: &Option<Vec<String>>| names.as_ref().is_none_or(|names| !names.is_empty());
            require(some(&ia3.target_modules), "ia3.target_modules", "a list of at least one module name")?;
        }
        let prompt = self.prompt_tuning.as_ref().and_then(|prompt| prompt.num_virtual_tokens);
        range(prompt, "prompt_tuning.num_virtual_tokens", 1, MAX_VIRTUAL_TOKENS)?;
        let prefix = self.prefix_tuning.as_ref().and_then(|prefix| prefix.num_virtual_tokens);
        range(prefix, "prefix_tuning.num_virtual_tokens", 1, MAX_VIRTUAL_TOKENS)
    }
}

impl LoraRequest {
    fn check(&self) -> Result<(), FieldError> {
        range(self.r, "lora.r", 1, 512)?;
        range(self.alpha, "lora.alpha", 1e-3, 1e5)?;
        require(self.dropout.is_none_or(|p| (0.0..1.0).contains(&p)), "lora.dropout", "0 or more and below 1")?;
        let a_list = "a list of at least one module name, or \"all-linear\"";
        match &self.target_modules {
            Some(TargetModules::Keyword(word)) => require(word == "all-linear", "lora.target_modules", a_list)?,
            Some(TargetModules::Names(names)) => require(!names.is_empty(), "lora.target_modules", a_list)?,
            None => {}
        }
        let plain = "by the end of a module's path, such as `q_proj`";
        for (key, &rank) in self.rank_pattern.iter().flatten() {
            require(is_plain_key(key), "lora.rank_pattern", plain)?;
            range(Some(rank), "lora.rank_pattern", 1, 512)?;
        }
        for (key, &alpha) in self.alpha_pattern.iter().flatten() {
            require(is_plain_key(key), "lora.alpha_pattern", plain)?;
            range(Some(alpha), "lora.alpha_pattern", 1e-3, 1e5)?;
        }
        let layers = self.layers_to_transform.as_ref();
        require(layers.is_none_or(|layers| !layers.is_empty()), "lora.layers_to_transform", "a list of layers")?;
        let tokens = self.trainable_token_indices.as_ref().map_or(0, Vec::len);
        require(tokens <= MAX_TRAINABLE_TOKENS, "lora.trainable_token_indices", "a list of at most 4096 token ids")?;
        let both = self.init == Some(LoraInit::Pissa) && self.use_dora == Some(true);
        require(!both, "lora.init", "`default` where `use_dora` is true")?;
        range(self.loraplus_lr_ratio, "lora.loraplus_lr_ratio", 1.0, 1000.0)
    }
}
