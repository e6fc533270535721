//! Gathers an engine's lines into a report.

use finetuned_protocol::{
    engine::{EngineEvent, EngineLine, Phase},
    metrics,
    optimization::HeldOutMetric,
};
use finetuned_store::{JobProgress, NewMetric, Report};

use super::events::{TRAIN_REWARDS, VALID_REWARDS, event_of, phase_event, preference_metrics, valid_metrics};
use crate::pace::Pace;

/// Turns lines into a [`Report`], and keeps what progress needs between them.
#[derive(Debug, Default)]
pub struct Translator {
    pace: Pace,
    /// Where the job is, as far as the lines say.
    progress: Option<JobProgress>,
    step: u32,
    total_steps: u32,
    report: Report,
    /// Lines in the report that clients have not seen.
    is_news: bool,
}

impl Translator {
    pub fn read(&mut self, line: &EngineLine) {
        self.is_news = true;
        self.report.last_line = line.line;
        self.pace.read(line);
        match &line.event {
            EngineEvent::Started { total_steps, resumed_from_step, .. } => {
                self.total_steps = *total_steps;
                self.step = *resumed_from_step;
                self.report.started = true;
            }
            EngineEvent::Progress { phase, done, total } => self.read_mark(line.line, *phase, *done, *total),
            EngineEvent::Step { step, .. } => {
                self.step = *step;
                self.measure(*step, &step_metrics(&line.event));
            }
            EngineEvent::Evaluated { step, likelihood } => {
                let [loss, accuracy, ..] = valid_metrics(likelihood);
                let rewards = preference_metrics(likelihood.preference.as_ref(), VALID_REWARDS);
                let values: Vec<_> = [loss, accuracy].into_iter().chain(rewards).collect();
                self.measure(*step, &values);
            }
            EngineEvent::TextScored { step, scores, .. } => {
                let values: Vec<(String, f64)> =
                    scores.iter().map(|(metric, value)| (HeldOutMetric::Text(*metric).to_string(), *value)).collect();
                let values: Vec<_> = values.iter().map(|(name, value)| (name.as_str(), *value)).collect();
                self.measure(*step, &values);
            }
            EngineEvent::Answered { rows } => self.report.answers.extend(rows.iter().cloned()),
            _ => {}
        }
        self.report.events.extend(event_of(line.line, &line.event, self.total_steps));
        if let Some(progress) = &mut self.progress {
            progress.step = self.step;
            progress.total_steps = self.total_steps;
            progress.remaining_seconds = self.pace.seconds_left();
        }
    }

    fn read_mark(&mut self, line: u64, phase: Phase, done: u64, total: u64) {
        if self.progress.as_ref().is_none_or(|progress| progress.phase != phase) {
            self.report.events.extend(phase_event(line, phase, total));
        }
        let (step, total_steps) = (self.step, self.total_steps);
        self.progress = Some(JobProgress { phase, done, total, step, total_steps, remaining_seconds: None });
    }

    fn measure(&mut self, step: u32, values: &[(&str, f64)]) {
        let finite = values.iter().filter(|(_, value)| value.is_finite());
        self.report.metrics.extend(finite.map(|(name, value)| NewMetric {
            name: (*name).to_owned(),
            step,
            value: *value,
        }));
    }

    /// Events, metrics and answers that wait.
    pub fn waiting(&self) -> usize {
        self.report.events.len() + self.report.metrics.len() + self.report.answers.len()
    }

    /// Last step that was taken.
    pub fn step(&self) -> u32 {
        self.step
    }

    /// What is new since the last call; `None` where nothing is.
    pub fn take(&mut self) -> Option<Report> {
        if !std::mem::take(&mut self.is_news) {
            return None;
        }
        let last_line = self.report.last_line;
        let report = Report { progress: self.progress.clone(), ..std::mem::take(&mut self.report) };
        self.report.last_line = last_line;
        Some(report)
    }
}

