//! `finetuned-engine generate`: one answer, by hand.

use std::{
    io::{self, Write},
    ops::ControlFlow,
};

use clap::Args;
use finetuned_model::{GenerateOptions, Sampling, generate as answer};
use finetuned_weights::ChatMessage;

use crate::loaded::{Loaded, ModelArgs};

#[derive(Debug, Args)]
pub struct GenerateArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// Text to go on from, as it is.
    #[arg(long, required_unless_present = "chat", conflicts_with = "chat")]
    prompt: Option<String>,
    /// Message of a user, put into the model's chat template.
    #[arg(long)]
    chat: Option<String>,
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
    /// The same seed draws the same answer.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

/// Prints the answer.
///
/// # Errors
/// A model or adapter that cannot be loaded, or settings that cannot be met.
pub fn generate(args: &GenerateArgs) -> anyhow::Result<()> {
    let loaded = Loaded::open(&args.model)?;
    let tokenizer = loaded.source.tokenizer()?;
    let prompt = match (&args.chat, &args.prompt) {
        (Some(chat), _) => {
            let message = ChatMessage { role: "user".to_owned(), content: chat.clone() };
            tokenizer.render_chat(&[message], true)?
        }
        (None, prompt) => prompt.clone().unwrap_or_default(),
    };
    let options = GenerateOptions {
        max_new_tokens: args.max_new_tokens,
        eos_ids: loaded.source.generation_eos_ids(),
        sampling: sampling(args),
    };
    let prompts = [tokenizer.encode(&prompt)?];
    let answers =
        answer(&loaded.model, loaded.adapter.as_ref(), &prompts, &options, &mut |_| ControlFlow::Continue(()))?;
    for answer in answers {
        writeln!(io::stdout(), "{}", tokenizer.decode(&answer.ids, true)?)?;
    }
    Ok(())
}

fn sampling(args: &GenerateArgs) -> Sampling {
    let GenerateArgs { temperature, top_p, top_k, seed, .. } = *args;
    if temperature == 0.0 { Sampling::Greedy } else { Sampling::Sample { temperature, top_p, top_k, seed } }
}
