//! The learning rate of every step.
//!
//! The formulas are those of transformers' `get_linear_schedule_with_warmup`, `get_cosine_schedule_with_warmup` (half a
//! cycle) and `get_constant_schedule_with_warmup`. With `s` steps taken, `w` warm-up steps and `t` steps in all:
//!
//! ```text
//! s <  w             peak * s / w                                  (the first step of a warm-up uses rate zero)
//! s >= w   linear    peak * (t - s) / (t - w)
//!          cosine    peak * 0.5 * (1 + cos(pi * (s - w) / (t - w)))
//!          constant  peak
//! ```

use std::f64::consts::PI;

use finetuned_protocol::spec::{ScheduleKind, ScheduleSpec};

/// Learning rate of the step after `taken` steps.
pub fn learning_rate(schedule: &ScheduleSpec, peak: f64, taken: u32, total_steps: u32) -> f64 {
    let warmup = schedule.warmup_steps;
    if taken < warmup {
        return peak * f64::from(taken) / f64::from(warmup);
    }
    let remaining = f64::from(total_steps.saturating_sub(warmup).max(1));
    let fallen = (f64::from(taken - warmup) / remaining).min(1.0);
    peak * match schedule.kind {
        ScheduleKind::Linear => 1.0 - fallen,
        ScheduleKind::Cosine => 0.5 * (1.0 + (PI * fallen).cos()),
        ScheduleKind::Constant => 1.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(kind: ScheduleKind, warmup_steps: u32, total: u32) -> Vec<f64> {
        let schedule = ScheduleSpec { kind, warmup_ratio: 0.0, warmup_steps };
        (0..total).map(|step| learning_rate(&schedule, 2.0, step, total)).collect()
    }

    fn close(got: &[f64], want: &[f64]) {
        assert_eq!(got.len(), want.len());
        for (got, want) in got.iter().zip(want) {
            assert!((got - want).abs() < 1e-12, "{got} is not {want}");
        }
    }

    #[test]
    fn linear_rises_and_falls_in_straight_lines() {
        close(&rates(ScheduleKind::Linear, 2, 6), &[0.0, 1.0, 2.0, 1.5, 1.0, 0.5]);
    }

    #[test]
    fn cosine_without_warm_up_is_the_closed_form() {
        let want: Vec<f64> = (0..8).map(|step| 2.0 * 0.5 * (1.0 + (PI * f64::from(step) / 8.0).cos())).collect();
        close(&rates(ScheduleKind::Cosine, 0, 8), &want);
    }

    #[test]
    fn cosine_starts_at_its_peak_after_the_warm_up() {
        close(&rates(ScheduleKind::Cosine, 2, 4), &[0.0, 1.0, 2.0, 1.0]);
    }

    #[test]
    fn constant_stays() {
        close(&rates(ScheduleKind::Constant, 4, 6), &[0.0, 0.5, 1.0, 1.5, 2.0, 2.0]);
    }

    #[test]
    fn a_warm_up_longer_than_the_run_divides_by_nothing() {
        close(&rates(ScheduleKind::Linear, 3, 2), &[0.0, 2.0 / 3.0]);
    }
}
