//! What the outside asks of a run: stop, cancel, hold, or end because nobody is there any more.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use finetuned_protocol::engine::EngineCommand;

const HOLD_POLL: Duration = Duration::from_millis(20);

/// Why a run ends before its end although nothing is wrong with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Interrupt {
    /// Save the last whole step and end.
    #[error("asked to stop with a checkpoint")]
    Stop,
    /// End now.
    #[error("cancelled")]
    Cancel,
    /// The worker went away; end now, tell nobody.
    #[error("the worker went away")]
    Orphaned,
}

/// Requests to a run, shared between the thread that computes and those that listen.
#[derive(Debug)]
pub struct Control {
    stop: AtomicBool,
    cancel: AtomicBool,
    hold: AtomicBool,
    orphaned: AtomicBool,
    last_heard: Mutex<Instant>,
}

impl Default for Control {
    fn default() -> Self {
        Self {
            stop: AtomicBool::new(false),
            cancel: AtomicBool::new(false),
            hold: AtomicBool::new(false),
            orphaned: AtomicBool::new(false),
            last_heard: Mutex::new(Instant::now()),
        }
    }
}

impl Control {
    /// Takes a command of the worker; each is a sign of life too.
    pub fn obey(&self, command: EngineCommand) {
        *self.last_heard.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        match command {
            EngineCommand::Keepalive => {}
            EngineCommand::StopWithCheckpoint => self.stop.store(true, Ordering::Release),
            EngineCommand::Cancel => self.cancel.store(true, Ordering::Release),
            EngineCommand::Hold => self.hold.store(true, Ordering::Release),
            EngineCommand::Continue => self.hold.store(false, Ordering::Release),
        }
    }

    /// Notes that the worker is gone.
    pub fn orphan(&self) {
        self.orphaned.store(true, Ordering::Release);
    }

    /// Whether the worker is gone.
    pub fn is_orphaned(&self) -> bool {
        self.orphaned.load(Ordering::Acquire)
    }

    /// Time since the worker last said anything.
    pub fn silence(&self) -> Duration {
        self.last_heard.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }

    fn interrupt(&self) -> Option<Interrupt> {
        if self.cancel.load(Ordering::Acquire) {
            Some(Interrupt::Cancel)
        } else if self.is_orphaned() {
            Some(Interrupt::Orphaned)
        } else if self.stop.load(Ordering::Acquire) || crate::signals::asked_to_stop() {
            Some(Interrupt::Stop)
        } else {
            None
        }
    }

    /// Called between two pieces of work, in every loop: waits out a `hold`, and says when the run must end.
    ///
    /// # Errors
    /// The reason to end.
    pub fn poll(&self) -> Result<(), Interrupt> {
        loop {
            if let Some(interrupt) = self.interrupt() {
                return Err(interrupt);
            }
            if !self.hold.load(Ordering::Acquire) {
                return Ok(());
            }
            thread::sleep(HOLD_POLL);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn a_cancel_goes_before_a_stop() {
        let control = Control::default();
        assert_eq!(control.poll(), Ok(()));
        control.obey(EngineCommand::StopWithCheckpoint);
        assert_eq!(control.poll(), Err(Interrupt::Stop));
        control.obey(EngineCommand::Cancel);
        assert_eq!(control.poll(), Err(Interrupt::Cancel));
    }

    #[test]
    fn a_hold_waits_for_continue() {
        let control = Control::default();
        control.obey(EngineCommand::Hold);
        let started = Instant::now();
        thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(Duration::from_millis(120));
                control.obey(EngineCommand::Continue);
            });
            assert_eq!(control.poll(), Ok(()));
        });
        assert!(started.elapsed() >= Duration::from_millis(120));
    }

    #[test]
    fn a_held_run_can_still_be_cancelled() {
        let control = Control::default();
        control.obey(EngineCommand::Hold);
        control.obey(EngineCommand::Cancel);
        assert_eq!(control.poll(), Err(Interrupt::Cancel));
    }

    #[test]
    fn every_command_is_a_sign_of_life() {
        let control = Control::default();
        thread::sleep(Duration::from_millis(60));
        assert!(control.silence() >= Duration::from_millis(60));
        control.obey(EngineCommand::Keepalive);
        assert!(control.silence() < Duration::from_millis(60));
    }
}
