//! Requests from their lines to token ids and options.

use std::path::Path;

use anyhow::Context;
use finetuned_model::{GenerateOptions, Sampling, StopStrings};
use finetuned_protocol::generation::GenerationRequest;
use finetuned_weights::{ChatMessage, TextTokenizer};

use super::{GenerateArgs, SettingArgs};
use crate::loaded::Loaded;

/// A request that can be answered.
pub struct Asked {
    pub id: Option<String>,
    pub ids: Vec<u32>,
    pub options: GenerateOptions,
}

/// Reads a file of JSON lines; empty lines are left out.
///
/// # Errors
/// A file that cannot be read or holds no request, and every line that is none.
pub fn read(path: &Path) -> anyhow::Result<Vec<GenerationRequest>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("while reading {}", path.display()))?;
    let lines = text.lines().zip(1..).filter(|(line, _)| !line.trim().is_empty());
    let read =
        lines.map(|(line, number)| serde_json::from_str(line).map_err(|error| format!("line {number}: {error}")));
    let requests = all(read).with_context(|| format!("while reading {}", path.display()))?;
    anyhow::ensure!(!requests.is_empty(), "{} has no request", path.display());
    Ok(requests)
}

/// # Errors
/// What is wrong with each request that cannot be answered.
pub fn prepare(
    requests: Vec<GenerationRequest>,
    args: &GenerateArgs,
    loaded: &Loaded,
    tokenizer: &TextTokenizer,
) -> anyhow::Result<Vec<Asked>> {
    let eos_ids = if args.ignore_eos { Vec::new() } else { loaded.source.generation_eos_ids() };
    let facts = loaded.model.facts();
    let several = requests.len() > 1;
    all(requests.into_iter().zip(1..).map(|(request, number)| {
        let asked = (|| {
            let ids = ids_of(&request, tokenizer)?;
            let options = options_of(&request, &args.settings, &eos_ids, tokenizer)?;
            fits(&ids, &options, (facts.context_length, facts.vocab_size))?;
            Ok(Asked { id: request.id, ids, options })
        })();
        asked.map_err(
            |error: anyhow::Error| if several { format!("request {number}: {error}") } else { error.to_string() },
        )
    }))
}

/// Everything, or every reason why not.
fn all<T>(results: impl Iterator<Item = Result<T, String>>) -> anyhow::Result<Vec<T>> {
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for result in results {
        match result {
            Ok(value) => good.push(value),
            Err(reason) => bad.push(reason),
        }
    }
    anyhow::ensure!(bad.is_empty(), "{}", bad.join("\n"));
    Ok(good)
}

fn ids_of(request: &GenerationRequest, tokenizer: &TextTokenizer) -> anyhow::Result<Vec<u32>> {
    let ids = match (&request.prompt, &request.messages, &request.input_ids) {
        (Some(prompt), None, None) => tokenizer.encode(prompt)?,
        (None, Some(messages), None) => {
            let turn = |message: &finetuned_protocol::generation::GenerationMessage| {
                ChatMessage::new(message.role.as_str(), message.content.as_str())
            };
            let turns: Vec<ChatMessage> = messages.iter().map(turn).collect();
            tokenizer.encode(&tokenizer.render_chat(&turns, true)?)?
        }
        (None, None, Some(ids)) => ids.clone(),
        _ => anyhow::bail!("give exactly one of `prompt`, `messages` and `input_ids`"),
    };
    anyhow::ensure!(!ids.is_empty(), "the prompt has no tokens");
    Ok(ids)
}

fn options_of(
    request: &GenerationRequest,
    own: &SettingArgs,
    eos_ids: &[u32],
    tokenizer: &TextTokenizer,
) -> anyhow::Result<GenerateOptions> {
    let stop = request.stop.as_ref().unwrap_or(&own.stop);
    let temperature = request.temperature.unwrap_or(own.temperature);
    let drawn = Sampling::Sample {
        temperature,
        top_p: request.top_p.unwrap_or(own.top_p),
        top_k: request.top_k.unwrap_or(own.top_k),
        min_p: request.min_p.unwrap_or(own.min_p),
        seed: request.seed.unwrap_or(own.seed),
    };
    if temperature == 0.0 {
        // They change nothing then, and are still refused where they are none.
        if let Sampling::Sample { top_p, top_k, min_p, seed, .. } = drawn {
            Sampling::Sample { temperature: 1.0, top_p, top_k, min_p, seed }.check()?;
        }
    }
    let options = GenerateOptions {
        max_new_tokens: request.max_new_tokens.unwrap_or(own.max_new_tokens),
        eos_ids: eos_ids.to_vec(),
        stop: if stop.is_empty() { None } else { Some(StopStrings::new(stop.clone(), tokenizer.clone())?) },
        repetition_penalty: request.repetition_penalty.unwrap_or(own.repetition_penalty),
        sampling: if temperature == 0.0 { Sampling::Greedy } else { drawn },
        log_probabilities: request.top_logprobs.or(own.top_logprobs),
    };
    options.check()?;
    Ok(options)
}

fn fits(ids: &[u32], options: &GenerateOptions, (context_length, vocabulary): (u32, u32)) -> anyhow::Result<()> {
    let (prompt, answer) = (ids.len() as u64, u64::from(options.max_new_tokens));
    anyhow::ensure!(
        prompt + answer <= u64::from(context_length),
        "the prompt's {prompt} tokens and `max_new_tokens` of {answer} are more than the {context_length} that this model \
         reads; shorten either"
    );
    if let Some(id) = ids.iter().find(|&&id| id >= vocabulary) {
        anyhow::bail!("`input_ids` has {id}, which is outside the vocabulary of {vocabulary}");
    }
    Ok(())
}
