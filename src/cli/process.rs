//! What the operating system is told about this process: its memory, its pipes, its end.

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Keeps an idle server small: glibc gives each thread a heap of its own, and few of them are ever returned.
///
/// Must run before the first thread starts.
pub fn limit_heaps() {
    // SAFETY: `mallopt` only sets parameters of the allocator; no other thread runs yet.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 2);
        // Both stay fixed once one is set; otherwise glibc raises them after the first large buffer is freed.
        libc::mallopt(libc::M_TRIM_THRESHOLD, 256 * 1024);
        libc::mallopt(libc::M_MMAP_THRESHOLD, 256 * 1024);
    }
}

/// Lets a command whose output is piped into `head` end quietly. Never for the server: a client or an engine that goes
/// away must not end it.
pub fn end_when_the_reader_leaves() {
    // SAFETY: restores the default action of SIGPIPE; no handler of ours is replaced.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
    }
}

/// The wish to stop, heard from SIGTERM and SIGINT.
pub struct Stopper {
    terminate: Signal,
    interrupt: Signal,
}

impl Stopper {
    /// Takes both signals over from their default actions.
    ///
    /// # Errors
    /// When the handlers cannot be installed.
    pub fn install() -> anyhow::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate()).context("while listening for SIGTERM")?,
            interrupt: signal(SignalKind::interrupt()).context("while listening for SIGINT")?,
        })
    }

    /// Waits for the first or the next of them.
    pub async fn heard(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }

    /// Cancels `stop` at the first signal and ends the process at the second.
    pub fn forward(mut self, stop: CancellationToken) {
        tokio::spawn(async move {
            let name = self.heard().await;
            tracing::info!(signal = name, "stopping; send the signal again to stop at once");
            stop.cancel();
            let name = self.heard().await;
            tracing::warn!(signal = name, "stopped at once");
            std::process::exit(130);
        });
    }
}
