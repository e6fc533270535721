//! `finetuned serve` and `finetuned worker` as child processes, each in a folder of its own.

use std::{
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    client::Client,
    programs::{fixture, program, runtime},
};

const READY: Duration = Duration::from_secs(60);
const STOP: Duration = Duration::from_secs(40);

/// How a test wants its service.
#[derive(Default)]
pub struct ServiceOptions {
    /// Start no worker inside the server.
    pub without_worker: bool,
    /// Where the service keeps its data; a folder of its own by default.
    pub folder: Option<TempDir>,
    pub environment: Vec<(String, String)>,
    pub arguments: Vec<String>,
}

/// A child that is ended when the test is over.
pub struct Process {
    child: Child,
    pub log: PathBuf,
}

impl Process {
    fn spawn(command: &mut Command, log: PathBuf) -> Result<Self> {
        let sink = std::fs::OpenOptions::new().create(true).append(true).open(&log)?;
        command.stdin(Stdio::null()).stdout(sink.try_clone()?).stderr(sink);
        let child = command.spawn().with_context(|| format!("starting {command:?}"))?;
        Ok(Self { child, log })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: i32) -> Result<()> {
        // SAFETY: kill(2) takes two integers; the child is ours and not yet reaped, so its pid is its own.
        let code = unsafe { libc::kill(self.child.id() as i32, signal) };
        ensure!(code == 0, "could not signal {}: {}", self.child.id(), std::io::Error::last_os_error());
        Ok(())
    }

    /// Ends it without warning, as the kernel's out-of-memory killer would.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Asks it to end, and waits until it has; kills it and fails where it does not.
    pub fn stop(&mut self) -> Result<std::process::ExitStatus> {
        self.signal(libc::SIGTERM)?;
        let start = Instant::now();
        while start.elapsed() < STOP {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        self.kill()?;
        bail!("did not end within {STOP:?} of SIGTERM; its log:\n{}", self.log_text())
    }

    pub fn exited(&mut self) -> Result<Option<std::process::ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    pub fn log_text(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Resident memory in bytes, without children.
    pub fn resident_bytes(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("no VmRSS")?;
        let kib: u64 = line.split_whitespace().nth(1).context("no figure")?.parse()?;
        Ok(kib * 1024)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let stopped = self.stop();
            if let Err(error) = stopped {
                eprintln!("{error:#}");
            }
        }
    }
}

/// A running service with a database and a data folder of its own.
pub struct Service {
    // Dropped in this order: workers before the server, both before their folder.
    pub workers: Vec<Process>,
    pub server: Process,
    pub client: Client,
    environment: Vec<(String, String)>,
    arguments: Vec<String>,
    port: u16,
    folder: TempDir,
}

impl Service {
    pub async fn start() -> Result<Self> {
        Self::start_with(ServiceOptions::default()).await
    }

    pub async fn start_with(options: ServiceOptions) -> Result<Self> {
        let folder = options.folder.map_or_else(new_folder, Ok)?;
        let port = free_port()?;
        let mut arguments = options.arguments;
        if options.without_worker {
            arguments.push("--no-worker".into());
        }
        let server = spawn_server(&folder, port, &arguments, &options.environment)?;
        let client = Client::new(format!("http://127.0.0.1:{port}"))?;
        let mut service =
            Self { workers: Vec::new(), server, client, environment: options.environment, arguments, port, folder };
        service.wait_until_ready().await?;
        Ok(service)
    }

    /// Starts the server again on the same port and data, after it was stopped or killed.
    pub async fn restart_server(&mut self) -> Result<Duration> {
        let start = Instant::now();
        self.server = spawn_server(&self.folder, self.port, &self.arguments, &self.environment)?;
        self.wait_until_ready().await?;
        Ok(start.elapsed())
    }

