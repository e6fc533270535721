//! Notices an engine that no longer moves, apart from the heartbeat: a stuck engine's worker is alive and well.

use std::{collections::VecDeque, time::Duration};

/// Intervals between marks that the median is taken of.
const KEPT: usize = 101;
/// Fewer intervals than this have no median worth the name.
const FEWEST: usize = 5;
/// Silence allowed, in medians of the intervals between marks.
const MEDIANS: f64 = 20.0;
/// Silence allowed before there is a median, in estimates of a step.
const ESTIMATES: f64 = 5.0;

/// Watches the age of the last progress mark.
///
/// Age is added up by [`Watchdog::pass`] instead of being read off a clock, so that a worker that was itself stopped, or
/// a machine that slept, does not blame the engine for it.
#[derive(Debug)]
pub struct Watchdog {
    least: Duration,
    step_estimate: Duration,
    intervals: VecDeque<f64>,
    last_mark: Option<f64>,
    age: Duration,
}

impl Watchdog {
    /// `least` is never undercut; `step_estimate` stands in for the median until there is one.
    pub fn new(least: Duration, step_estimate: Duration) -> Self {
        Self { least, step_estimate, intervals: VecDeque::new(), last_mark: None, age: Duration::ZERO }
    }

    /// A mark that the engine made at `time` (its own clock, seconds).
    pub fn mark(&mut self, time: f64) {
        if let Some(last) = self.last_mark {
            self.intervals.push_back((time - last).max(0.0));
            if self.intervals.len() > KEPT {
                self.intervals.pop_front();
            }
        }
        self.last_mark = Some(time);
        self.age = Duration::ZERO;
    }

    /// The engine was held or is about to be told something: its silence so far does not count.
    pub fn forgive(&mut self) {
        self.age = Duration::ZERO;
        self.last_mark = None;
    }

    /// `passed` went by, as far as the worker saw it. `Some` is the silence that is too long.
    pub fn pass(&mut self, passed: Duration) -> Option<Duration> {
        self.age += passed;
        (self.age > self.limit()).then_some(self.age)
    }

    /// The longest silence allowed now.
    pub fn limit(&self) -> Duration {
        let by_experience = match self.median() {
            Some(median) => Duration::try_from_secs_f64(median * MEDIANS).unwrap_or(Duration::MAX),
            None => self.step_estimate.saturating_mul(ESTIMATES as u32),
        };
        self.least.max(by_experience)
    }

    fn median(&self) -> Option<f64> {
        if self.intervals.len() < FEWEST {
            return None;
        }
        let mut sorted: Vec<f64> = self.intervals.iter().copied().collect();
        sorted.sort_by(f64::total_cmp);
        Some(sorted[sorted.len() / 2])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn before_a_median_the_estimate_decides() {
        let mut dog = Watchdog::new(60 * SECOND, 30 * SECOND);
        assert_eq!(dog.limit(), 150 * SECOND);
        assert_eq!(dog.pass(150 * SECOND), None);
        assert_eq!(dog.pass(SECOND), Some(151 * SECOND));
        assert_eq!(Watchdog::new(60 * SECOND, SECOND).limit(), 60 * SECOND, "never less than the least");
    }

    #[test]
    fn with_marks_their_median_decides() {
        let mut dog = Watchdog::new(60 * SECOND, SECOND);
        for mark in 0..=10 {
            dog.mark(f64::from(mark) * 7.0);
        }
        // One long pause (an evaluation without marks) moves a mean, not the median.
        dog.mark(70.0 + 1000.0);
        assert_eq!(dog.limit(), 140 * SECOND);
        assert_eq!(dog.pass(140 * SECOND), None);
        assert!(dog.pass(SECOND).is_some());
        dog.mark(1077.0);
        assert_eq!(dog.pass(100 * SECOND), None, "a mark starts the count anew");
    }

    #[test]
    fn time_held_is_forgiven() {
        let mut dog = Watchdog::new(60 * SECOND, SECOND);
        assert_eq!(dog.pass(59 * SECOND), None);
        dog.forgive();
        assert_eq!(dog.pass(59 * SECOND), None);
        // The pause itself is no interval.
        for mark in [0.0, 1.0, 2.0, 3.0, 4.0] {
            dog.mark(mark);
        }
        dog.forgive();
        dog.mark(5000.0);
        dog.mark(5001.0);
        assert_eq!(dog.limit(), 60 * SECOND);
    }

    #[test]
    fn a_clock_set_back_is_no_interval() {
        let mut dog = Watchdog::new(SECOND, SECOND);
        for mark in 0..20 {
            dog.mark(-f64::from(mark));
        }
        assert_eq!(dog.limit(), SECOND);
    }
}
