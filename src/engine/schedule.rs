//! The learning rate of every step.
//!
//! The formulas are those of transformers' `get_linear_schedule_with_warmup`, `get_cosine_schedule_with_warmup` (half a
//! cycle), `get_constant_schedule_with_warmup` and `get_wsd_schedule`. With `s` steps taken, `w` warm-up steps, `t` steps in
//! all and the last `d` of them decay:
//!
//! ```text
//! s <  w             peak * s / w                                  (the first step of a warm-up uses rate zero)
//! s >= w   linear    peak * (t - s) / (t - w)
//!          cosine    peak * 0.5 * (1 + cos(pi * (s - w) / (t - w)))
//!          constant  peak
//!          wsd       peak until t - d, then, with x = (s - (t - d)) / d,
//!                    peak * (1 - x), peak * 0.5 * (1 + cos(pi * x)) or peak * (1 - sqrt(x))
//! ```

use std::f64::consts::PI;

use finetuned_protocol::optimization::{DecaySpec, DecayType, ScheduleShape, ScheduleSpec};

/// Learning rate of the step after `taken` steps.
pub fn learning_rate(schedule: &ScheduleSpec, peak: f64, taken: u32, total_steps: u32) -> f64 {
    let warmup = schedule.warmup_steps;
    if taken < warmup {
        return peak * f64::from(taken) / f64::from(warmup);
    }
    let remaining = f64::from(total_steps.saturating_sub(warmup).max(1));
    let fallen = (f64::from(taken - warmup) / remaining).min(1.0);
    peak * match schedule.shape {
        ScheduleShape::Linear => 1.0 - fallen,
        ScheduleShape::Cosine => half_cosine(fallen),
        ScheduleShape::Constant => 1.0,
        ScheduleShape::Wsd(decay) => decayed(decay, taken, total_steps),
    }
}

fn half_cosine(share: f64) -> f64 {
    0.5 * (1.0 + (PI * share).cos())
}

fn decayed(decay: DecaySpec, taken: u32, total_steps: u32) -> f64 {
    let stable_until = total_steps.saturating_sub(decay.decay_steps);
    if taken < stable_until {
        return 1.0;
    }
    let share = (f64::from(taken - stable_until) / f64::from(decay.decay_steps.max(1))).min(1.0);
    match decay.decay_type {
        DecayType::Linear => 1.0 - share,
        DecayType::Cosine => half_cosine(share),
        DecayType::OneMinusSqrt => 1.0 - share.sqrt(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(shape: ScheduleShape, warmup_steps: u32, total: u32) -> Vec<f64> {
        let schedule = ScheduleSpec { shape, warmup_ratio: 0.0, warmup_steps };
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
        close(&rates(ScheduleShape::Linear, 2, 6), &[0.0, 1.0, 2.0, 1.5, 1.0, 0.5]);
    }

    #[test]
    fn cosine_without_warm_up_is_the_closed_form() {
        let want: Vec<f64> = (0..8).map(|step| 2.0 * 0.5 * (1.0 + (PI * f64::from(step) / 8.0).cos())).collect();
        close(&rates(ScheduleShape::Cosine, 0, 8), &want);
    }

    #[test]
    fn cosine_starts_at_its_peak_after_the_warm_up() {
        close(&rates(ScheduleShape::Cosine, 2, 4), &[0.0, 1.0, 2.0, 1.0]);
    }

    #[test]
    fn constant_stays() {
        close(&rates(ScheduleShape::Constant, 4, 6), &[0.0, 0.5, 1.0, 1.5, 2.0, 2.0]);
    }

    #[test]
    fn every_schedule_is_that_of_transformers() {
        let text = include_str!("../../tests/fixtures/optimizers/schedules.json");
        let expected: std::collections::BTreeMap<String, Vec<f64>> = serde_json::from_str(text).unwrap_or_default();
        let wsd = |decay_type| ScheduleShape::Wsd(DecaySpec { decay_type, decay_ratio: 0.3, decay_steps: 6 });
        let shapes = [
            ("linear", ScheduleShape::Linear),
            ("cosine", ScheduleShape::Cosine),
            ("constant", ScheduleShape::Constant),
            ("wsd linear", wsd(DecayType::Linear)),
            ("wsd cosine", wsd(DecayType::Cosine)),
            ("wsd 1-sqrt", wsd(DecayType::OneMinusSqrt)),
        ];
        assert_eq!(expected.len(), shapes.len());
        for (name, shape) in shapes {
            close(&rates(shape, 4, 20), &expected[name]);
        }
    }

    #[test]
    fn a_warm_up_longer_than_the_run_divides_by_nothing() {
        close(&rates(ScheduleShape::Linear, 3, 2), &[0.0, 2.0 / 3.0]);
    }
}
