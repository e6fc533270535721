//! `finetuned score`: predictions against references, on this machine alone.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
};

use anyhow::{Context, anyhow, bail};
use clap::Args;
use finetuned_evaluation::{CorpusScores, RowScores, score};
use finetuned_protocol::text_metric::{TextMetric, parse_metrics};
use serde::Deserialize;

use crate::format;

/// Rows held in memory.
const ROWS_AT_ONCE: usize = 4096;

#[derive(Debug, Args)]
pub struct ScoreArgs {
    /// JSON lines with `reference`, `prediction` and perhaps `prompt`, each a text.
    file: PathBuf,
    /// Names of metrics with commas between them, or `all` [default: a choice of twelve].
    #[arg(long, env = "FINETUNED_SCORE_METRICS", value_name = "NAMES", value_parser = named_metrics)]
    metrics: Option<Metrics>,
    /// Print JSON in place of a table.
    #[arg(long, env = "FINETUNED_SCORE_JSON", value_parser = clap::builder::FalseyValueParser::new())]
    json: bool,
}

#[derive(Debug, Clone)]
struct Metrics(Vec<TextMetric>);

fn named_metrics(text: &str) -> Result<Metrics, String> {
    if text.trim() == "all" {
        return Ok(Metrics(TextMetric::all().filter(|metric| !metric.needs_encoder()).collect()));
    }
    let metrics = parse_metrics(text.split(',').map(str::trim).filter(|name| !name.is_empty()))?;
    match metrics.iter().find(|metric| metric.needs_encoder()) {
        Some(metric) => Err(format!("`{metric}` takes a text encoder; `finetuned-engine embed` compares pairs by one")),
        None => Ok(Metrics(metrics)),
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    #[serde(default, rename = "prompt")]
    _prompt: Option<String>,
    reference: String,
    prediction: String,
}

pub fn run(args: &ScoreArgs) -> anyhow::Result<()> {
    let metrics = args.metrics.as_ref().map_or(&TextMetric::DEFAULT[..], |metrics| &metrics.0);
    let scores = scores_of(&args.file, metrics)?;
    if args.json {
        let report = serde_json::json!({"rows": scores.rows(), "metrics": scores.figures()});
        println!("{}", serde_json::to_string_pretty(&report)?);
        return Ok(());
    }
    println!("{}", format::count(scores.rows(), "row"));
    table(&scores).iter().for_each(|line| println!("{line}"));
    Ok(())
}

fn scores_of(path: &Path, metrics: &[TextMetric]) -> anyhow::Result<CorpusScores> {
    let file = File::open(path).with_context(|| format!("while opening {}", path.display()))?;
    let mut scores = CorpusScores::default();
    let mut rows = Vec::with_capacity(ROWS_AT_ONCE);
    for (index, line) in BufReader::new(file).lines().enumerate() {
        let number = index + 1;
        let line = line.with_context(|| format!("{}, line {number}", path.display()))?;
        if line.trim().is_empty() {
            continue;
        }
        rows.push(serde_json::from_str(&line).map_err(|error| refused(path, number, &error))?);
        if rows.len() == ROWS_AT_ONCE {
            add_all(&mut scores, metrics, &rows);
            rows.clear();
        }
    }
    add_all(&mut scores, metrics, &rows);
    if scores.rows() == 0 {
        bail!("{} has no row; each line is {{\"reference\": …, \"prediction\": …}}", path.display());
    }
    Ok(scores)
}

/// Scores rows on all cores; added in their order, so that the figures do not depend on the number of cores.
fn add_all(scores: &mut CorpusScores, metrics: &[TextMetric], rows: &[Row]) {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let part = rows.len().div_ceil(threads).max(1);
    let score_part = &|rows: &[Row]| -> Vec<RowScores> {
        rows.iter().map(|row| score(metrics, &row.reference, &row.prediction)).collect()
    };
    std::thread::scope(|scope| {
        let parts: Vec<_> = rows.chunks(part).map(|rows| scope.spawn(move || score_part(rows))).collect();
        for part in parts {
            match part.join() {
                Ok(part) => part.iter().for_each(|row| scores.add(row)),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
    });
}

fn refused(path: &Path, number: usize, error: &serde_json::Error) -> anyhow::Error {
    // serde counts from the start of the text that it was given, which is one line.
    let why = error.to_string();
    let why = why.split(" at line ").next().unwrap_or_default();
    let wanted = "a row is {\"prompt\": …, \"reference\": …, \"prediction\": …} with texts; `prompt` may be left out";
    anyhow!("{}, line {number}, column {}: {why}; {wanted}", path.display(), error.column())
}

fn table(scores: &CorpusScores) -> Vec<String> {
    let heading = ["metric", "mean", "rows", "corpus"].map(str::to_owned).to_vec();
    let rows = scores.figures().into_iter().map(|(metric, figure)| {
        let corpus = figure.corpus.map_or(String::new(), |value| format!("{value:.4}"));
        vec![metric.to_string(), format!("{:.4}", figure.mean), figure.rows.to_string(), corpus]
    });
    format::table(&std::iter::once(heading).chain(rows).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    fn written(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    #[test]
    fn rows_become_a_table() {
        let file = written(
            "{\"reference\": \"a b\", \"prediction\": \"a b\"}\n\n{\"prompt\": \"p\", \"reference\": \"a b\", \"prediction\": \"c\"}\n",
        );
        let metrics = named_metrics("rouge_1, chrf").unwrap().0;
        let lines = table(&scores_of(file.path(), &metrics).unwrap());
        assert_eq!(
            lines,
            ["metric      mean  rows   corpus", "rouge_1   0.5000     2", "chrf     50.0000     2  54.3478",]
        );
    }

    #[test]
    fn a_bad_row_is_refused_by_line_and_field() {
        let refusal = |text: &str| format!("{:#}", scores_of(written(text).path(), &[TextMetric::Bleu]).unwrap_err());
        let good = "{\"reference\": \"a\", \"prediction\": \"b\"}\n";
        let unknown = refusal(&format!("{good}{{\"refrence\": \"a\"}}\n"));
        assert!(unknown.contains(", line 2, column ") && unknown.contains("unknown field `refrence`"), "{unknown}");
        assert!(refusal("{\"reference\": \"a\"}").contains("missing field `prediction`"));
        assert!(refusal("{\"reference\": 1, \"prediction\": \"b\"}").contains("expected a string"));
        assert!(refusal("\n").contains("has no row"));
    }

    #[test]
    fn an_unknown_metric_is_refused_by_name() {
        assert!(named_metrics("rouge_l,meteor").unwrap_err().contains("no metric is called `meteor`"));
        assert_eq!(named_metrics("all").unwrap().0.len(), TextMetric::all().count() - 2);
        assert!(named_metrics("bleu,embedding_cosine").unwrap_err().contains("finetuned-engine embed"));
    }
}
