//! A request's prompt as tokens, and its settings as they are carried out.

use finetuned_model::{ChoiceOptions, Sampling};
use finetuned_protocol::serving::{MOST_TOP_LOGPROBS, Refusal, RefusalKind, ServingPrompt, ServingSettings};
use finetuned_weights::{ChatMessage, WeightsError};

use super::adapters::Speech;

/// Most texts that end an answer, as OpenAI has it.
const MOST_STOPS: usize = 4;
const LONGEST_STOP_BYTES: usize = 1 << 10;

/// Token ids of a prompt; `messages` end with the opening of the answer.
///
/// # Errors
/// A template that refuses the messages, or a prompt without tokens.
pub fn ids_of(prompt: &ServingPrompt, speech: &Speech, vocabulary: u32) -> Result<Vec<u32>, Refusal> {
    let (param, ids) = match prompt {
        ServingPrompt::Messages(messages) => {
            let turn = |message: &finetuned_protocol::generation::GenerationMessage| {
                ChatMessage::new(message.role.as_str(), message.content.as_str())
            };
            let turns: Vec<ChatMessage> = messages.iter().map(turn).collect();
            let text = match &speech.template {
                Some(source) => speech.tokenizer.render_jinja(source, &turns, true),
                None => speech.tokenizer.render_chat(&turns, true),
            };
            let text = text.map_err(|error| refused("messages", error))?;
            ("messages", speech.tokenizer.encode(&text).map_err(|error| refused("messages", error))?)
        }
        ServingPrompt::Text(text) => {
            ("prompt", speech.tokenizer.encode(text).map_err(|error| refused("prompt", error))?)
        }
        ServingPrompt::Ids(ids) => ("prompt", ids.clone()),
    };
    if ids.is_empty() {
        return Err(Refusal::invalid(param, format!("`{param}` has no tokens")));
    }
    match ids.iter().find(|&&id| id >= vocabulary) {
        Some(id) => {
            Err(Refusal::invalid(param, format!("`{param}` has {id}, which is outside the vocabulary of {vocabulary}")))
        }
        None => Ok(ids),
    }
}

fn refused(param: &str, error: WeightsError) -> Refusal {
    let message = match error {
        WeightsError::Template { reason, .. } => format!("`{param}`: the model's chat template refuses them: {reason}"),
        error => format!("`{param}`: {error}"),
    };
    Refusal::invalid(param, message)
}

/// Longest answer to a prompt of so many tokens, of a model that reads `context` tokens with `virtual_tokens` before them.
///
/// # Errors
/// More is asked for than the model reads.
pub fn longest_answer(
    settings: &ServingSettings,
    prompt: usize,
    (context, virtual_tokens): (u32, u32),
) -> Result<usize, Refusal> {
    let context = context.saturating_sub(virtual_tokens) as usize;
    let left = context.saturating_sub(prompt);
    let too_long = |message: String| {
        Err(Refusal { param: Some("messages".to_owned()), ..Refusal::new(RefusalKind::ContextLength, message) })
    };
    match settings.max_tokens {
        _ if left == 0 => too_long(format!(
            "the prompt has {prompt} tokens, and this model reads {context} with the answer; shorten it"
        )),
        Some(0) => Err(Refusal::invalid("max_completion_tokens", "`max_completion_tokens` must be at least 1")),
        Some(asked) if asked as usize > left => too_long(format!(
            "the prompt's {prompt} tokens and the {asked} asked for the answer are {} together, and this model reads \
             {context}; shorten the prompt, or ask for at most {left}",
            prompt + asked as usize
        )),
        Some(asked) => Ok(asked as usize),
        None => Ok(left),
    }
}

/// # Errors
/// A setting out of range, by name.
pub fn choice_options(settings: &ServingSettings, vocabulary: u32) -> Result<ChoiceOptions, Refusal> {
    let refuse = |param: &str, rule: String| Err(Refusal::invalid(param, format!("`{param}` {rule}")));
    let ServingSettings { temperature, top_p, seed, .. } = *settings;
    if !(0.0..=2.0).contains(&temperature) {
        return refuse("temperature", format!("must be from 0 to 2; it is {temperature}"));
    }
    if !(top_p > 0.0 && top_p <= 1.0) {
        return refuse("top_p", format!("must be above 0 and at most 1; it is {top_p}"));
    }
    if settings.top_logprobs.is_some_and(|top| top > MOST_TOP_LOGPROBS) {
        return refuse("top_logprobs", format!("must be at most {MOST_TOP_LOGPROBS}"));
    }
    if settings.stop.len() > MOST_STOPS {
        return refuse("stop", format!("must have at most {MOST_STOPS} texts; it has {}", settings.stop.len()));
    }
    if settings.stop.iter().any(|stop| stop.is_empty() || stop.len() > LONGEST_STOP_BYTES) {
        return refuse("stop", format!("must have texts of 1 to {LONGEST_STOP_BYTES} bytes"));
    }
    for (id, bias) in &settings.logit_bias {
        if *id >= vocabulary || !(-100.0..=100.0).contains(bias) {
            return refuse("logit_bias", format!("must give ids below {vocabulary} a number from -100 to 100"));
        }
    }
    let sampling = match temperature {
        0.0 => Sampling::Greedy,
        _ => Sampling::Sample { temperature, top_p, top_k: 0, min_p: 0.0, seed },
    };
    Ok(ChoiceOptions {
        sampling,
        presence_penalty: settings.presence_penalty,
        frequency_penalty: settings.frequency_penalty,
        logit_bias: settings.logit_bias.clone(),
        log_probabilities: settings.top_logprobs,
    })
}
