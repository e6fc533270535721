//! What both kinds of request may say, and what it means.

use std::collections::BTreeMap;

use finetuned_protocol::serving::{MOST_CHOICES, ServingSettings};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::http::error::ApiError;

/// One text or several.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum OneOrMore {
    One(String),
    More(Vec<String>),
}

impl OneOrMore {
    pub fn into_list(self) -> Vec<String> {
        match self {
            Self::One(text) => vec![text],
            Self::More(texts) => texts,
        }
    }
}

/// How a streamed answer is told.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StreamOptions {
    /// Ends the stream with a chunk that tells the tokens used.
    #[serde(default)]
    pub include_usage: bool,
    /// Padding against guesses from sizes; never sent, so only false or null is taken.
    #[serde(default)]
    pub include_obfuscation: Option<bool>,
}

/// The settings that draw tokens.
#[derive(Debug, Clone, Default)]
pub struct Drawing {
    pub max_tokens: Option<u32>,
    pub temperature: Option<f64>,
    pub top_p: Option<f64>,
    pub seed: Option<i64>,
    pub stop: Option<OneOrMore>,
    pub presence_penalty: Option<f64>,
    pub frequency_penalty: Option<f64>,
    pub logit_bias: Option<BTreeMap<String, f64>>,
    pub top_logprobs: Option<u32>,
    pub json_object: bool,
}

impl Drawing {
    /// # Errors
    /// A token in `logit_bias` that is no id.
    pub fn settings(self) -> Result<ServingSettings, ApiError> {
        let mut logit_bias = BTreeMap::new();
        for (id, bias) in self.logit_bias.unwrap_or_default() {
            let id = id.parse().map_err(|_| {
                ApiError::invalid("logit_bias", format!("`logit_bias` must have token ids as keys; `{id}` is none"))
            })?;
            logit_bias.insert(id, bias);
        }
        Ok(ServingSettings {
            max_tokens: self.max_tokens,
            temperature: self.temperature.unwrap_or(1.0),
            top_p: self.top_p.unwrap_or(1.0),
            seed: self.seed.map_or_else(|| Uuid::new_v4().as_u64_pair().0, |seed| seed as u64),
            stop: self.stop.map_or_else(Vec::new, OneOrMore::into_list),
            presence_penalty: self.presence_penalty.unwrap_or(0.0),
            frequency_penalty: self.frequency_penalty.unwrap_or(0.0),
            logit_bias,
            top_logprobs: self.top_logprobs,
            json_object: self.json_object,
        })
    }
}

/// # Errors
/// More answers than are given at once, or none.
pub fn choices(n: Option<u32>) -> Result<u32, ApiError> {
    let n = n.unwrap_or(1);
    if (1..=MOST_CHOICES).contains(&n) {
        return Ok(n);
    }
    Err(ApiError::invalid("n", format!("`n` must be from 1 to {MOST_CHOICES}; it is {n}")))
}

/// Refuses what OpenAI has and this service does not, unless it asks for what is so anyway.
///
/// # Errors
/// The first field that asks for something.
pub fn refuse(fields: &[(&str, &Option<Value>, &str)]) -> Result<(), ApiError> {
    for (name, value, remedy) in fields {
        let asks = match value {
            None | Some(Value::Null | Value::Bool(false)) => false,
            Some(Value::Array(items)) => !items.is_empty(),
            Some(Value::String(text)) => !matches!(text.as_str(), "auto" | "default" | "none"),
            Some(_) => true,
        };
        if asks {
            return Err(ApiError::invalid(*name, format!("`{name}` is not supported here; {remedy}")));
        }
    }
    Ok(())
}