fn step_metrics(event: &EngineEvent) -> Vec<(&'static str, f64)> {
    let EngineEvent::Step {
        step: _,
        epoch: _,
        train_loss,
        train_mean_token_accuracy,
        learning_rate,
        gradient_norm,
        tokens,
        supervised_tokens: _,
        seconds,
        peak_memory_bytes,
        preference,
    } = event
    else {
        return Vec::new();
    };
    let mut values = vec![
        (metrics::TRAIN_LOSS, *train_loss),
        (metrics::TRAIN_MEAN_TOKEN_ACCURACY, *train_mean_token_accuracy),
        (metrics::LEARNING_RATE, *learning_rate),
        (metrics::GRADIENT_NORM, *gradient_norm),
        // Zero seconds give no number and are left out.
        (metrics::TOKENS_PER_SECOND, *tokens as f64 / seconds),
        (metrics::PEAK_MEMORY_BYTES, *peak_memory_bytes as f64),
    ];
    values.extend(preference_metrics(preference.as_ref(), TRAIN_REWARDS));
    values
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use finetuned_protocol::evaluation::Likelihood;

    use super::*;

    fn read(translator: &mut Translator, line: u64, event: EngineEvent) {
        translator.read(&EngineLine { line, time: line as f64, event });
    }

    fn started(total_steps: u32) -> EngineEvent {
        EngineEvent::Started {
            engine_version: "1".into(),
            device: "cpu".into(),
            threads: 2,
            instruction_set: "avx2".into(),
            parameters: 100,
            trainable_parameters: 10,
            train_rows: 1200,
            held_out_rows: 12,
            total_steps,
            resumed_from_step: 0,
        }
    }

    fn step(step: u32, train_loss: f64) -> EngineEvent {
        EngineEvent::Step {
            step,
            epoch: 0.3,
            train_loss,
            train_mean_token_accuracy: 0.5,
            learning_rate: 1e-4,
            gradient_norm: 1.0,
            tokens: 100,
            supervised_tokens: 50,
            seconds: 2.0,
            peak_memory_bytes: 1024,
            preference: None,
        }
    }

    #[test]
    fn lines_become_one_report() {
        let mut translator = Translator::default();
        assert_eq!(translator.take(), None);
        read(&mut translator, 1, started(39));
        read(&mut translator, 2, EngineEvent::Progress { phase: Phase::Training, done: 1, total: 78 });
        read(&mut translator, 3, step(1, 2.5));
        read(&mut translator, 4, step(2, 2.0));
        let report = translator.take().unwrap();
        assert_eq!((report.last_line, report.started), (4, true));
        let messages: Vec<&str> = report.events.iter().map(|event| event.message.as_str()).collect();
        assert_eq!(
            messages,
            [
                "Fine-tuning job started on cpu with 2 threads: 1,200 rows",
                "Step 1/39: training loss=2.50",
                "Step 2/39: training loss=2.00"
            ]
        );
        let speeds: Vec<f64> = report
            .metrics
            .iter()
            .filter(|metric| metric.name == "tokens_per_second")
            .map(|metric| metric.value)
            .collect();
        assert_eq!(speeds, [50.0, 50.0]);
        let progress = report.progress.unwrap();
        assert_eq!((progress.step, progress.total_steps, progress.remaining_seconds), (2, 39, Some(37)));
        assert_eq!(translator.take(), None, "each line once");
    }

    #[test]
    fn a_phase_is_told_when_it_begins() {
        let mut translator = Translator::default();
        for (line, done) in [(1, 0), (2, 1), (3, 2)] {
            read(&mut translator, line, EngineEvent::Progress { phase: Phase::AnsweringBase, done, total: 2 });
        }
        let report = translator.take().unwrap();
        assert_eq!(report.events.len(), 1);
        assert_eq!(report.events[0].message, "Asking the base model 2 held-out prompts");
        assert_eq!(report.progress.unwrap().done, 2);
    }

    #[test]
    fn numbers_that_are_none_are_no_metrics() {
        let mut translator = Translator::default();
        read(&mut translator, 1, step(1, f64::NAN));
        let report = translator.take().unwrap();
        assert!(report.metrics.iter().all(|metric| metric.name != "train_loss"));
        assert_eq!(report.metrics.len(), 5);
    }

    #[test]
    fn an_evaluation_is_a_series_from_step_zero_on() {
        let mut translator = Translator::default();
        let likelihood = Likelihood {
            loss: 1.5,
            perplexity: 4.48,
            token_accuracy: 0.6,
            supervised_tokens: 10,
            rows: 2,
            bits_per_byte: None,
            preference: None,
        };
        read(&mut translator, 1, EngineEvent::Evaluated { step: 0, likelihood });
        let report = translator.take().unwrap();
        let points: Vec<_> =
            report.metrics.iter().map(|metric| (metric.name.as_str(), metric.step, metric.value)).collect();
        assert_eq!(points, [("valid_loss", 0, 1.5), ("valid_mean_token_accuracy", 0, 0.6)]);
        assert!(report.events[0].message.contains("validation loss=1.50, perplexity=4.48"));
    }
}
