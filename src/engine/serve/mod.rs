//! `finetuned-engine serve`: one base model that stays in memory and answers, each request with an adapter of its own.
//!
//! ```text
//! standard input ─ commands thread ─┐
//!                                   ├ the one thread that owns the tensors: take in, admit, step, tell ─ standard output
//! Queue (whose turn) ─ Texts (all under way, one pass a step) ─ Answer (one request: its tokens, its text)
//! ```

mod adapters;
mod answer;
mod commands;
mod prompt;
mod queue;
#[cfg(test)]
mod serve_tests;
mod server;
mod streamed;

use std::{
    io::{self, Write},
    sync::Arc,
    time::Duration,
};

use clap::Args;
use finetuned_protocol::serving::{EngineServing, ServingLine};

use self::server::Server;
use crate::{
    control::Control,
    device::device_kind,
    loaded::{Loaded, ModelArgs},
    orphan,
};

#[derive(Debug, Args)]
pub struct ServeArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// Answers that are computed together at most; more wait.
    #[arg(long, default_value_t = 32)]
    max_batch: usize,
    /// Memory for beginnings of texts that may come again, in MiB; zero keeps none.
    #[arg(long, default_value_t = 256)]
    prefix_cache_mib: u32,
    /// End when nothing was heard on standard input for so many seconds.
    #[arg(long, default_value_t = 40)]
    keepalive_timeout_seconds: u64,
}

/// Answers until standard input closes.
///
/// # Errors
/// A model that cannot be loaded, or standard output that nobody reads.
pub fn serve(args: &ServeArgs) -> anyhow::Result<()> {
    let control = Arc::new(Control::default());
    let commands = commands::listen(&control)?;
    orphan::watch_parent(&control, Duration::from_secs(args.keepalive_timeout_seconds))?;
    let loaded = Loaded::open(&args.model)?;
    write(&[EngineServing::Ready { ready: device_kind(loaded.model.device()).to_owned() }])?;
    let prefix_bytes = i64::from(args.prefix_cache_mib) << 20;
    let mut server = Server::new(&loaded, args.max_batch, prefix_bytes)?;
    let mut open = true;
    while open && !control.is_orphaned() {
        open = commands.take_in(&mut server);
        server.advance();
        tell(server.told())?;
    }
    Ok(())
}

fn tell(lines: Vec<ServingLine>) -> anyhow::Result<()> {
    let lines: Vec<EngineServing> = lines.into_iter().map(EngineServing::Line).collect();
    write(&lines)
}

fn write(lines: &[EngineServing]) -> anyhow::Result<()> {
    if lines.is_empty() {
        return Ok(());
    }
    let mut text = Vec::new();
    for line in lines {
        serde_json::to_writer(&mut text, line)?;
        text.push(b'\n');
    }
    let mut out = io::stdout().lock();
    out.write_all(&text)?;
    out.flush()?;
    Ok(())
}
