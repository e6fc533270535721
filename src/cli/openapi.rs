//! `finetuned openapi`: the document that describes the HTTP interface.

use std::{io::Write, path::PathBuf};

use anyhow::{Context, bail};
use clap::Args;

#[derive(Debug, Args)]
pub struct OpenapiArgs {
    /// Compare with this file instead of printing, and fail where it differs.
    #[arg(long, env = "FINETUNED_OPENAPI_CHECK", value_name = "FILE")]
    check: Option<PathBuf>,
}

pub fn run(args: &OpenapiArgs) -> anyhow::Result<()> {
    let made = finetuned_server::openapi_yaml()
        .map_err(|error| anyhow::anyhow!("the document cannot be written as YAML: {error}"))?;
    let Some(path) = &args.check else {
        return std::io::stdout().write_all(made.as_bytes()).context("while printing");
    };
    let kept = std::fs::read_to_string(path).with_context(|| format!("while reading {}", path.display()))?;
    match first_difference(&kept, &made) {
        None => Ok(()),
        Some(line) => bail!(
            "{0} differs from the handlers from line {line} on; write it anew with `finetuned openapi > {0}`",
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
