//! `finetuned-engine bench`: the speed of training on given token rows, by the recipe that other trainers are measured
//! with.

use std::{
    io::{self, Write},
    ops::ControlFlow,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::Context;
use clap::Args;
use finetuned_dataset::Encoded;
use finetuned_model::{Optimizer, Trainable};
use finetuned_protocol::{
    evaluation_spec::EvaluationSpec,
    objective::ObjectiveSpec,
    optimization::{OptimizerSpec, ScheduleShape, ScheduleSpec},
    precision::BasePrecision,
    resolve::micro_batch_size_of,
    spec::{AnswersSpec, ModelFacts, PreparationSpec, TemplateSpec, TrainingSpec},
    tuning::{AdapterSpec, LoraSpec, TuningSpec},
};
use serde::{Deserialize, Serialize};

use crate::{
    control::Control,
    events::EventLog,
    loaded::{Loaded, ModelArgs},
    plan::Plan,
    schedule::learning_rate,
    trainer::{Aim, Lesson, StepOutcome, Trainer},
    watch::Watch,
};

/// Rows an optimiser step.
const BATCH_SIZE: u32 = 8;

#[derive(Debug, Args)]
pub struct BenchArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// Lines of JSON, each with `input_ids` and `labels`; -100 carries no loss.
    #[arg(long)]
    tokens: PathBuf,
    /// Folder for the trained adapter and the event log.
    #[arg(long)]
    out: PathBuf,
    /// Rows computed at once [default: what a job would choose].
    #[arg(long)]
    micro_batch_size: Option<u32>,
}

#[derive(Deserialize)]
struct TokenRow {
    input_ids: Vec<u32>,
    labels: Vec<i64>,
}

#[derive(Serialize)]
struct Result {
    peer: &'static str,
    rows: usize,
    real_tokens: u64,
    supervised_tokens: u64,
    train_s: f64,
    tokens_per_s: f64,
    peak_rss_gb: f64,
    losses: Vec<f64>,
}

/// Trains one epoch and prints what it took.
///
/// # Errors
/// Files that cannot be read or written, or a step that is not finite.
pub fn bench(args: &BenchArgs) -> anyhow::Result<()> {
    std::fs::create_dir_all(&args.out).with_context(|| format!("while creating {}", args.out.display()))?;
    let rows = read_rows(&args.tokens)?;
    let loaded = Loaded::open(&args.model)?;
    let longest = rows.iter().map(|row| row.ids.len()).max().unwrap_or(0);
    let chosen = micro_batch_size_of(BATCH_SIZE, u32::try_from(longest).unwrap_or(u32::MAX));
    let spec = recipe(&loaded.source.facts(), rows.len(), args.micro_batch_size.unwrap_or(chosen));
    let trainable =
        Trainable::new(&loaded.model, &spec.tuning, u64::from(spec.seed), &mut |_, _| ControlFlow::Continue(()))?;
    let optimizer = Optimizer::new(trainable.named_parameters(), &spec.optimizer, u64::from(spec.seed))?;
    let mut trainer = Trainer::new(trainable, optimizer, Plan::new(&spec, rows.len()), &spec, loaded.model.device());
    let control = Control::default();
    let mut log = EventLog::open(&args.out, Box::new(|_, _| {}))?;
    let mut watch = Watch::new(&control, &mut log);
    let lesson = Lesson { model: &loaded.model, rows: &rows, aim: Aim::Supervised };
    let started = Instant::now();
    let mut losses = Vec::new();
    for taken in 0..spec.total_steps {
        let rate = learning_rate(&spec.schedule, spec.optimizer.learning_rate, taken, spec.total_steps);
        match trainer.step(lesson, taken, rate, &mut watch)? {
            StepOutcome::Taken(figures) => losses.push(figures.loss),
            StepOutcome::TooLarge(error) => return Err(error.into()),
            StepOutcome::Skipped { tensor } => anyhow::bail!("step {}: {tensor} is not finite", taken + 1),
        }
    }
    let train_s = started.elapsed().as_secs_f64();
    if let Some(adapter) = trainer.adapter() {
        adapter.save(&loaded.model, &args.out, &args.model.model.display().to_string())?;
    }
    let real_tokens = rows.iter().map(|row| row.ids.len() as u64).sum();
    let result = Result {
        peer: "finetuned",
        rows: rows.len(),
        real_tokens,
        supervised_tokens: rows.iter().map(|row| row.supervised_tokens() as u64).sum(),
        train_s: rounded(train_s, 10.0),
        tokens_per_s: rounded(real_tokens as f64 / train_s, 10.0),
        peak_rss_gb: rounded(finetuned_torch::peak_memory_bytes() as f64 / 1e9, 100.0),
        losses: losses.into_iter().map(|loss| rounded(loss, 1e4)).collect(),
    };
    writeln!(io::stdout(), "{}", serde_json::to_string(&result)?)?;
    Ok(())
}

fn rounded(value: f64, steps: f64) -> f64 {
    (value * steps).round() / steps
}

fn read_rows(path: &Path) -> anyhow::Result<Vec<Encoded>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("while reading {}", path.display()))?;
    text.lines()
        .zip(1..)
        .map(|(line, number)| {
            let row: TokenRow = serde_json::from_str(line)
                .with_context(|| format!("while reading line {number} of {}", path.display()))?;
            let TokenRow { input_ids: ids, mut labels } = row;
            anyhow::ensure!(ids.len() == labels.len(), "line {number} has as many labels as ids");
            // Nothing predicts a first token.
            if let Some(first) = labels.first_mut() {
                *first = finetuned_dataset::IGNORED_LABEL;
            }
            Ok(Encoded { line: number, piece: 0, ids, labels, weights: None, rejected: None, truncated: false })
        })
        .collect()
}

/// LoRA of rank 16 on all linear layers, 8 rows a step, one epoch, AdamW without weight decay, cosine from 2e-4.
fn recipe(facts: &ModelFacts, rows: usize, micro_batch_size: u32) -> TrainingSpec {
    TrainingSpec {
        preparation: PreparationSpec {
            template: TemplateSpec::Alpaca,
            max_seq_len: facts.context_length,
            train_on_prompt: false,
            eval_fraction: 0.0,
            split_seed: 0,
            rows: Default::default(),
        },
        tuning: TuningSpec::Adapter(AdapterSpec::Lora(LoraSpec::plain(
            16,
            32.0,
            facts.linear_modules.iter().map(|module| module.name.clone()).collect(),
        ))),
        objective: ObjectiveSpec::Supervised,
        base_precision: BasePrecision::Auto,
        continue_from: None,
        optimizer: OptimizerSpec::adamw(2e-4, 0.0, [0.9, 0.999], 1e-8, 1.0),
        schedule: ScheduleSpec { shape: ScheduleShape::Cosine, warmup_ratio: 0.0, warmup_steps: 0 },
        neftune_noise_alpha: 0.0,
        label_smoothing: 0.0,
        early_stopping: None,
        weight_averaging: None,
        batch_size: BATCH_SIZE,
        micro_batch_size,
        n_epochs: 1,
        total_steps: u32::try_from(rows).unwrap_or(u32::MAX).div_ceil(BATCH_SIZE),
        evaluate_every: 1,
        checkpoint_every: 1,
        seed: 0,
        answers: AnswersSpec { rows: 0, max_new_tokens: 0 },
        evaluation: EvaluationSpec::default(),
        export: Vec::new(),
    }
}
