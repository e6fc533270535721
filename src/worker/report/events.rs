//! The sentences of a training job.

use finetuned_protocol::{
    engine::{EngineEvent, Phase},
    evaluation::{ExportedWeights, Likelihood, PreferenceFigures},
    metrics,
    status::{EventLevel, EventType},
};
use finetuned_store::NewEvent;
use serde_json::{Map, Value, json};

use crate::words;

/// Jobs of more steps than this tell only some of them as events; the metrics have them all.
const MOST_STEP_EVENTS: u32 = 1000;
/// Longest part of a warning that tells it from others.
const WARNING_KEY_CHARS: usize = 120;

/// The event of an engine's line, where a person should read one.
pub fn event_of(line: u64, event: &EngineEvent, total_steps: u32) -> Option<NewEvent> {
    match event {
        EngineEvent::Started { .. } => Some(started(line, event)),
        EngineEvent::Step { .. } => stepped(line, event, total_steps),
        EngineEvent::Evaluated { step, likelihood } => Some(evaluated(line, *step, total_steps, likelihood)),
        EngineEvent::Warning { code, message } => {
            let start: String = message.chars().take(WARNING_KEY_CHARS).collect();
            Some(NewEvent {
                level: EventLevel::Warn,
                data: Some(json!({ "code": code })),
                ..once(line, format!("warning:{code}:{start}"), message.clone())
            })
        }
        EngineEvent::WeightsChosen { weights, likelihood } => Some(weights_chosen(line, weights, likelihood)),
        EngineEvent::Exported { parity, .. } => {
            let message = format!(
                "The adapter was exported, read back and compared: largest difference of a logit {:e}, at most {:e} \
                 allowed",
                parity.largest_reload_difference, parity.tolerance
            );
            Some(NewEvent { data: serde_json::to_value(parity).ok(), ..once(line, "exported".into(), message) })
        }
        // Progress is not told line by line, a checkpoint once it is stored, and an end by whoever ends the job.
        // What answers during training score is a series, and no sentence each time.
        EngineEvent::Progress { .. }
        | EngineEvent::TextScored { .. }
        | EngineEvent::Answered { .. }
        | EngineEvent::AllAnswered { .. }
        | EngineEvent::Checkpoint { .. }
        | EngineEvent::Finished { .. }
        | EngineEvent::Stopped { .. }
        | EngineEvent::Cancelled { .. }
        | EngineEvent::Suspended { .. }
        | EngineEvent::Failed { .. } => None,
    }
}

/// The event at the start of a phase that a person waits through.
pub fn phase_event(line: u64, phase: Phase, total: u64) -> Option<NewEvent> {
    let message = match phase {
        Phase::ScoringReference => format!("Scoring {} under the reference model", words::counted(total, "pair")),
        Phase::AnsweringBase => format!("Asking the base model {}", words::counted(total, "held-out prompt")),
        Phase::AnsweringTuned => format!("Asking the tuned model {}", words::counted(total, "held-out prompt")),
        _ => return None,
    };
    Some(once(line, format!("phase:{phase}"), message))
}

fn once(line: u64, key: String, message: String) -> NewEvent {
    NewEvent { line: Some(line), once: Some(key), ..NewEvent::message(EventLevel::Info, message) }
}

fn started(line: u64, event: &EngineEvent) -> NewEvent {
    let EngineEvent::Started { device, threads, train_rows, total_steps, resumed_from_step, .. } = event else {
        return once(line, "started".into(), "Fine-tuning job started".into());
    };
    let on = if device.starts_with("cpu") {
        format!("{device} with {}", words::counted(u64::from(*threads), "thread"))
    } else {
        device.clone()
    };
    let data = serde_json::to_value(event).ok();
    if *resumed_from_step > 0 {
        let message = format!("Fine-tuning job resumed at step {resumed_from_step}/{total_steps} on {on}");
        // Told each time: every attempt that goes on is news.
        return NewEvent { line: Some(line), data, ..NewEvent::message(EventLevel::Info, message) };
    }
    let rows = words::counted(*train_rows, "row");
    NewEvent { data, ..once(line, "started".into(), format!("Fine-tuning job started on {on}: {rows}")) }
}

fn is_told(step: u32, total_steps: u32) -> bool {
    step == 1 || step == total_steps || step.is_multiple_of(total_steps.div_ceil(MOST_STEP_EVENTS).max(1))
}

