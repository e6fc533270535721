//! The program `finetuned`.

mod adapter;
mod args;
mod backup;
mod chat;
mod client;
mod demo;
mod files;
mod format;
mod gc;
mod generated;
mod host;
mod job_view;
mod jobs;
mod keys;
mod lint;
mod lint_model;
mod logging;
mod models;
mod paths;
mod process;
mod rate;
mod score;
mod screen;
mod serve;
mod tenants;
mod worker;

use std::process::ExitCode;

use anyhow::Context;
use args::{Cli, Command};
use clap::Parser;

/// Threads that requests are answered on. All heavy work is the engine's, so that two are enough for many clients.
const SERVICE_THREADS: usize = 2;
/// Threads for files and hashes.
const BLOCKING_THREADS: usize = 16;

fn main() -> ExitCode {
    process::limit_heaps();
    let cli = Cli::parse();
    if matches!(
        cli.command,
        Command::Openapi(_)
            | Command::ErrorCodes(_)
            | Command::Lint(_)
            | Command::Files(_)
            | Command::Jobs(_)
            | Command::Score(_)
    ) {
        process::end_when_the_reader_leaves();
    }
    match start(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("finetuned: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(cli: Cli) -> anyhow::Result<()> {
    logging::start(&cli.log)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(SERVICE_THREADS)
        .max_blocking_threads(BLOCKING_THREADS)
        .enable_all()
        .build()
        .context("while starting threads")?;
    let ended = runtime.block_on(run(cli.command));
    // A file operation that hangs must not keep a stopped program alive.
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    ended
}

async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Serve(args) => serve::run(args).await,
        Command::Worker(args) => worker::run(args).await,
        Command::Keys(args) => keys::run(args).await,
        Command::Tenants(args) => tenants::run(args).await,
        Command::Models(args) => models::run(args).await,
        Command::Demo(args) => demo::run(args).await,
        Command::Files(args) => files::run(args).await,
        Command::Jobs(args) => jobs::run(args).await,
        Command::Adapter(args) => adapter::run(args).await,
        Command::Gc(args) => gc::run(args).await,
        Command::Backup(args) => backup::back_up(args).await,
        Command::Restore(args) => backup::restore(args).await,
        Command::Openapi(args) => generated::openapi(&args),
        Command::ErrorCodes(args) => generated::error_codes(&args),
        Command::Chat(args) => chat::run(args).await,
        Command::Rate(args) => rate::run(args).await,
        Command::Score(args) => score::run(&args),
        Command::Lint(args) => lint::run(&args),
    }
}
