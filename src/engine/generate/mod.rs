//! `finetuned-engine generate`: answers to one prompt by hand, or to a file of requests.

mod answers;
mod requests;

use std::{
    io::{self, Write},
    ops::ControlFlow,
    path::PathBuf,
    time::Instant,
};

use anyhow::Context;
use clap::Args;
use finetuned_model::{Prompt, generate_each};
use finetuned_protocol::generation::{GenerationMessage, GenerationRequest};
use serde::Serialize;

use self::requests::Asked;
use crate::loaded::{Loaded, ModelArgs};

#[derive(Debug, Args)]
pub struct GenerateArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// Text to go on from, as it is.
    #[arg(long, required_unless_present_any = ["chat", "requests"], conflicts_with_all = ["chat", "requests"])]
    prompt: Option<String>,
    /// Message of a user, put into the model's chat template.
    #[arg(long, conflicts_with = "requests")]
    chat: Option<String>,
    /// File of JSON lines, each with `prompt`, `messages` or `input_ids`, and with any of the settings below as a field
    /// (`max_new_tokens`, `temperature` and so on), which then goes before the option.
    #[arg(long, requires = "out")]
    requests: Option<PathBuf>,
    /// File of JSON lines to write: the answer to each request, in their order. What it took is printed.
    #[arg(long, requires = "requests")]
    out: Option<PathBuf>,
    #[command(flatten)]
    settings: SettingArgs,
    /// Go on to the longest answer whatever the model says, for measuring speed.
    #[arg(long)]
    ignore_eos: bool,
}

/// What a request does not say.
#[derive(Debug, Args)]
struct SettingArgs {
    /// Longest answer, in tokens.
    #[arg(long, default_value_t = 128)]
    max_new_tokens: u32,
    /// Zero always takes the likeliest token; higher values draw more freely.
    #[arg(long, default_value_t = 0.0)]
    temperature: f64,
    /// Only the likeliest tokens that together have this probability.
    #[arg(long, default_value_t = 1.0)]
    top_p: f64,
    /// Only so many of the likeliest tokens; zero keeps all.
    #[arg(long, default_value_t = 0)]
    top_k: u32,
    /// Only tokens that have at least this share of the likeliest one's probability.
    #[arg(long, default_value_t = 0.0)]
    min_p: f64,
    /// Makes tokens that are there already less likely (above 1) or more so (below 1).
    #[arg(long, default_value_t = 1.0)]
    repetition_penalty: f64,
    /// The same seed draws the same answer.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Text that ends the answer and is no part of it; can be given up to four times.
    #[arg(long)]
    stop: Vec<String>,
    /// Tell how likely each token was, and so many of the likeliest beside it (0 to 20). Needs --requests.
    #[arg(long, requires = "requests")]
    top_logprobs: Option<u32>,
}

/// What a file of requests took.
#[derive(Serialize)]
struct Summary {
    requests: usize,
    prompt_tokens: u64,
    new_tokens: u64,
    /// Without loading the model.
    seconds: f64,
    new_tokens_per_second: f64,
}

/// Prints the answer, or writes the answers of a file.
///
/// # Errors
/// A model or adapter that cannot be loaded, requests that cannot be read (all bad lines are told), or settings that cannot
/// be met.
pub fn generate(args: &GenerateArgs) -> anyhow::Result<()> {
    let requests = match &args.requests {
        Some(path) => requests::read(path)?,
        None => vec![by_hand(args)],
    };
    let loaded = Loaded::open(&args.model)?;
    let tokenizer = loaded.source.tokenizer()?;
    let asked = requests::prepare(requests, args, &loaded, &tokenizer)?;
    let prompts: Vec<Prompt> = asked.iter().map(|Asked { ids, options, .. }| Prompt { ids, options }).collect();
    let started = Instant::now();
    let go_on = &mut |_| ControlFlow::Continue(());
    let given = generate_each(&loaded.model, loaded.adapter.as_ref(), &prompts, go_on)?;
    let seconds = started.elapsed().as_secs_f64();
    let new_tokens = given.iter().map(|answer| answer.ids.len() as u64).sum();
    let answers = answers::written(&asked, given, &tokenizer)?;
    let Some(out) = &args.out else {
        for answer in answers {
            writeln!(io::stdout(), "{}", answer.text)?;
        }
        return Ok(());
    };
    answers::save(out, &answers).with_context(|| format!("while writing {}", out.display()))?;
    let summary = Summary {
        requests: answers.len(),
        prompt_tokens: asked.iter().map(|asked| asked.ids.len() as u64).sum(),
        new_tokens,
        seconds,
        new_tokens_per_second: new_tokens as f64 / seconds,
    };
    writeln!(io::stdout(), "{}", serde_json::to_string(&summary)?)?;
    Ok(())
}

fn by_hand(args: &GenerateArgs) -> GenerationRequest {
    let user = |content: &String| vec![GenerationMessage { role: "user".to_owned(), content: content.clone() }];
    let messages = args.chat.as_ref().map(user);
    GenerationRequest { prompt: args.prompt.clone(), messages, ..GenerationRequest::default() }
}