fn stepped(line: u64, event: &EngineEvent, total_steps: u32) -> Option<NewEvent> {
    let EngineEvent::Step { step, train_loss: loss, train_mean_token_accuracy, preference, .. } = event else {
        return None;
    };
    if !is_told(*step, total_steps) {
        return None;
    }
    let mut values =
        vec![(metrics::TRAIN_LOSS, *loss), (metrics::TRAIN_MEAN_TOKEN_ACCURACY, *train_mean_token_accuracy)];
    values.extend(preference_metrics(preference.as_ref(), TRAIN_REWARDS));
    let message = format!("Step {step}/{total_steps}: training loss={loss:.2}");
    Some(measured(once(line, format!("step:{step}"), message), *step, total_steps, numbers(&values)))
}

fn evaluated(line: u64, step: u32, total_steps: u32, likelihood: &Likelihood) -> NewEvent {
    let Likelihood { loss, perplexity, token_accuracy, preference, .. } = likelihood;
    let mut values = valid_metrics(likelihood).to_vec();
    values.extend(preference_metrics(preference.as_ref(), VALID_REWARDS));
    let data = numbers(&values);
    let rest = match preference {
        None => format!("perplexity={perplexity:.2}, token accuracy={token_accuracy:.2}"),
        Some(figures) => {
            let PreferenceFigures { reward_accuracy, reward_margin, .. } = figures;
            format!("reward accuracy={reward_accuracy:.2}, reward margin={reward_margin:.2}")
        }
    };
    let message = format!("Step {step}/{total_steps}: validation loss={loss:.2}, {rest}");
    measured(once(line, format!("evaluated:{step}"), message), step, total_steps, data)
}

fn weights_chosen(line: u64, weights: &ExportedWeights, likelihood: &Likelihood) -> NewEvent {
    let loss = likelihood.loss;
    let message = match weights {
        ExportedWeights::Last { step } => format!("The weights of step {step} are exported"),
        ExportedWeights::Best { step, metric, value, stopped_at_step } => {
            let why = match stopped_at_step {
                Some(at) => format!("Early stopping after step {at}: {metric} improved no more"),
                None => "Early stopping was not needed".to_owned(),
            };
            format!("{why}; the best weights are exported, those of step {step} ({metric}={value:.4})")
        }
        ExportedWeights::Mean { steps } => {
            let steps: Vec<String> = steps.iter().map(u32::to_string).collect();
            format!("The mean of the weights of steps {} is exported: validation loss={loss:.4}", steps.join(", "))
        }
    };
    NewEvent { data: serde_json::to_value(weights).ok(), ..once(line, "weights_chosen".into(), message) }
}

/// Names of the accuracy and the margin of rewards.
pub const TRAIN_REWARDS: [&str; 2] = [metrics::TRAIN_REWARD_ACCURACY, metrics::TRAIN_REWARD_MARGIN];
pub const VALID_REWARDS: [&str; 2] = [metrics::VALID_REWARD_ACCURACY, metrics::VALID_REWARD_MARGIN];

