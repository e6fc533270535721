//! `finetuned lint`: what an upload of a file would find, without a service.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, bail};
use clap::Args;
use finetuned_dataset::{LintScope, Linter, check_reading};
use finetuned_protocol::lint::{Finding, LintSummary, ReadingSpec, RuleCount, Severity};

use crate::{
    format::{bytes, count},
    lint_model::{self, ModelArgs},
};

const PORTION_BYTES: usize = 256 << 10;

#[derive(Debug, Args)]
pub struct LintArgs {
    /// The dataset.
    file: PathBuf,
    /// How it is read, as the field `reading` of an upload: {"layout": "csv", "columns": {"prompt": "question"}}.
    #[arg(long, env = "FINETUNED_LINT_READING", value_name = "JSON")]
    reading: Option<String>,
    /// Look at the structure of rows alone, not at what they say.
    #[arg(long, env = "FINETUNED_LINT_STRUCTURE", value_parser = clap::builder::FalseyValueParser::new())]
    structure: bool,
    /// Findings to print.
    #[arg(long, env = "FINETUNED_LINT_FINDINGS", value_name = "N", default_value_t = 20)]
    findings: usize,
    /// Print the summary as JSON, and nothing else.
    #[arg(long, env = "FINETUNED_LINT_JSON", value_parser = clap::builder::FalseyValueParser::new())]
    json: bool,
    #[command(flatten)]
    with: ModelArgs,
}

/// # Errors
/// A file that cannot be read, or one that a job could not train on.
pub fn run(args: &LintArgs) -> anyhow::Result<()> {
    let reading: ReadingSpec = match &args.reading {
        Some(text) => serde_json::from_str(text).context("while reading `--reading`")?,
        None => ReadingSpec::default(),
    };
    check_reading("--reading", &reading).map_err(|error| anyhow::anyhow!(error.message))?;
    let scope = if args.structure { LintScope::Structure } else { LintScope::Content };
    let begun = Instant::now();
    let mut shown = Vec::new();
    let (summary, read) = lint(&args.file, &reading, scope, &mut |finding| {
        if shown.len() < args.findings {
            shown.push(finding);
        }
    })?;
    if args.json {
        println!("{}", serde_json::to_string(&summary)?);
    } else {
        print(&summary, &shown);
        let seconds = begun.elapsed().as_secs_f64();
        println!("{} in {seconds:.2} s, {:.0} MB/s", bytes(read), read as f64 / 1e6 / seconds.max(1e-9));
    }
    if let Some(model) = args.with.model.as_ref().filter(|_| !args.json) {
        lint_model::run(&args.with, model, &args.file, &reading)?;
    }
    if summary.is_usable() {
        return Ok(());
    }
    bail!("a job cannot train on this file: {} of {} cannot be used", summary.error_rows, count(summary.rows, "row"))
}

fn lint(
    path: &Path,
    reading: &ReadingSpec,
    scope: LintScope,
    each: &mut dyn FnMut(Finding),
) -> anyhow::Result<(LintSummary, u64)> {
    let doing = || format!("while reading {}", path.display());
    let mut file = File::open(path).with_context(doing)?;
    let mut portion = vec![0; PORTION_BYTES];
    let mut read = 0;
    let mut linter = Linter::new(reading, scope, each);
    loop {
        let length = file.read(&mut portion).with_context(doing)?;
        if length == 0 {
            return Ok((linter.finish(), read));
        }
        read += length as u64;
        linter.feed(&portion[..length]);
    }
}

fn print(summary: &LintSummary, shown: &[Finding]) {
    for sign in &summary.evidence {
        println!("{sign}");
    }
    let (errors, warnings) = (summary.error_rows, summary.warning_rows);
    println!("{}: {errors} with errors, {warnings} with warnings", count(summary.rows, "row"));
    print_rules(&summary.by_rule);
    for finding in shown {
        let Finding { line, pointer, rule, reason, .. } = finding;
        println!("line {line}{} {rule}: {reason}", if pointer.is_empty() { "" } else { " " }.to_owned() + pointer);
    }
}

pub fn print_rules(rules: &[RuleCount]) {
    for rule in rules {
        let severity = if rule.severity == Severity::Error { "error" } else { "warning" };
        println!("  {:<24} {severity:<8} {:>9} {:>6.1} %", rule.rule, rule.rows, 100.0 * rule.share);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn args(file: &Path, reading: Option<&str>) -> LintArgs {
        let (file, reading) = (file.to_owned(), reading.map(str::to_owned));
        let with = ModelArgs { model: None, template: None, max_seq_len: 2048, validation_file: None };
        LintArgs { file, reading, structure: false, findings: 1, json: false, with }
    }

    #[test]
    fn with_a_model_rows_are_looked_at_as_tokens() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.jsonl");
        std::fs::write(&path, "{\"prompt\": \"q\", \"completion\": \"a\"}\n").unwrap();
        let mut asked = args(&path, None);
        asked.with.model = Some(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/tiny-chat"));
        run(&asked).unwrap();
        asked.with.max_seq_len = 8;
        let error = run(&asked).unwrap_err();
        assert!(error.to_string().contains("no training row is left"), "{error}");
        asked.with = ModelArgs { template: Some("vicuna".into()), max_seq_len: 64, ..asked.with };
        assert!(run(&asked).unwrap_err().to_string().contains("template"));
    }

    #[test]
    fn a_file_is_judged_as_its_upload_would_be() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.csv");
        std::fs::write(&path, "question,reply\nq,a\n").unwrap();
        let error = run(&args(&path, Some("{\"layout\": \"csv\"}"))).unwrap_err();
        assert!(error.to_string().contains("1 of 1 row cannot be used"), "{error}");
        let columns = "{\"layout\": \"csv\", \"columns\": {\"prompt\": \"question\", \"completion\": \"reply\"}}";
        run(&args(&path, Some(columns))).unwrap();
        assert!(run(&args(&path, Some("{\"disabled_rules\": [\"x\"]}"))).is_err());
        assert!(run(&args(&folder.path().join("none"), None)).is_err());
    }
}
