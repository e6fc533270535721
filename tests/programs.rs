//! Where the built programs are, and whether they are built from the sources at hand.

use std::{
    path::{Path, PathBuf},
    time::SystemTime,
};

use anyhow::{Context, Result, bail, ensure};

/// The repository.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// `.runtime/`, filled by `scripts/runtime.py`.
pub fn runtime() -> PathBuf {
    repository().join(".runtime")
}

/// A folder or file of `tests/fixtures`.
pub fn fixture(name: &str) -> PathBuf {
    repository().join("tests/fixtures").join(name)
}

/// Path of a built program.
///
/// # Errors
/// Where it is missing or older than a source file it was built from.
pub fn program(name: &str) -> Result<PathBuf> {
    let folder = std::env::var_os("FINETUNED_BIN_DIR")
        .context("FINETUNED_BIN_DIR is not set: run the tests with `make test`")?;
    let path = Path::new(&folder).join(name);
    let built =
        modified(&path).with_context(|| format!("{} is not built: run the tests with `make test`", path.display()))?;
    for source in sources(&path.with_extension("d"))? {
        if source.starts_with(repository()) {
            ensure!(
                modified(&source)? <= built,
                "{} is older than {}: run `make build`",
                path.display(),
                source.display()
            );
        }
    }
    Ok(path)
}

fn modified(path: &Path) -> Result<SystemTime> {
    Ok(path.metadata().with_context(|| format!("looking at {}", path.display()))?.modified()?)
}

/// The source files that cargo's dependency file names.
fn sources(dependency_file: &Path) -> Result<Vec<PathBuf>> {
    let text =
        std::fs::read_to_string(dependency_file).with_context(|| format!("reading {}", dependency_file.display()))?;
    let Some((_, list)) = text.split_once(": ") else { bail!("{} names no sources", dependency_file.display()) };
    let list = list.lines().next().unwrap_or_default().replace("\\ ", "\0");
    Ok(list.split_whitespace().map(|path| PathBuf::from(path.replace('\0', " "))).collect())
}