/// What is measured of a preference job only.
pub fn preference_metrics(
    figures: Option<&PreferenceFigures>,
    [accuracy, margin]: [&'static str; 2],
) -> impl Iterator<Item = (&'static str, f64)> {
    figures.into_iter().flat_map(move |figures| [(accuracy, figures.reward_accuracy), (margin, figures.reward_margin)])
}

fn measured(event: NewEvent, step: u32, total_steps: u32, mut data: Map<String, Value>) -> NewEvent {
    data.insert("step".into(), step.into());
    data.insert("total_steps".into(), total_steps.into());
    NewEvent { kind: EventType::Metrics, data: Some(Value::Object(data)), ..event }
}

/// What an evaluation says, by the names of clients. Every held-out row is scored, so "full" is the same.
pub fn valid_metrics(likelihood: &Likelihood) -> [(&'static str, f64); 4] {
    [
        (metrics::VALID_LOSS, likelihood.loss),
        (metrics::VALID_MEAN_TOKEN_ACCURACY, likelihood.token_accuracy),
        ("full_valid_loss", likelihood.loss),
        ("full_valid_mean_token_accuracy", likelihood.token_accuracy),
    ]
}

/// Finite numbers by name; JSON has no others.
pub fn numbers(values: &[(&str, f64)]) -> Map<String, Value> {
    values
        .iter()
        .filter(|(_, value)| value.is_finite())
        .map(|(name, value)| ((*name).to_owned(), (*value).into()))
        .collect()
}

#[cfg(test)]
mod tests {
    use finetuned_protocol::optimization::HeldOutMetric;

    use super::*;

    fn step(step: u32) -> EngineEvent {
        EngineEvent::Step {
            step,
            epoch: 0.3,
            train_loss: 1.234,
            train_mean_token_accuracy: 0.5,
            learning_rate: 1e-4,
            gradient_norm: 1.0,
            tokens: 100,
            supervised_tokens: 50,
            seconds: 2.0,
            peak_memory_bytes: 1 << 20,
            preference: None,
        }
    }

    #[test]
    fn a_step_is_told_once_and_with_its_numbers() {
        let event = event_of(7, &step(12), 39);
        assert_eq!(
            event,
            Some(NewEvent {
                line: Some(7),
                level: EventLevel::Info,
                kind: EventType::Metrics,
                message: "Step 12/39: training loss=1.23".into(),
                data: Some(
                    json!({"train_loss": 1.234, "train_mean_token_accuracy": 0.5, "step": 12, "total_steps": 39})
                ),
                once: Some("step:12".into()),
            })
        );
    }

    #[test]
    fn early_stopping_and_averaging_are_told() {
        let likelihood = Likelihood {
            loss: 1.5,
            perplexity: 4.48,
            token_accuracy: 0.6,
            bits_per_byte: None,
            supervised_tokens: 10,
            rows: 2,
            preference: None,
        };
        let told = |weights| {
            let event = event_of(9, &EngineEvent::WeightsChosen { weights, likelihood: likelihood.clone() }, 39);
            event.map(|event| (event.message, event.once)).unwrap_or_default()
        };
        let best = |stopped_at_step| ExportedWeights::Best {
            step: 6,
            metric: HeldOutMetric::ValidLoss,
            value: 1.5,
            stopped_at_step,
        };
        let once = Some("weights_chosen".to_owned());
        assert_eq!(
            told(best(Some(12))),
            (
                "Early stopping after step 12: valid_loss improved no more; the best weights are exported, those of step 6 \
                 (valid_loss=1.5000)"
                    .to_owned(),
                once.clone()
            )
        );
        assert!(told(best(None)).0.starts_with("Early stopping was not needed; the best weights are exported"));
        assert_eq!(
            told(ExportedWeights::Mean { steps: vec![4, 8] }),
            ("The mean of the weights of steps 4, 8 is exported: validation loss=1.5000".to_owned(), once)
        );
    }

    #[test]
    fn a_preference_job_tells_its_rewards() {
        let figures =
            PreferenceFigures { reward_accuracy: 0.75, reward_margin: 0.5, chosen_reward: 0.2, rejected_reward: -0.3 };
        let EngineEvent::Step { step, epoch, learning_rate, gradient_norm, .. } = step(3) else { unreachable!() };
        let event = EngineEvent::Step {
            step,
            epoch,
            train_loss: 0.5,
            train_mean_token_accuracy: 0.25,
            learning_rate,
            gradient_norm,
            tokens: 1,
            supervised_tokens: 1,
            seconds: 1.0,
            peak_memory_bytes: 1,
            preference: Some(figures),
        };
        let data = event_of(1, &event, 9).and_then(|event| event.data).unwrap_or_default();
        assert_eq!((&data["train_reward_accuracy"], &data["train_reward_margin"]), (&json!(0.75), &json!(0.5)));
        let likelihood = Likelihood {
            loss: 0.5,
            perplexity: 2.0,
            token_accuracy: 0.3,
            supervised_tokens: 9,
            rows: 2,
            bits_per_byte: None,
            preference: Some(figures),
        };
        let Some(event) = event_of(1, &EngineEvent::Evaluated { step: 3, likelihood }, 9) else { unreachable!() };
        assert!(event.message.ends_with("validation loss=0.50, reward accuracy=0.75, reward margin=0.50"));
        assert_eq!(event.data.unwrap_or_default()["valid_reward_margin"], json!(0.5));
    }

    #[test]
    fn long_jobs_tell_a_thousand_steps() {
        let told = (1..=50_000).filter(|step| is_told(*step, 50_000)).count();
        assert_eq!(told, 1001);
        assert_eq!((1..=39).filter(|step| is_told(*step, 39)).count(), 39);
    }

    #[test]
    fn numbers_that_are_none_are_left_out() {
        assert_eq!(Value::Object(numbers(&[("a", f64::NAN), ("b", 1.0), ("c", f64::INFINITY)])), json!({"b": 1.0}));
    }

    #[test]
    fn a_long_warning_has_a_short_key() {
        let event = EngineEvent::Warning { code: "slow".into(), message: "\u{e9}".repeat(5000) };
        let key = event_of(1, &event, 1).and_then(|event| event.once).unwrap_or_default();
        assert_eq!(key.chars().count(), "warning:slow:".len() + WARNING_KEY_CHARS);
    }
}
