//! The copy of the event log on standard output. A reader that is gone or asleep must not stop a run.

use std::{
    ffi::c_int,
    io::{self, Write},
    os::fd::AsRawFd,
    time::Duration,
};

/// A pipe that is ready takes so many bytes without blocking (`PIPE_BUF` of Linux).
const READY_BYTES: usize = 4096;
/// A reader that takes nothing for so long gets nothing more.
const PATIENCE: Duration = Duration::from_secs(1);

/// Writes to an output until the first failure.
pub struct Copier<W> {
    out: Option<W>,
}

impl<W: Write + AsRawFd> Copier<W> {
    pub fn new(out: W) -> Self {
        Self { out: Some(out) }
    }

    /// Copies, or gives up for good: half a line must not be followed by another.
    pub fn copy(&mut self, bytes: &[u8]) {
        let Some(out) = self.out.as_mut() else { return };
        if let Err(error) = write_patiently(out, bytes) {
            tracing::warn!(%error, "standard output takes no more; the event log goes on without it");
            self.out = None;
        }
    }
}

fn write_patiently(out: &mut (impl Write + AsRawFd), bytes: &[u8]) -> io::Result<()> {
    for chunk in bytes.chunks(READY_BYTES) {
        wait_until_ready(out)?;
        out.write_all(chunk)?;
    }
    out.flush()
}

fn wait_until_ready(out: &impl AsRawFd) -> io::Result<()> {
    let timeout = c_int::try_from(PATIENCE.as_millis()).unwrap_or(c_int::MAX);
    loop {
        let mut wanted = libc::pollfd { fd: out.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
        // SAFETY: poll reads and writes the one structure that it is given, which lives through the call.
        match unsafe { libc::poll(&raw mut wanted, 1, timeout) } {
            0 => return Err(io::ErrorKind::TimedOut.into()),
            1 => return Ok(()),
            _ => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use std::{io::Read, time::Instant};

    #[test]
    fn a_reader_gets_every_byte() {
        let (mut reader, writer) = io::pipe().unwrap();
        let mut copier = Copier::new(writer);
        copier.copy(b"one\n");
        copier.copy(b"two\n");
        drop(copier);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "one\ntwo\n");
    }

    #[test]
    fn a_sleeping_reader_is_given_up_after_a_second() {
        let (_reader, writer) = io::pipe().unwrap();
        let mut copier = Copier::new(writer);
        let started = Instant::now();
        copier.copy(&vec![b'x'; 1 << 20]);
        copier.copy(b"more");
        assert!(started.elapsed() < PATIENCE * 3);
        assert!(copier.out.is_none());
    }

    #[test]
    fn a_reader_that_is_gone_is_no_error() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let mut copier = Copier::new(writer);
        copier.copy(b"one\n");
        copier.copy(b"two\n");
        assert!(copier.out.is_none());
    }
}
