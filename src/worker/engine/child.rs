//! One engine process: started with a bare environment in a group of its own, told things, killed as a whole.

use std::{ffi::OsString, fs::File, io, path::Path, process::Stdio, time::Duration};

use finetuned_protocol::engine::EngineCommand;
use rustix::process::{Pid, Signal, kill_process_group, set_parent_process_death_signal};
use tokio::{
    io::AsyncWriteExt,
    process::{Child, ChildStdin, ChildStdout, Command},
    time::timeout,
};

use super::{exit::EngineExit, parent};

/// A command fits the pipe's buffer at once, or the engine has not read for ages.
const COMMAND_DEADLINE: Duration = Duration::from_secs(1);

/// A running engine. Dropping it kills it.
#[derive(Debug)]
pub struct Engine {
    child: Child,
    stdin: Option<ChildStdin>,
    /// Id of its process group, which is its own process id.
    group: Option<Pid>,
}

impl Engine {
    /// Starts `program command folder` in `folder`; what it says on standard error goes to `log`.
    ///
    /// # Errors
    /// A program that cannot be started, or a log that cannot be made.
    pub async fn start(
        program: &Path,
        (subcommand, folder): (&str, &Path),
        log: &Path,
        environment: Vec<(OsString, OsString)>,
    ) -> io::Result<Self> {
        let mut command = Command::new(program);
        // Standard output is a copy of the events, which are read from their file.
        command.arg(subcommand).arg(folder).stdout(Stdio::null());
        Self::spawn(command, folder, log, environment).await
    }

    /// Starts a command of `program` that reads no commands of ours and ends by itself.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_once(
        program: &Path,
        arguments: Vec<OsString>,
        (folder, log): (&Path, &Path),
        environment: Vec<(OsString, OsString)>,
    ) -> io::Result<Self> {
        let mut command = Command::new(program);
        command.args(arguments).stdout(Stdio::null());
        Self::spawn(command, folder, log, environment).await
    }

    /// Starts `program` with `arguments`; gives its standard input and output, too.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_resident(
        program: &Path,
        arguments: Vec<OsString>,
        (folder, log): (&Path, &Path),
        environment: Vec<(OsString, OsString)>,
    ) -> io::Result<(Self, ChildStdin, ChildStdout)> {
        let mut command = Command::new(program);
        command.args(arguments).stdout(Stdio::piped());
        let mut engine = Self::spawn(command, folder, log, environment).await?;
        match (engine.stdin.take(), engine.child.stdout.take()) {
            (Some(stdin), Some(stdout)) => Ok((engine, stdin, stdout)),
            _ => Err(io::Error::other("the engine has no standard input or output")),
        }
    }

    async fn spawn(
        mut command: Command,
        folder: &Path,
        log: &Path,
        environment: Vec<(OsString, OsString)>,
    ) -> io::Result<Self> {
        command.current_dir(folder).env_clear().envs(environment);
        command.stdin(Stdio::piped()).stderr(File::create(log)?);
        command.process_group(0).kill_on_drop(true);
        die_with_parent(&mut command);
        let mut child = parent::spawn(command).await?;
        let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let stdin = child.stdin.take();
        Ok(Self { child, stdin, group })
    }

    /// Process id, while it runs.
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Tells the engine something. One that does not listen is the watchdog's affair.
    pub async fn tell(&mut self, command: EngineCommand) {
        let Some(stdin) = &mut self.stdin else { return };
        let Ok(mut line) = serde_json::to_vec(&command) else { return };
        line.push(b'\n');
        match timeout(COMMAND_DEADLINE, stdin.write_all(&line)).await {
            Ok(Ok(())) => tracing::trace!(?command, "told the engine"),
            Ok(Err(error)) => tracing::debug!(?command, %error, "the engine's input is closed"),
            Err(_) => tracing::warn!(?command, "the engine does not read its input"),
        }
    }

    /// Kills the engine and whatever it started, at once.
    pub fn kill(&mut self) {
        // Once the engine is reaped its id may be another's; until then the group is surely its own.
        if self.child.id().is_some() {
            self.kill_group();
        }
    }

    /// Waits for its end; what it started and left behind is killed then.
    ///
    /// # Errors
    /// A process that cannot be waited for.
    pub async fn wait(&mut self) -> io::Result<EngineExit> {
        let running = self.child.id().is_some();
        let status = self.child.wait().await?;
        if running {
            // Ids are handed out in a circle, so this one is not another's a moment after its end.
            self.kill_group();
        }
        Ok(status.into())
    }

    fn kill_group(&self) {
        if let Some(group) = self.group {
            // An error means that nobody is left, which is what is wanted.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Has the kernel kill the child when the thread that makes it ends, that is, when this process does.
fn die_with_parent(command: &mut Command) {
    let parent = rustix::process::getpid();
    let prepare = move || {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // The parent may have died before the line above; nobody would send the signal then.
        if rustix::process::getppid() != Some(parent) {
            return Err(io::Error::from_raw_os_error(rustix::io::Errno::SRCH.raw_os_error()));
        }
        Ok(())
    };
    // SAFETY: between fork and exec the closure makes two plain system calls; it allocates nothing and takes no lock.
    unsafe { command.pre_exec(prepare) };
}

#[cfg(test)]
#[path = "child_tests.rs"]
mod tests;
