//! Judges a job's answers once they are there. Nothing here can fail the job: what could not be judged, the report says.

use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    path::Path,
};

use finetuned_evaluation::{Aids, KnownWords, RowSimilarity, Spelling, add_known_words, assess};
use finetuned_protocol::{engine::TRAIN_DATA, evaluation::AnswersReport, evaluation_spec::EvaluationSpec};
use serde_json::Value;
use tokio::task::spawn_blocking;

use crate::{attempt::Attempt, error::AttemptError, folder::AttemptFolder, similarity::similarities};

/// Scores and categories of both models' answers, and how the two compare.
///
/// # Errors
/// The lease is lost, or the worker ends.
pub async fn assessed(
    attempt: &Attempt,
    folder: &AttemptFolder,
    spec: &EvaluationSpec,
    report: AnswersReport,
) -> Result<AnswersReport, AttemptError> {
    let asked = spec.metrics.iter().any(|metric| metric.needs_encoder());
    let similarities = match asked && !report.answers.is_empty() {
        true => {
            let asking = similarities(&attempt.options, folder.path(), &report);
            Some(attempt.unless_interrupted(async { Ok(asking.await) }).await?)
        }
        false => None,
    };
    let (similarities, trouble) = match similarities.transpose() {
        Ok(similarities) => (similarities, None),
        Err(error) => (None, Some(format!("embedding_cosine, embedding_token_f1: {error}"))),
    };
    let (spec, seed) = (spec.clone(), u64::from(attempt.lease.job.seed));
    let (data, dictionary) = (folder.join(TRAIN_DATA), attempt.options.dictionary.clone());
    let unjudged = report.clone();
    let judging = spawn_blocking(move || judge(report, &spec, (&data, dictionary.as_deref(), similarities), seed));
    let mut judged = judging.await.unwrap_or_else(|error| {
        tracing::error!(%error, "judging the answers broke off");
        because(unjudged, "a fault of this worker".to_owned())
    });
    judged.not_judged.extend(trouble);
    Ok(judged)
}

fn judge(
    mut report: AnswersReport,
    spec: &EvaluationSpec,
    (data, dictionary, similarities): (&Path, Option<&Path>, Option<Vec<RowSimilarity>>),
    seed: u64,
) -> AnswersReport {
    let opened = dictionary.map(Spelling::open).transpose();
    let (spelling, trouble) = match opened {
        Ok(spelling) => (spelling, None),
        Err(error) => (None, Some(error.to_string())),
    };
    let known = known_words(data).unwrap_or_else(|error| {
        tracing::warn!(%error, "the words of the training rows are not known; more words are found misspelled");
        KnownWords::default()
    });
    let aids = Aids { spelling: spelling.as_ref().map(|spelling| (spelling, known)), similarities };
    if let Err(error) = assess(&mut report, spec, aids, seed) {
        return because(report, error.to_string());
    }
    report.not_judged.extend(trouble);
    report
}

fn because(mut report: AnswersReport, why: String) -> AnswersReport {
    report.not_judged.push(format!("metrics and categories: {why}"));
    report
}

/// Words of every text in a dataset, JSON lines or one JSON array.
fn known_words(data: &Path) -> io::Result<KnownWords> {
    let mut known = KnownWords::new();
    for line in BufReader::new(File::open(data)?).lines() {
        match serde_json::from_str::<Value>(&line?) {
            Ok(row) => add_texts(&row, &mut known),
            Err(_) => return whole(data),
        }
    }
    Ok(known)
}

fn whole(data: &Path) -> io::Result<KnownWords> {
    let mut known = KnownWords::new();
    let rows: Value = serde_json::from_reader(BufReader::new(File::open(data)?))?;
    add_texts(&rows, &mut known);
    Ok(known)
}

fn add_texts(value: &Value, known: &mut KnownWords) {
    match value {
        Value::String(text) => add_known_words(text, known),
        Value::Array(values) => values.iter().for_each(|value| add_texts(value, known)),
        Value::Object(fields) => fields.values().for_each(|value| add_texts(value, known)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn words_of_lines_and_of_arrays_are_known() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for text in [
            "{\"a\": \"Zorble\\nthe\", \"n\": 3}\n{\"messages\": [{\"content\": \"quux\"}]}\n",
            "[\n {\"a\": \"zorble the\"},\n {\"a\": [\"quux\"]}\n]",
        ] {
            std::fs::write(file.path(), text).unwrap();
            let mut known: Vec<String> = known_words(file.path()).unwrap().into_iter().collect();
            known.sort();
            assert_eq!(known, ["quux", "the", "zorble"]);
        }
    }

    #[test]
    fn what_cannot_be_judged_is_told() {
        let report = AnswersReport { not_judged: Vec::new(), ..empty() };
        let judged = because(report, "no reason".into());
        assert_eq!(judged.not_judged, ["metrics and categories: no reason"]);
    }

    fn empty() -> AnswersReport {
        let text = serde_json::json!({
            "rows": 0, "max_new_tokens": 1, "base_ended_share": 0.0, "tuned_ended_share": 0.0, "answers": [],
            "rouge_l": {"base": 0.0, "tuned": 0.0, "difference": 0.0, "low": 0.0, "high": 0.0, "confidence": 0.95,
                        "resamples": 1, "seed": 0, "verdict": "no_difference_shown"},
        });
        serde_json::from_value(text).unwrap()
    }
}
