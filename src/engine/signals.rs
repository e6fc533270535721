//! SIGTERM and SIGINT mean: stop with a checkpoint.

use std::sync::atomic::{AtomicBool, Ordering};

static ASKED: AtomicBool = AtomicBool::new(false);

/// Whether a signal asked the run to stop.
pub fn asked_to_stop() -> bool {
    ASKED.load(Ordering::Acquire)
}

extern "C" fn note(_signal: libc::c_int) {
    ASKED.store(true, Ordering::Release);
}

/// From now on SIGTERM and SIGINT are noted instead of ending the process.
pub fn listen() {
    let handler = note as extern "C" fn(libc::c_int) as libc::sighandler_t;
    for signal in [libc::SIGTERM, libc::SIGINT] {
        // SAFETY: the handler does nothing but store into an atomic, which is allowed in a signal handler.
        unsafe { libc::signal(signal, handler) };
    }
}
