//! No orphan holds a device: the engine ends when its worker is gone, even in the midst of a long call of libtorch.
//!
//! Three signs, watched by a thread of its own: standard input closed, no keepalive for too long, another parent. The
//! run has a grace to end in an orderly way, then the process is ended under it. A stopped process (SIGSTOP) cannot
//! watch; the kernel wakes it with SIGCONT when the parent dies. That is the parent *thread*, so a signal that kills
//! would be wrong where the worker's thread pool shrinks; SIGCONT is harmless there.

use std::{
    io::{self, BufRead, Read},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use finetuned_protocol::engine::{EXIT_ORPHANED, EngineCommand};

use crate::control::Control;

const WATCH_EVERY: Duration = Duration::from_millis(200);
/// What an orderly end may take, once the worker is gone.
const GRACE: Duration = Duration::from_secs(5);
/// Longest command line that is read; ours have some thirty bytes.
const LONGEST_COMMAND_BYTES: u64 = 4096;

/// Starts the threads that read commands and watch the worker.
///
/// # Errors
/// The system refuses a thread.
pub fn watch_worker(control: &Arc<Control>, keepalive_timeout: Duration) -> io::Result<()> {
    let reader = Arc::clone(control);
    thread::Builder::new().name("commands".into()).spawn(move || read_commands(&mut io::stdin().lock(), &reader))?;
    watch_parent(control, keepalive_timeout)
}

/// Starts the thread that watches the worker, where somebody else reads what it says.
///
/// # Errors
/// The system refuses a thread.
pub fn watch_parent(control: &Arc<Control>, keepalive_timeout: Duration) -> io::Result<()> {
    ask_for_wake_up();
    let watcher = Arc::clone(control);
    thread::Builder::new().name("orphan-watch".into()).spawn(move || watch(&watcher, keepalive_timeout))?;
    Ok(())
}

/// A worker whose starting thread lasts as long as itself has asked for a signal of its own, which stays.
fn ask_for_wake_up() {
    let mut asked: libc::c_int = 0;
    // SAFETY: PR_GET_PDEATHSIG writes one int to a place that outlives the call.
    unsafe { libc::prctl(libc::PR_GET_PDEATHSIG, &raw mut asked) };
    if asked == 0 {
        // SAFETY: prctl with PR_SET_PDEATHSIG takes a signal number and touches no memory of ours.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGCONT) };
    }
}

/// Obeys the commands of `input` until it ends, which means that the worker is gone.
fn read_commands(input: &mut impl BufRead, control: &Control) {
    let mut line = String::new();
    loop {
        line.clear();
        match input.by_ref().take(LONGEST_COMMAND_BYTES).read_line(&mut line) {
            Ok(0) => break,
            Ok(_) => match serde_json::from_str::<EngineCommand>(line.trim()) {
                Ok(command) => control.obey(command),
                Err(error) => tracing::warn!(%error, "a line on standard input is not a command"),
            },
            Err(error) => {
                tracing::warn!(%error, "standard input cannot be read");
                break;
            }
        }
    }
    control.orphan();
}

fn watch(control: &Control, keepalive_timeout: Duration) {
    let parent = rustix::process::getppid();
    while !control.is_orphaned() {
        if control.silence() > keepalive_timeout {
            tracing::error!(silent_seconds = control.silence().as_secs(), "no keepalive from the worker");
            control.orphan();
        }
        if rustix::process::getppid() != parent {
            tracing::error!("the worker died");
            control.orphan();
        }
        thread::sleep(WATCH_EVERY);
    }
    let deadline = Instant::now() + GRACE;
    while Instant::now() < deadline {
        thread::sleep(WATCH_EVERY);
    }
    tracing::error!("ending without the worker");
    // SAFETY: ends the process at once. Exit handlers must not run: they would tear down libtorch under a thread that
    // computes in it.
    unsafe { libc::_exit(EXIT_ORPHANED) };
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use crate::control::Interrupt;
    use std::process::{Child, Command, Stdio};

    const ROLE: &str = "FINETUNED_TEST_ORPHAN_TIMEOUT_MS";

    #[test]
    fn commands_are_obeyed_and_the_end_of_input_is_an_orphan() {
        let control = Control::default();
        read_commands(
            &mut "{\"type\":\"keepalive\"}\nnonsense\n{\"type\":\"stop_with_checkpoint\"}".as_bytes(),
            &control,
        );
        assert!(control.is_orphaned());
        assert_eq!(control.poll(), Err(Interrupt::Orphaned));
        let control = Control::default();
        read_commands(&mut "{\"type\":\"cancel\"}\n".as_bytes(), &control);
        assert_eq!(control.poll(), Err(Interrupt::Cancel));
    }

    /// Not a test by itself: the child of the two tests below, whose main thread never polls.
    #[test]
    fn busy_child() {
        let Ok(timeout) = std::env::var(ROLE) else { return };
        let control = Arc::new(Control::default());
        watch_worker(&control, Duration::from_millis(timeout.parse().unwrap())).unwrap();
        thread::sleep(Duration::from_secs(60));
        panic!("the watcher did not end the process");
    }

    fn child(timeout_ms: u64) -> Child {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "orphan::tests::busy_child", "--nocapture"])
            .env(ROLE, timeout_ms.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    }

    #[test]
    fn a_busy_process_ends_when_its_input_closes() {
        let mut child = child(600_000);
        drop(child.stdin.take());
        let started = Instant::now();
        assert_eq!(child.wait().unwrap().code(), Some(EXIT_ORPHANED));
        assert!(started.elapsed() < GRACE * 3);
    }

    #[test]
    fn a_busy_process_ends_when_the_keepalives_stop() {
        let mut child = child(300);
        let _held_open = child.stdin.take();
        assert_eq!(child.wait().unwrap().code(), Some(EXIT_ORPHANED));
    }
}
