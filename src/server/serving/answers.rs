//! Several answers to one request, from a worker's lines.

use finetuned_protocol::{
    generation::FinishReason,
    serving::{ServedToken, ServingEvent, ServingLine},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::workers::{Accepted, refused};
use crate::http::error::ApiError;

/// Tokens that a request took.
#[derive(Debug, Clone, Copy, Default, Serialize, ToSchema)]
pub struct Usage {
    pub prompt_tokens: u64,
    pub completion_tokens: u64,
    pub total_tokens: u64,
    pub prompt_tokens_details: PromptTokensDetails,
}

#[derive(Debug, Clone, Copy, Default, Serialize, ToSchema)]
pub struct PromptTokensDetails {
    /// Of the prompt's tokens, those that were read for an earlier request.
    pub cached_tokens: u64,
}

impl Usage {
    /// Takes in an event of one of the answers; the prompt counts once.
    pub fn note(&mut self, line: &ServingLine) {
        match &line.event {
            ServingEvent::Begun { prompt_tokens, cached_tokens } if line.id == 0 => {
                self.prompt_tokens = *prompt_tokens;
                self.prompt_tokens_details.cached_tokens = *cached_tokens;
            }
            ServingEvent::Ended { completion_tokens, .. } => self.completion_tokens += completion_tokens,
            _ => {}
        }
        self.total_tokens = self.prompt_tokens + self.completion_tokens;
    }
}

/// One answer that is whole.
#[derive(Debug, Default)]
pub struct Whole {
    pub text: String,
    pub tokens: Vec<ServedToken>,
    pub finish_reason: Option<FinishReason>,
}

/// Reads all answers to their ends.
///
/// # Errors
/// One of them was refused, or the worker broke off.
pub async fn collect(accepted: Accepted, choices: u32) -> Result<(Vec<Whole>, Usage), ApiError> {
    let Accepted { first, mut lines } = accepted;
    let mut answers: Vec<Whole> = (0..choices).map(|_| Whole::default()).collect();
    let mut usage = Usage::default();
    let mut next = Some(first);
    while answers.iter().any(|answer| answer.finish_reason.is_none()) {
        let line = match next.take() {
            Some(line) => line,
            None => lines.next().await.ok_or_else(|| ApiError::internal("a worker broke off while it answered"))?,
        };
        usage.note(&line);
        let Some(answer) = answers.get_mut(line.id as usize) else { continue };
        match line.event {
            ServingEvent::Begun { .. } => {}
            ServingEvent::Piece { text, tokens } => {
                answer.text.push_str(&text);
                answer.tokens.extend(tokens);
            }
            ServingEvent::Ended { finish_reason, .. } => answer.finish_reason = Some(finish_reason),
            ServingEvent::Refused(refusal) => return Err(refused(refusal)),
        }
    }
    Ok((answers, usage))
}

/// `stop` or `length`.
pub fn finish_reason(reason: Option<FinishReason>) -> Option<&'static str> {
    reason.map(|reason| match reason {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
    })
}