    async fn wait_until_ready(&mut self) -> Result<()> {
        let start = Instant::now();
        loop {
            if let Ok(answer) = self.client.get("/readyz").await
                && answer.status.is_success()
            {
                return Ok(());
            }
            if let Some(status) = self.server.exited()? {
                bail!("the server ended with {status}:\n{}", self.server.log_text());
            }
            ensure!(start.elapsed() < READY, "not ready within {READY:?}:\n{}", self.server.log_text());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Starts a lone worker against the same database and blobs; its place in `workers`.
    pub fn start_worker(&mut self, extra: &[(&str, &str)]) -> Result<usize> {
        let place = self.workers.len();
        let mut command = self.command("worker")?;
        command.envs(extra.iter().copied());
        let worker = Process::spawn(&mut command, self.folder.path().join(format!("worker-{place}.log")))?;
        self.workers.push(worker);
        Ok(place)
    }

    fn command(&self, subcommand: &str) -> Result<Command> {
        base_command(&self.folder, &self.environment).map(|mut command| {
            command.arg(subcommand);
            command
        })
    }

    /// Runs `finetuned ARGUMENTS` to its end; standard output, where it succeeded.
    pub fn run(&self, arguments: &[&str]) -> Result<String> {
        let output = base_command(&self.folder, &self.environment)?.args(arguments).output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(output.status.success(), "finetuned {arguments:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
        Ok(text)
    }

    /// Registers the tiny chat model and returns its public name.
    pub fn add_tiny_model(&self) -> Result<&'static str> {
        let path = fixture("tiny-chat");
        self.run(&["models", "add", &path.to_string_lossy(), "--name", "tiny-chat"])?;
        Ok("tiny-chat")
    }

    /// Uploads `rows` and creates a job on the tiny model; `settings` are laid over the body. Returns the job's id.
    pub async fn tiny_job(&self, rows: &str, settings: Value) -> Result<String> {
        let file = self.client.upload("rows.jsonl", rows).await?;
        let mut body = serde_json::json!({"model": "tiny-chat", "training_file": file["id"], "seed": 7});
        if let (Some(body), Some(settings)) = (body.as_object_mut(), settings.as_object()) {
            body.extend(settings.clone());
        }
        let job = self.client.create_job(&body).await?;
        Ok(job["id"].as_str().context("a job without an id")?.to_owned())
    }

    /// Pids of the engines that work for this service, whoever started them.
    pub fn engines(&self) -> Result<Vec<u32>> {
        let marker = self.folder.path().to_string_lossy().into_owned();
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc")? {
            let entry = entry?;
            let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
            let Ok(line) = std::fs::read(entry.path().join("cmdline")) else { continue };
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            if line.contains("finetuned-engine") && line.contains(&marker) {
                found.push(pid);
            }
        }
        Ok(found)
    }
}

/// An empty folder for a service; its data will lie in `data` below it.
pub fn new_folder() -> Result<TempDir> {
    // Open to others, so that the user whom root lends Postgres reaches its cluster there.
    let mode = std::fs::Permissions::from_mode(0o755);
    let folder = tempfile::Builder::new().prefix("finetuned-e2e-").permissions(mode.clone()).tempdir()?;
    let data = folder.path().join("data");
    std::fs::create_dir(&data)?;
    std::fs::set_permissions(&data, mode)?;
    Ok(folder)
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// `finetuned` on a data folder.
pub fn command(data: &Path) -> Result<Command> {
    let mut command = Command::new(program("finetuned")?);
    program("finetuned-engine")?;
    command
        .env_remove("FINETUNED_DATABASE_URL")
        .env("FINETUNED_DATA_DIR", data)
        .env("FINETUNED_RUNTIME_DIR", runtime());
    Ok(command)
}

fn base_command(folder: &TempDir, environment: &[(String, String)]) -> Result<Command> {
    let mut command = command(&folder.path().join("data"))?;
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    Ok(command)
}

fn spawn_server(
    folder: &TempDir,
    port: u16,
    arguments: &[String],
    environment: &[(String, String)],
) -> Result<Process> {
    let mut command = base_command(folder, environment)?;
    command.arg("serve").args(["--listen", &format!("127.0.0.1:{port}")]).args(arguments);
    Process::spawn(&mut command, folder.path().join("server.log"))
}
