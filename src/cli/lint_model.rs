//! `finetuned lint --model`: what only a model, or a second file, can find.

use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::Context;
use clap::Args;
use finetuned_dataset::{RuleTally, SourceFile, Survey, Watch, survey};
use finetuned_protocol::{
    lint::{Finding, ReadingSpec},
    request::parse_template,
    spec::{PreparationSpec, RowsSpec, TemplateSpec},
};
use finetuned_weights::{ModelSource, check_user_template};

use super::lint;
use crate::format::count;

#[derive(Debug, Args)]
pub struct ModelArgs {
    /// A model's folder or GGUF file: looks at the rows as tokens too.
    #[arg(long, env = "FINETUNED_LINT_MODEL", value_name = "PATH")]
    pub model: Option<PathBuf>,
    /// As in a job: a template's name or a Jinja text; by default the model's own.
    #[arg(long, env = "FINETUNED_LINT_TEMPLATE", requires = "model")]
    pub template: Option<String>,
    /// As in a job.
    #[arg(long, env = "FINETUNED_LINT_MAX_SEQ_LEN", value_name = "TOKENS", default_value_t = 2048, requires = "model")]
    pub max_seq_len: u32,
    /// Rows that are held out, to be compared with those of the dataset.
    #[arg(long, env = "FINETUNED_LINT_VALIDATION_FILE", value_name = "FILE", requires = "model")]
    pub validation_file: Option<PathBuf>,
}

/// Prints what a job's validation would find.
///
/// # Errors
/// A model or file that cannot be read, or rows that a job could not train on.
pub fn run(args: &ModelArgs, model: &Path, file: &Path, reading: &ReadingSpec) -> anyhow::Result<()> {
    let source = ModelSource::open(model).with_context(|| format!("while opening {}", model.display()))?;
    let tokenizer = source.tokenizer()?;
    let template = match &args.template {
        Some(text) => parse_template(text).map_err(|error| anyhow::anyhow!(error.message))?,
        None if tokenizer.chat_template().is_some() => TemplateSpec::Chat,
        None => TemplateSpec::Alpaca,
    };
    if let TemplateSpec::Jinja { source } = &template {
        check_user_template(source)?;
    }
    let rows = RowsSpec { training: reading.clone(), invalid_row_tolerance: 1.0, ..RowsSpec::default() };
    let max_seq_len = args.max_seq_len.clamp(8, source.facts().context_length.max(8));
    let spec =
        PreparationSpec { template, max_seq_len, train_on_prompt: false, eval_fraction: 0.0, split_seed: 0, rows };
    let begun = Instant::now();
    let mut tallies = [RuleTally::default(), RuleTally::default()];
    let found = &mut |file, findings: &[Finding]| tallies[usize::from(file == SourceFile::Validation)].add(findings);
    let watch = Watch { progress: &mut |_, _| ControlFlow::Continue(()), found };
    let Survey { facts, rows, .. } = survey(&spec, file, args.validation_file.as_deref(), &tokenizer, watch)?;
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "with the model: {} to train on, {} tokens, {} with loss, the longest row {}",
        count(facts.train_rows, "row"),
        facts.train_tokens,
        facts.train_supervised_tokens,
        facts.longest_row_tokens,
    );
    let [train, valid] = tallies;
    lint::print_rules(&train.finish(rows.train));
    if args.validation_file.is_some() {
        println!("validation file: {}", count(rows.valid, "row"));
        lint::print_rules(&valid.finish(rows.valid));
    }
    let bytes = std::fs::metadata(file)?.len();
    println!("with the model in {seconds:.2} s, {:.1} MB/s", bytes as f64 / 1e6 / seconds.max(1e-9));
    Ok(())
}
