//! `finetuned-engine parity`: whether the engine computes what transformers and peft compute, on reference cases.
//!
//! A case is a folder with a tiny model (`base`), an adapter as peft saves it (`adapter`), the same one after eight
//! training steps (`adapter_after_8_steps`), and what the reference came to (`expected.json`, `expected.safetensors`).

mod case;
mod check;
mod run;
mod train;

#[cfg(test)]
mod parity_tests;

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use clap::Args;

use check::Check;

#[derive(Debug, Args)]
pub struct ParityArgs {
    /// Folder of reference cases, one folder each.
    cases: PathBuf,
    /// Folder to write to: for each case `result.safetensors`, `result.json` and the trained adapter.
    out: PathBuf,
    /// Threads for computing.
    #[arg(long, default_value_t = 1)]
    threads: usize,
}

/// Runs every case on the CPU in f32, prints a table, and tells whether all is within its tolerance.
///
/// # Errors
/// A folder without cases, a case that cannot be run, or a figure beyond its tolerance.
pub fn parity(args: &ParityArgs) -> anyhow::Result<()> {
    finetuned_torch::set_threads(args.threads)?;
    let cases = find(&args.cases)?;
    let mut out = io::stdout();
    writeln!(out, "{}", check::heading())?;
    let mut failed = 0;
    for folder in &cases {
        let name = name_of(folder);
        match run::run(folder, &args.out.join(&name)) {
            Ok(checks) => {
                failed += checks.iter().filter(|check| !check.passed()).count();
                checks.iter().try_for_each(|check| writeln!(out, "{}", check.line(&name)))?;
            }
            Err(error) => {
                failed += 1;
                writeln!(out, "{}", Check::broken_line(&name, &format!("{error:#}")))?;
            }
        }
    }
    if failed > 0 {
        bail!("{failed} checks failed in {} cases", cases.len());
    }
    Ok(())
}

/// Folders that hold a case, by name.
fn find(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let doing = || format!("while listing {}", folder.display());
    let mut cases = Vec::new();
    for entry in fs::read_dir(folder).with_context(doing)? {
        let path = entry.with_context(doing)?.path();
        if path.join(case::FIGURES).is_file() {
            cases.push(path);
        }
    }
    cases.sort();
    if cases.is_empty() {
        bail!("no folder in {} has a file {}", folder.display(), case::FIGURES);
    }
    Ok(cases)
}

fn name_of(folder: &Path) -> String {
    folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}
