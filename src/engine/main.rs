//! `finetuned-engine`: trains, evaluates and exports in a folder, and answers by hand.
//!
//! It has no network and no database: it reads a folder and writes a folder (`finetuned_protocol::engine`), so the same
//! program runs under the worker, a scheduler or a shell.

mod answers;
mod bench;
mod checkpoint;
mod compute;
mod control;
mod device;
mod device_lock;
mod disk;
mod embed;
mod ending;
mod error;
mod evaluate;
mod events;
mod export;
mod generate;
mod job;
mod likelihood;
mod loaded;
mod logits;
mod merge;
mod model_card;
mod orphan;
mod parity;
mod plan;
mod preference;
mod reference;
mod resume;
mod run;
mod schedule;
mod selection;
mod serve;
mod session;
mod setup;
mod signals;
mod stdout;
mod template;
mod tensors;
mod trainer;
mod verify;
mod watch;

#[cfg(test)]
mod bad_input_tests;
#[cfg(test)]
mod evaluate_tests;
#[cfg(test)]
mod exports_tests;
#[cfg(test)]
mod method_tests;
#[cfg(test)]
mod objective_tests;
#[cfg(test)]
mod optimization_tests;
#[cfg(test)]
mod precision_tests;
#[cfg(test)]
mod run_tests;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod testing_folder;

use std::{
    io::{self, IsTerminal},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use clap::{Parser, Subcommand};
use finetuned_protocol::engine::EXIT_FAILED;
use tracing_subscriber::EnvFilter;

use crate::{
    bench::BenchArgs, control::Control, embed::EmbedArgs, generate::GenerateArgs, job::JobFolder, logits::LogitsArgs,
    merge::MergeArgs, parity::ParityArgs, run::Work, serve::ServeArgs,
};

/// Waited for a keepalive where the job cannot be read, which `run` then reports.
const DEFAULT_KEEPALIVE: Duration = Duration::from_secs(60);

/// Fine-tuning engine: trains a LoRA adapter in a folder.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Train as FOLDER/job.json says; events go to FOLDER/events.jsonl and standard output.
    Train {
        folder: PathBuf,
        /// Take no commands from standard input and do not end when it closes.
        #[arg(long)]
        standalone: bool,
    },
    /// Have the base model and the one in FOLDER/adapter answer held-out prompts; events go where those of `train` go.
    Evaluate {
        folder: PathBuf,
        /// Take no commands from standard input and do not end when it closes.
        #[arg(long)]
        standalone: bool,
    },
    /// Answer a prompt.
    Generate(GenerateArgs),
    /// Keep a model in memory and answer requests from standard input, each with an adapter of its own or none.
    Serve(ServeArgs),
    /// Embed texts, or say how alike pairs of them are.
    Embed(EmbedArgs),
    /// Put an adapter into its model: as a Hugging Face folder, as GGUF, or as a GGUF adapter.
    Merge(MergeArgs),
    /// Write the logits of token rows to a safetensors file.
    Logits(LogitsArgs),
    /// Compare with transformers and peft on reference cases; ends with an error where a figure is off.
    Parity(ParityArgs),
    /// Train on rows of token ids and print speed, memory and losses as one line of JSON.
    Bench(BenchArgs),
}

fn main() {
    let cli = Cli::parse();
    finetuned_torch::tune_allocator();
    start_log();
    if let Err(error) = finetuned_torch::restart_with_sleeping_threads() {
        tracing::warn!(%error, "threads that wait for each other will spin");
    }
    let status = match cli.command {
        Command::Train { folder, standalone } => in_folder(Work::Train, &folder, standalone),
        Command::Evaluate { folder, standalone } => in_folder(Work::Evaluate, &folder, standalone),
        Command::Generate(args) => report(generate::generate(&args)),
        Command::Serve(args) => report(serve::serve(&args)),
        Command::Embed(args) => report(embed::embed(&args)),
        Command::Merge(args) => report(merge::merge(&args)),
        Command::Logits(args) => report(logits::logits(&args)),
        Command::Parity(args) => report(parity::parity(&args)),
        Command::Bench(args) => report(bench::bench(&args)),
    };
    std::process::exit(status);
}

/// Logs go to standard error: standard output carries results.
fn start_log() {
    let filter = EnvFilter::try_from_env("FINETUNED_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .log_internal_errors(false)
        .init();
}

fn in_folder(work: Work, folder: &std::path::Path, standalone: bool) -> i32 {
    signals::listen();
    let control = Arc::new(Control::default());
    if !standalone {
        let told = |folder: JobFolder| Duration::from_secs(folder.job.keepalive_timeout_seconds);
        let timeout = JobFolder::open(folder).map_or(DEFAULT_KEEPALIVE, told);
        if let Err(error) = orphan::watch_worker(&control, timeout) {
            tracing::error!(%error, "the worker cannot be watched");
            return EXIT_FAILED;
        }
    }
    let mut copier = stdout::Copier::new(io::stdout());
    run::run(work, folder, &control, Box::new(move |_, bytes| copier.copy(bytes)))
}

fn report(result: anyhow::Result<()>) -> i32 {
    match result {
        Ok(()) => 0,
        Err(error) => {
            tracing::error!("{error:#}");
            1
        }
    }
}
