//! The thread that engines are born from.
//!
//! The kernel's parent-death signal is bound to the *thread* that made the child. A thread of the runtime may end while
//! the process lives on; this one lasts as long as the process, so an engine dies with its worker and never before.

use std::{
    io,
    sync::{
        OnceLock,
        mpsc::{Sender, channel},
    },
};

use tokio::{
    process::{Child, Command},
    runtime::Handle,
    sync::oneshot,
};

struct Birth {
    command: Command,
    runtime: Handle,
    reply: oneshot::Sender<io::Result<Child>>,
}

static PARENT: OnceLock<Sender<Birth>> = OnceLock::new();

/// Starts `command` on the lasting thread.
///
/// # Errors
/// What the start itself says, or a thread that could not be made.
pub async fn spawn(command: Command) -> io::Result<Child> {
    let (reply, answer) = oneshot::channel();
    let birth = Birth { command, runtime: Handle::current(), reply };
    let gone = || io::Error::other("the thread that starts engines has ended");
    parent()?.send(birth).map_err(|_| gone())?;
    answer.await.map_err(|_| gone())?
}

fn parent() -> io::Result<&'static Sender<Birth>> {
    if let Some(sender) = PARENT.get() {
        return Ok(sender);
    }
    let (sender, births) = channel::<Birth>();
    std::thread::Builder::new().name("engine-parent".into()).spawn(move || {
        for mut birth in births {
            let _context = birth.runtime.enter();
            // Where nobody waits for the child any more it is dropped, and dropping kills it.
            let _ = birth.reply.send(birth.command.spawn());
        }
    })?;
    // Two first calls at once make two threads; the one whose sender is not kept ends, having made no child.
    Ok(PARENT.get_or_init(|| sender))
}
