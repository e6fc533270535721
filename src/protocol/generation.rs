//! What `finetuned-engine generate` reads and writes: one request a line, one answer a line.

use serde::{Deserialize, Serialize};

/// One request. Exactly one of `prompt`, `messages` and `input_ids` is given; any other field that is left out has the
/// value of the program's own option.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GenerationRequest {
    /// Given back with the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Text to go on from, as it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// Turns of a chat, put into the model's own template.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub messages: Option<Vec<GenerationMessage>>,
    /// Token ids to go on from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_ids: Option<Vec<u32>>,
    /// Longest answer, in tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_new_tokens: Option<u32>,
    /// Zero always takes the likeliest token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_k: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_p: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repetition_penalty: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Texts that end the answer and are no part of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop: Option<Vec<String>>,
    /// Tells how likely each token was, and so many of the likeliest beside it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_logprobs: Option<u32>,
}

/// One turn of a chat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GenerationMessage {
    pub role: String,
    pub content: String,
}

/// The answer to the request of the same line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GenerationAnswer {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    pub text: String,
    /// Its tokens, without the one that ended it. Where a stop string ended it, they go on to that string's end.
    pub output_ids: Vec<u32>,
    pub finish_reason: FinishReason,
    pub prompt_tokens: u64,
    /// For each of `output_ids`, where it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logprobs: Option<Vec<TokenLogprob>>,
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// An end token or a stop string.
    Stop,
    /// The longest answer that was asked for.
    Length,
}

/// A token with its log-probability by the model itself, before temperature and the like.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TokenLogprob {
    pub token: String,
    pub token_id: u32,
    pub logprob: f64,
    /// The likeliest tokens at its place, likeliest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub top_logprobs: Vec<TokenLogprob>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_short_and_an_unknown_field_is_refused() {
        let request = GenerationRequest { prompt: Some("a".into()), top_k: Some(3), ..GenerationRequest::default() };
        let text = serde_json::to_string(&request).unwrap_or_default();
        assert_eq!(text, r#"{"prompt":"a","top_k":3}"#);
        assert_eq!(serde_json::from_str::<GenerationRequest>(&text).ok(), Some(request));
        let refused =
            serde_json::from_str::<GenerationRequest>(r#"{"prompt":"a","topk":3}"#).map_err(|e| e.to_string());
        assert!(refused.is_err_and(|error| error.contains("`topk`")));
    }
}
