//! The service that the demo starts for itself.

use std::{
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, bail};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
    time::timeout,
};

use crate::{args::EngineArgs, serve::READY};

/// The most that a first start may take, with a cluster to be made.
const READY_DEADLINE: Duration = Duration::from_secs(120);
/// The most that an orderly end may take before it is forced.
const END_DEADLINE: Duration = Duration::from_secs(30);
const USUAL_PORT: u16 = 8787;

/// A running `finetuned serve`.
pub struct Child {
    process: tokio::process::Child,
    url: String,
    words: Vec<String>,
    log: PathBuf,
}

impl Child {
    /// Starts the service on the usual port where it is free, else on any, and waits until it is ready.
    ///
    /// # Errors
    /// A service that ended or did not become ready; the error carries the end of its log.
    pub async fn start(data: &Path, runtime: &Path, engine: &EngineArgs, log: &Path) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("while looking for this program")?;
        let words = words(&program, data, runtime, engine);
        let file = std::fs::File::create(log).with_context(|| format!("while writing {}", log.display()))?;
        let mut command = Command::new(&program);
        command.args(&words[1..]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(file);
        // The demo's rows and jobs stay out of a database that the user's own service may have.
        command.env_remove("FINETUNED_DATABASE_URL").env_remove("FINETUNED_NO_WORKER");
        // A Ctrl-C reaches the demo alone, which ends its service in order; and one that is killed takes it along.
        command.process_group(0).kill_on_drop(true);
        // SAFETY: the closure makes one system call that is safe between fork and exec, and allocates nothing.
        unsafe {
            command.pre_exec(|| {
                let ends_with_parent = Some(rustix::process::Signal::TERM);
                rustix::process::set_parent_process_death_signal(ends_with_parent).map_err(std::io::Error::from)
            });
        }
        let mut process = command.spawn().with_context(|| format!("while starting {}", program.display()))?;
        let stdout = process.stdout.take().context("while reading from the service")?;
        let url = match timeout(READY_DEADLINE, ready_url(stdout)).await {
            Ok(Some(url)) => url,
            ended => {
                let what = if ended.is_ok() { "ended at its start" } else { "was not ready within two minutes" };
                bail!("the demo's service {what}:\n{}", last_lines(log, 15).join("\n"));
            }
        };
        Ok(Self { process, url, words, log: log.to_owned() })
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn log(&self) -> &Path {
        &self.log
    }

    /// What to type to start the same service.
    pub fn command_line(&self) -> String {
        let address = self.url.trim_start_matches("http://");
        let words = self.words.iter().map(|word| if word == "127.0.0.1:0" { address } else { word });
        words.collect::<Vec<_>>().join(" ")
    }

    /// Waits until it ends by itself.
    pub async fn exit(&mut self) -> String {
        self.process.wait().await.map(|status| status.to_string()).unwrap_or_else(|error| error.to_string())
    }

    /// Ends it in order, by force only when that takes too long.
    pub async fn stop(mut self) {
        let id = self.process.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw);
        if let Some(id) = id {
            // It may have ended by now; then there is nothing to tell.
            rustix::process::kill_process(id, rustix::process::Signal::TERM).ok();
        }
        if timeout(END_DEADLINE, self.process.wait()).await.is_err() {
            self.process.kill().await.ok();
        }
    }
}

fn words(program: &Path, data: &Path, runtime: &Path, engine: &EngineArgs) -> Vec<String> {
    let port = if TcpListener::bind(("127.0.0.1", USUAL_PORT)).is_ok() { USUAL_PORT } else { 0 };
    let listen = SocketAddr::from(([127, 0, 0, 1], port)).to_string();
    let text = |path: &Path| path.display().to_string();
    let mut words = vec![text(program), "serve".to_owned()];
    words.extend(["--listen".to_owned(), listen]);
    words.extend(["--data-dir".to_owned(), text(data), "--runtime-dir".to_owned(), text(runtime)]);
    if let Some(engine) = &engine.engine {
        words.extend(["--engine".to_owned(), text(engine)]);
    }
    if let Some(threads) = engine.threads {
        words.extend(["--threads".to_owned(), threads.to_string()]);
    }
    words.extend(["--device".to_owned(), engine.device.to_string()]);
    words
}

/// The address in the line that says that the service is ready; none when it ends before.
async fn ready_url(stdout: tokio::process::ChildStdout) -> Option<String> {
    let mut lines = BufReader::new(stdout).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if let Some(url) = url_in(&line) {
            return Some(url.to_owned());
        }
    }
    None
}

/// The address in the line; a remark may follow it.
fn url_in(line: &str) -> Option<&str> {
    line.strip_prefix(READY)?.split_whitespace().next()
}

/// The end of a log.
pub fn last_lines(log: &Path, most: usize) -> Vec<String> {
    let text = std::fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let mut shown = vec![format!("the end of {}:", log.display())];
    shown.extend(lines[lines.len().saturating_sub(most)..].iter().map(|line| format!("  {line}")));
    shown
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use finetuned_protocol::engine::DeviceRequest;

    #[test]
    fn the_service_is_told_everything_by_name() {
        let engine = EngineArgs { engine: Some("/e".into()), threads: Some(2), device: DeviceRequest::Cpu };
        let words = words(Path::new("/bin/finetuned"), Path::new("/d"), Path::new("/r"), &engine).join(" ");
        assert!(words.starts_with("/bin/finetuned serve --listen 127.0.0.1:"), "{words}");
        assert!(words.ends_with("--data-dir /d --runtime-dir /r --engine /e --threads 2 --device cpu"), "{words}");
    }

    #[test]
    fn the_address_is_read_without_the_remark() {
        assert_eq!(url_in(&format!("{READY}http://127.0.0.1:1 (no API key exists)")), Some("http://127.0.0.1:1"));
        assert_eq!(url_in("anything else"), None);
    }

    #[test]
    fn the_end_of_a_log_is_short() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        std::fs::write(&log, "1\n2\n3\n").unwrap();
        assert_eq!(last_lines(&log, 2)[1..], ["  2", "  3"]);
        assert_eq!(last_lines(&folder.path().join("none"), 2).len(), 1);
    }
}
