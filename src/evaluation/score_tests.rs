#![allow(clippy::unwrap_used, clippy::expect_used)]

use serde_json::Value;

use super::*;

fn cases() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/eval/sacrebleu.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// `tests/python/sacrebleu_cases.py` made the cases.
#[test]
fn bleu_and_chrf_equal_those_of_sacrebleu() {
    let cases = cases();
    let metrics = [TextMetric::Bleu, TextMetric::Chrf];
    let mut corpus = CorpusScores::default();
    for case in cases["rows"].as_array().unwrap() {
        let (reference, prediction) = (case["reference"].as_str().unwrap(), case["prediction"].as_str().unwrap());
        let row = score(&metrics, reference, prediction);
        corpus.add(&row);
        let scores = row.scores;
        for (metric, name) in metrics.iter().zip(["bleu", "chrf"]) {
            let (found, expected) = (scores[metric], case[name].as_f64().unwrap());
            assert!((found - expected).abs() < 1e-9, "{name} of {prediction:?}: {found}, not {expected}");
        }
    }
    assert!(corpus.rows() >= 30);
    let figures = corpus.figures();
    for (metric, name) in metrics.iter().zip(["bleu", "chrf"]) {
        let (found, expected) = (figures[metric].corpus.unwrap(), cases["corpus"][name].as_f64().unwrap());
        assert!((found - expected).abs() < 1e-9, "{name} of all: {found}, not {expected}");
    }
}

#[test]
fn a_right_answer_scores_full_marks_everywhere() {
    let all: Vec<TextMetric> = TextMetric::all().filter(|metric| !metric.needs_encoder()).collect();
    let text = r#"{"colours": ["red", "green", "blue"], "how many": 3}"#;
    let scores = score(&all, text, text).scores;
    assert_eq!(scores.len(), all.len());
    for (metric, value) in scores {
        let most = if matches!(metric, TextMetric::Bleu | TextMetric::Chrf) { 100.0 } else { 1.0 };
        assert!((value - most).abs() < 1e-9, "{metric}: {value}");
    }
}

#[test]
fn json_is_asked_of_an_answer_only_where_the_reference_is_json() {
    let valid = |reference, prediction| {
        score(&[TextMetric::JsonValid], reference, prediction).scores.get(&TextMetric::JsonValid).copied()
    };
    assert_eq!(valid("[1, 2]", " {\"a\": 1}\n"), Some(1.0));
    assert_eq!(valid("{}", "{'a': 1}"), Some(0.0));
    assert_eq!(valid("{}", "```json\n{}\n```"), Some(0.0));
    assert_eq!((valid("42", "42"), valid("[see below]", "[]")), (None, None));
}

#[test]
fn a_mean_is_over_the_rows_that_a_metric_speaks_of() {
    let mut corpus = CorpusScores::default();
    let metrics = [TextMetric::ExactMatch, TextMetric::JsonValid];
    corpus.add(&score(&metrics, "[]", "[]"));
    corpus.add(&score(&metrics, "yes ", "yes"));
    corpus.add(&score(&metrics, "yes", "no"));
    let figures = corpus.figures();
    let json = CorpusFigure { mean: 1.0, rows: 1, corpus: None };
    assert_eq!(figures[&TextMetric::JsonValid], json);
    assert_eq!((figures[&TextMetric::ExactMatch].mean, corpus.rows()), (2.0 / 3.0, 3));
}
