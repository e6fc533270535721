//! What every loop does between two pieces of work: listen, and show that something moved.

use std::ops::ControlFlow;

use finetuned_protocol::engine::Phase;

use crate::{control::Control, error::EngineError, events::EventLog};

/// The run's ears and mouth.
pub struct Watch<'a> {
    pub control: &'a Control,
    pub log: &'a mut EventLog,
    /// Why a callback broke off; callbacks themselves can carry no reason.
    broken: Option<EngineError>,
}

impl<'a> Watch<'a> {
    pub fn new(control: &'a Control, log: &'a mut EventLog) -> Self {
        Self { control, log, broken: None }
    }

    /// Listens, then tells how far the phase is.
    ///
    /// # Errors
    /// The reason to end, or a log that cannot be written.
    pub fn tick(&mut self, phase: Phase, done: u64, total: u64) -> Result<(), EngineError> {
        self.control.poll()?;
        self.log.progress(phase, done, total)?;
        Ok(())
    }

    /// [`Watch::tick`] for callbacks that can only break off; [`Watch::settle`] then gives the reason.
    pub fn flow(&mut self, phase: Phase, done: u64, total: u64) -> ControlFlow<()> {
        match self.tick(phase, done, total) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                self.broken = Some(error);
                ControlFlow::Break(())
            }
        }
    }

    /// The result of a call that was given [`Watch::flow`]: the reason for which it was broken off goes first.
    ///
    /// # Errors
    /// That reason, or the call's own.
    pub fn settle<T, E: Into<EngineError>>(&mut self, result: Result<T, E>) -> Result<T, EngineError> {
        match self.broken.take() {
            Some(reason) => Err(reason),
            None => result.map_err(Into::into),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use crate::control::Interrupt;
    use finetuned_protocol::engine::EngineCommand;

    #[test]
    fn a_broken_callback_tells_why() {
        let folder = tempfile::tempdir().unwrap();
        let control = Control::default();
        let mut log = EventLog::open(folder.path(), Box::new(|_, _| {})).unwrap();
        let mut watch = Watch::new(&control, &mut log);
        assert_eq!(watch.flow(Phase::Loading, 0, 1), ControlFlow::Continue(()));
        assert!(watch.settle(Ok::<_, EngineError>(())).is_ok());
        control.obey(EngineCommand::Cancel);
        assert_eq!(watch.flow(Phase::Loading, 1, 1), ControlFlow::Break(()));
        let settled = watch.settle(Err::<(), _>(EngineError::Internal("broken off".into())));
        assert!(matches!(settled, Err(EngineError::Interrupted(Interrupt::Cancel))));
    }
}
