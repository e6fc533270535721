//! `finetuned openapi` and `finetuned error-codes`: pages that are generated from the sources.

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use clap::Args;

#[derive(Debug, Args)]
pub struct OpenapiArgs {
    /// Compare with this file instead of printing, and fail where it differs.
    #[arg(long, env = "FINETUNED_OPENAPI_CHECK", value_name = "FILE")]
    check: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct ErrorCodesArgs {
    /// Compare with this file instead of printing, and fail where it differs.
    #[arg(long, env = "FINETUNED_ERROR_CODES_CHECK", value_name = "FILE")]
    check: Option<PathBuf>,
}

/// Prints or checks the document that describes the HTTP interface.
pub fn openapi(args: &OpenapiArgs) -> anyhow::Result<()> {
    let made = finetuned_server::openapi_yaml()
        .map_err(|error| anyhow::anyhow!("the document cannot be written as YAML: {error}"))?;
    print_or_check("openapi", &made, args.check.as_deref())
}

/// Prints or checks the table of the codes that a job's `error` may have.
pub fn error_codes(args: &ErrorCodesArgs) -> anyhow::Result<()> {
    print_or_check("error-codes", &finetuned_protocol::error_codes::page(), args.check.as_deref())
}

fn print_or_check(command: &str, made: &str, check: Option<&Path>) -> anyhow::Result<()> {
    let Some(path) = check else {
        return std::io::stdout().write_all(made.as_bytes()).context("while printing");
    };
    let kept = std::fs::read_to_string(path).with_context(|| format!("while reading {}", path.display()))?;
    match first_difference(&kept, made) {
        None => Ok(()),
        Some(line) => bail!(
            "{0} differs from the sources from line {line} on; write it anew with `finetuned {command} > {0}`",
            path.display()
        ),
    }
}

/// The first line, counted from 1, in which two texts differ.
fn first_difference(kept: &str, made: &str) -> Option<usize> {
    if kept == made {
        return None;
    }
    let same = kept.lines().zip(made.lines()).take_while(|(kept, made)| kept == made).count();
    Some(same + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drift_is_found_by_its_line() {
        assert_eq!(first_difference("a\nb\n", "a\nb\n"), None);
        assert_eq!(first_difference("a\nb\n", "a\nc\n"), Some(2));
        assert_eq!(first_difference("a\n", "a\nb\n"), Some(2));
        assert_eq!(first_difference("a", "a\n"), Some(2));
    }
}
