//! Commands from standard input, read by a thread of its own.

use std::{
    io::{self, BufRead, Read},
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel},
    },
    thread,
    time::Duration,
};

use finetuned_protocol::{engine::EngineCommand, serving::ServeCommand};

use super::server::Server;
use crate::control::Control;

/// Longest command that is read: a request's body has its own limit before.
const LONGEST_COMMAND_BYTES: u64 = 16 << 20;
/// With nothing to compute, how long to wait for a command at once.
const IDLE: Duration = Duration::from_millis(200);

/// Commands in their order.
pub struct Commands(Receiver<ServeCommand>);

/// Starts the thread. The end of the input orphans `control`; every command is a sign of life.
///
/// # Errors
/// The system refuses a thread.
pub fn listen(control: &Arc<Control>) -> io::Result<Commands> {
    let (sender, receiver) = channel();
    let control = Arc::clone(control);
    thread::Builder::new().name("commands".into()).spawn(move || {
        read(&mut io::stdin().lock(), &control, &sender);
        control.orphan();
    })?;
    Ok(Commands(receiver))
}

fn read(input: &mut impl BufRead, control: &Control, sender: &Sender<ServeCommand>) {
    let mut line = String::new();
    loop {
        line.clear();
        match input.by_ref().take(LONGEST_COMMAND_BYTES).read_line(&mut line) {
            Ok(0) => return,
            Ok(_) => match serde_json::from_str(line.trim()) {
                Ok(command) => {
                    control.obey(EngineCommand::Keepalive);
                    if sender.send(command).is_err() {
                        return;
                    }
                }
                Err(error) => tracing::warn!(%error, "a line on standard input is not a command"),
            },
            Err(error) => {
                tracing::warn!(%error, "standard input cannot be read");
                return;
            }
        }
    }
}

impl Commands {
    /// Hands over what came; waits a little where there is nothing to compute. `false` once no more can come.
    pub fn take_in(&self, server: &mut Server<'_>) -> bool {
        if server.is_idle() {
            match self.0.recv_timeout(IDLE) {
                Ok(command) => server.obey(command),
                Err(RecvTimeoutError::Timeout) => return true,
                Err(RecvTimeoutError::Disconnected) => return false,
            }
        }
        loop {
            match self.0.try_recv() {
                Ok(command) => server.obey(command),
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
    }
}
