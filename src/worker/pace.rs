//! How fast an attempt goes, and so how long it has still to go.

use std::collections::VecDeque;

use finetuned_protocol::engine::{EngineEvent, EngineLine, Phase};

/// Steps whose wall time is averaged; evaluations and checkpoints between them count in.
const WINDOW: usize = 32;

/// Reads an engine's lines and foresees its end.
#[derive(Debug, Default)]
pub struct Pace {
    total_steps: u32,
    /// Step and time of the latest steps.
    steps: VecDeque<(u32, f64)>,
    phase: Option<PhaseClock>,
    /// How long the base model took to answer: the tuned one will take about as long.
    base_answers_seconds: f64,
}

#[derive(Debug)]
struct PhaseClock {
    phase: Phase,
    /// Done and time at the phase's first mark.
    first: (u64, f64),
    done: u64,
    total: u64,
    time: f64,
}

impl PhaseClock {
    fn seconds(&self) -> f64 {
        (self.time - self.first.1).max(0.0)
    }

    fn seconds_left(&self) -> Option<f64> {
        let done = self.done.checked_sub(self.first.0).filter(|done| *done > 0)?;
        Some(self.seconds() / done as f64 * self.total.saturating_sub(self.done) as f64)
    }
}

impl Pace {
    pub fn read(&mut self, line: &EngineLine) {
        match &line.event {
            EngineEvent::Started { total_steps, resumed_from_step, .. } => {
                self.total_steps = *total_steps;
                self.steps.clear();
                if *resumed_from_step > 0 {
                    self.steps.push_back((*resumed_from_step, line.time));
                }
            }
            EngineEvent::Progress { phase, done, total } => self.read_mark(*phase, *done, *total, line.time),
            EngineEvent::Step { step, .. } => {
                self.steps.push_back((*step, line.time));
                if self.steps.len() > WINDOW {
                    self.steps.pop_front();
                }
            }
            _ => {}
        }
    }

    fn read_mark(&mut self, phase: Phase, done: u64, total: u64, time: f64) {
        match &mut self.phase {
            Some(clock) if clock.phase == phase => {
                clock.done = done;
                clock.total = total;
                clock.time = time;
            }
            _ => self.phase = Some(PhaseClock { phase, first: (done, time), done, total, time }),
        }
        if let Some(clock) = self.phase.as_ref().filter(|clock| clock.phase == Phase::AnsweringBase) {
            self.base_answers_seconds = clock.seconds();
        }
    }

    /// Seconds to the end of the job; `None` until training has a speed.
    pub fn seconds_left(&self) -> Option<u64> {
        let seconds = match self.phase.as_ref() {
            Some(clock) if clock.phase == Phase::AnsweringTuned => clock.seconds_left()?,
            Some(clock) if matches!(clock.phase, Phase::Exporting | Phase::Verifying) => 0.0,
            _ => self.training_seconds_left()? + self.base_answers_seconds,
        };
        Some(seconds.ceil() as u64)
    }

    fn training_seconds_left(&self) -> Option<f64> {
        let ((first, start), (last, end)) = (*self.steps.front()?, *self.steps.back()?);
        let taken = last.checked_sub(first).filter(|taken| *taken > 0)?;
        let pace = (end - start).max(0.0) / f64::from(taken);
        Some(pace * f64::from(self.total_steps.saturating_sub(last)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pace: &mut Pace, time: f64, event: EngineEvent) {
        pace.read(&EngineLine { line: 1, time, event });
    }

    fn started(total_steps: u32, resumed_from_step: u32) -> EngineEvent {
        EngineEvent::Started {
            engine_version: String::new(),
            device: String::new(),
            threads: 1,
            instruction_set: String::new(),
            parameters: 1,
            trainable_parameters: 1,
            train_rows: 1,
            held_out_rows: 1,
            total_steps,
            resumed_from_step,
        }
    }

    fn step(step: u32) -> EngineEvent {
        EngineEvent::Step {
            step,
            epoch: 0.0,
            train_loss: 1.0,
            train_mean_token_accuracy: 0.5,
            learning_rate: 1e-4,
            gradient_norm: 1.0,
            tokens: 10,
            supervised_tokens: 5,
            seconds: 1.0,
            peak_memory_bytes: 1,
            preference: None,
        }
    }

    fn mark(phase: Phase, done: u64, total: u64) -> EngineEvent {
        EngineEvent::Progress { phase, done, total }
    }

    #[test]
    fn steps_and_the_answers_to_come_are_counted() {
        let mut pace = Pace::default();
        read(&mut pace, 0.0, started(10, 0));
        read(&mut pace, 1.0, mark(Phase::AnsweringBase, 0, 4));
        read(&mut pace, 13.0, mark(Phase::AnsweringBase, 4, 4));
        read(&mut pace, 20.0, step(1));
        assert_eq!(pace.seconds_left(), None, "one step has no pace");
        read(&mut pace, 23.0, step(2));
        read(&mut pace, 26.0, step(3));
        assert_eq!(pace.seconds_left(), Some(7 * 3 + 12));
    }

    #[test]
    fn the_last_phase_goes_by_its_own_marks() {
        let mut pace = Pace::default();
        read(&mut pace, 0.0, started(10, 9));
        read(&mut pace, 5.0, step(10));
        read(&mut pace, 6.0, mark(Phase::AnsweringTuned, 0, 10));
        assert_eq!(pace.seconds_left(), None);
        read(&mut pace, 8.0, mark(Phase::AnsweringTuned, 1, 10));
        assert_eq!(pace.seconds_left(), Some(18));
        read(&mut pace, 30.0, mark(Phase::Verifying, 0, 1));
        assert_eq!(pace.seconds_left(), Some(0));
    }

    #[test]
    fn a_resumed_attempt_has_a_pace_of_its_own() {
        let mut pace = Pace::default();
        read(&mut pace, 100.0, started(10, 6));
        read(&mut pace, 104.0, step(7));
        assert_eq!(pace.seconds_left(), Some(12));
    }
}
