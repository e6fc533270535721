//! A job on the screen while it runs: its events as lines, its steps as a bar.

use std::ops::ControlFlow;

use finetuned_protocol::{
    engine::Phase,
    error::JobError,
    metrics,
    status::{EventLevel, JobStatus},
};
use serde_json::Value;

use crate::{
    client::{
        types::{Event, Job, Phased},
        watch::Seen,
    },
    format,
    screen::{Progress, Screen, Unit},
};

/// Follows one job on the screen.
pub struct JobView {
    screen: Screen,
    status: Option<JobStatus>,
    waiting: Option<String>,
    /// The bar of a phase other than training; events tell of it where there are no bars.
    phase: Option<(Phase, Progress)>,
    total_steps: u64,
    training: Option<Progress>,
    train_loss: Option<f64>,
    valid_loss: Option<f64>,
    away: bool,
}

impl JobView {
    pub fn new(screen: &Screen) -> Self {
        Self {
            screen: screen.clone(),
            status: None,
            waiting: None,
            phase: None,
            total_steps: 0,
            training: None,
            train_loss: None,
            valid_loss: None,
            away: false,
        }
    }

    /// Shows what was seen; always goes on.
    pub fn show(&mut self, seen: Seen<'_>) -> ControlFlow<()> {
        match seen {
            Seen::Job(job) => self.job(job),
            Seen::Event(event) => self.event(event),
            Seen::Away(error) => {
                if !std::mem::replace(&mut self.away, true) {
                    self.screen.line(format!("the service does not answer for now ({error}); asking again"));
                }
                return ControlFlow::Continue(());
            }
        }
        if std::mem::take(&mut self.away) {
            self.screen.line("the service answers again");
        }
        ControlFlow::Continue(())
    }

    fn job(&mut self, job: &Job) {
        if let Some(spec) = &job.effective {
            self.total_steps = u64::from(spec.total_steps);
        }
        if self.status != Some(job.status) {
            self.status = Some(job.status);
            self.screen.line(status_line(job));
        }
        if self.waiting != job.waiting_reason {
            self.waiting.clone_from(&job.waiting_reason);
            if let Some(reason) = &self.waiting {
                self.screen.line(format!("  waiting: {reason}"));
            }
        }
        match &job.progress {
            Some(progress) if job.status == JobStatus::Running => self.phase(progress),
            _ => (self.phase, self.training) = (None, None),
        }
    }

    fn phase(&mut self, progress: &Phased) {
        let &Phased { phase, done, total } = progress;
        if phase == Phase::Training || total == 0 || !self.screen.has_bars() {
            self.phase = None;
            return;
        }
        if self.phase.as_ref().is_none_or(|(shown, _)| *shown != phase) {
            let label = format!("  {}", phase.as_str().replace('_', " "));
            self.phase = Some((phase, self.screen.progress(&label, total, Unit::Steps)));
        }
        if let Some((_, bar)) = &mut self.phase {
            bar.to(done, "");
        }
    }

    fn event(&mut self, event: &Event) {
        if event.data.as_ref().is_none_or(|data| !self.figures(data)) {
            let mark = match event.level {
                EventLevel::Info => "",
                EventLevel::Warn => "warning: ",
                EventLevel::Error => "error: ",
            };
            self.screen.line(format!("  {mark}{}", event.message));
        }
    }

    /// Moves the bar by the figures of an event, where it has any.
    fn figures(&mut self, data: &Value) -> bool {
        let number = |name: &str| data.get(name).and_then(Value::as_f64);
        let (train_loss, valid_loss) = (number(metrics::TRAIN_LOSS), number(metrics::VALID_LOSS));
        let Some(step) = data.get("step").and_then(Value::as_u64) else { return false };
        if train_loss.is_none() && valid_loss.is_none() {
            return false;
        }
        self.train_loss = train_loss.or(self.train_loss);
        self.valid_loss = valid_loss.or(self.valid_loss);
        self.total_steps = data.get("total_steps").and_then(Value::as_u64).unwrap_or(self.total_steps);
        let (screen, total) = (&self.screen, self.total_steps);
        let message = figures_line(self.train_loss, self.valid_loss);
        if total > 0 {
            let bar = self.training.get_or_insert_with(|| screen.progress("  training", total, Unit::Steps));
            bar.to(step, &message);
        } else {
            screen.line(format!("  step {step} {message}"));
        }
        true
    }
}

fn figures_line(train_loss: Option<f64>, valid_loss: Option<f64>) -> String {
    let part = |name: &str, loss: Option<f64>| loss.map(|loss| format!("{name} {loss:.3}"));
    let parts = [part("loss", train_loss), part("held-out loss", valid_loss)];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn status_line(job: &Job) -> String {
    let status = match job.status {
        JobStatus::ValidatingFiles => "checking the rows against the model".to_owned(),
        JobStatus::Queued if job.paused => match &job.suspension {
            Some(error) => format!("paused: {}", explain(error)),
            None => "paused".to_owned(),
        },
        JobStatus::Queued => match &job.estimate {
            Some(estimate) => format!(
                "queued: {} and {} expected, at most {} of memory",
                format::count(u64::from(estimate.steps), "step"),
                format::duration(std::time::Duration::from_secs(estimate.seconds)),
                format::bytes(estimate.peak_memory_bytes)
            ),
            None => "queued".to_owned(),
        },
        JobStatus::Running => "running".to_owned(),
        JobStatus::Succeeded => match &job.fine_tuned_model {
            Some(model) => format!("succeeded: {model}"),
            None => "succeeded".to_owned(),
        },
        JobStatus::Failed => format!("failed: {}", job.error.as_ref().map(explain).unwrap_or_default()),
        JobStatus::Cancelled => "cancelled".to_owned(),
    };
    format!("  {} {status}", job.id)
}

/// A job's error with its hint and its first particulars.
pub fn explain(error: &JobError) -> String {
    let mut text = format!("{} ({})", error.message, error.code);
    for detail in error.details.iter().take(5) {
        text.push_str(&format!("\n  {detail}"));
    }
    if let Some(hint) = &error.hint {
        text.push_str(&format!("\n  {hint}"));
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use finetuned_protocol::error::ErrorCode;
    use serde_json::json;

    fn event(data: Value) -> Event {
        serde_json::from_value(json!({"id": "ftevent-1", "level": "info", "message": "m", "data": data})).unwrap()
    }

    #[test]
    fn figures_move_the_bar_and_both_losses_stay() {
        let mut view = JobView::new(&Screen::plain());
        view.event(&event(json!({"step": 0, "valid_loss": 4.5, "total_steps": 30})));
        view.event(&event(json!({"step": 1, "train_loss": 4.0})));
        assert_eq!((view.total_steps, view.train_loss, view.valid_loss), (30, Some(4.0), Some(4.5)));
        assert!(view.training.is_some());
        assert!(!view.figures(&json!({"step": 2})), "a checkpoint's event is told as a line");
        assert_eq!(figures_line(Some(4.0), Some(4.5)), "loss 4.000, held-out loss 4.500");
    }

    #[test]
    fn a_failure_is_told_with_its_way_out() {
        let error = JobError::new(ErrorCode::OutOfMemory, "No memory was left.").hint("Lower micro_batch_size.");
        assert_eq!(explain(&error), "No memory was left. (out_of_memory)\n  Lower micro_batch_size.");
    }
}
