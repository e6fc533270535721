//! Python programs with the official client, run against a service.

use std::{path::Path, process::Stdio, time::Duration};

use anyhow::{Context, Result, ensure};
use tokio::process::Command;

use crate::programs::{repository, runtime};

/// Longest time a script may take.
const SCRIPT: Duration = Duration::from_secs(300);

/// Runs `tests/python/NAME ARGUMENTS` with the packages of `requirements-sdk.txt`; its standard output.
pub async fn run(name: &str, arguments: &[&str]) -> Result<String> {
    let python = runtime().join("python-sdk/bin/python");
    ensure!(python.exists(), "{} is missing: run the tests with `make test`", python.display());
    let script = repository().join("tests/python").join(name);
    let child = command(&python, &script, arguments).spawn().context("starting Python")?;
    let output = tokio::time::timeout(SCRIPT, child.wait_with_output()).await.context("the script took too long")??;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "{name} failed:\n{text}\n{}", String::from_utf8_lossy(&output.stderr));
    Ok(text)
}

fn command(python: &Path, script: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(python);
    command.arg(script).args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // The client must find nothing of the host's own settings.
    command.env_remove("OPENAI_API_KEY").env_remove("OPENAI_BASE_URL").env("NO_PROXY", "*").kill_on_drop(true);
    command
}
