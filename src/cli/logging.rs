//! Log lines on standard error: short for people, JSON by choice.

use std::io::IsTerminal;

use anyhow::Context;
use tracing_subscriber::EnvFilter;

use crate::args::{LogArgs, LogFormat};

/// Starts logging for the whole process.
///
/// # Errors
/// A filter that tracing cannot read.
pub fn start(args: &LogArgs) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&args.log_filter).with_context(|| {
        let text = &args.log_filter;
        format!("`{text}` is not a log filter; write a level such as `info`, or `warn,finetuned_worker=debug`")
    })?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match args.log_format {
        LogFormat::Json => lines.json().flatten_event(true).init(),
        LogFormat::Human => lines.with_ansi(std::io::stderr().is_terminal()).with_target(false).compact().init(),
    }
    Ok(())
}
