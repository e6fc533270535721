//! `finetuned chat`: a talk with a model of a running service, word by word.

use std::io::{self, BufRead, IsTerminal, Write};

use anyhow::Context;
use clap::Args;
use serde_json::{Value, json};

use crate::{args::ClientArgs, client::Client};

#[derive(Debug, Args)]
pub struct ChatArgs {
    /// Name of a base model, a tuned one or a checkpoint.
    model: String,
    /// Ask this once, instead of reading questions from standard input.
    #[arg(long, env = "FINETUNED_CHAT_MESSAGE", value_name = "TEXT")]
    message: Option<String>,
    /// What the model is told before the talk.
    #[arg(long, env = "FINETUNED_CHAT_SYSTEM", value_name = "TEXT")]
    system: Option<String>,
    /// Longest answer, in tokens.
    #[arg(long, env = "FINETUNED_CHAT_MAX_TOKENS", value_name = "N", default_value_t = 512)]
    max_tokens: u32,
    /// Zero always takes the likeliest token; higher values draw more freely.
    #[arg(long, env = "FINETUNED_CHAT_TEMPERATURE", value_name = "NUMBER", default_value_t = 0.7)]
    temperature: f64,
    #[command(flatten)]
    client: ClientArgs,
}

pub async fn run(args: ChatArgs) -> anyhow::Result<()> {
    let client = Client::new(&args.client)?;
    let mut messages: Vec<Value> = Vec::new();
    messages.extend(args.system.iter().map(|text| json!({"role": "system", "content": text})));
    if let Some(message) = &args.message {
        return ask(&client, &args, &mut messages, message).await;
    }
    let input = io::stdin();
    let is_terminal = input.is_terminal();
    for line in prompted(is_terminal) {
        let line = line.context("while reading your question")?;
        if !line.trim().is_empty()
            && let Err(error) = ask(&client, &args, &mut messages, &line).await
        {
            if !is_terminal {
                return Err(error);
            }
            eprintln!("finetuned: {error:#}");
            messages.pop();
        }
    }
    Ok(())
}

/// Lines of standard input, each after a prompt where a person types them.
fn prompted(is_terminal: bool) -> impl Iterator<Item = io::Result<String>> {
    let mut lines = io::stdin().lock().lines();
    std::iter::from_fn(move || {
        if is_terminal {
            print!("> ");
            // A prompt that cannot be written is not missed.
            let _ = io::stdout().flush();
        }
        lines.next()
    })
}

async fn ask(client: &Client, args: &ChatArgs, messages: &mut Vec<Value>, question: &str) -> anyhow::Result<()> {
    messages.push(json!({"role": "user", "content": question}));
    let body = json!({
        "model": args.model, "messages": messages, "max_completion_tokens": args.max_tokens,
        "temperature": args.temperature, "stream": true,
    });
    let mut answer = String::new();
    let mut out = io::stdout();
    client
        .stream("/v1/chat/completions", &body, &mut |event| {
            let chunk: Value = serde_json::from_str(event).context("while reading a piece of the answer")?;
            if let Some(message) = chunk["error"]["message"].as_str() {
                anyhow::bail!("the service broke off: {message}");
            }
            let text = chunk["choices"][0]["delta"]["content"].as_str().unwrap_or_default();
            answer.push_str(text);
            out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("while writing the answer")
        })
        .await?;
    writeln!(out)?;
    messages.push(json!({"role": "assistant", "content": answer}));
    Ok(())
}
