#![allow(clippy::unwrap_used, clippy::expect_used)]

use serde_json::Value;

use super::*;

fn cases() -> Vec<Value> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/eval/rouge.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// Compares all four scores of every case with rouge-score's, to 1e-9.
fn check(kind: &str, words: RougeWords) {
    let mut compared = 0;
    for case in cases() {
        let (reference, prediction) = (case["reference"].as_str().unwrap(), case["prediction"].as_str().unwrap());
        let rouge = Rouge::new(words, reference, prediction);
        for (name, measure) in [
            ("rouge1", RougeMeasure::N(1)),
            ("rouge2", RougeMeasure::N(2)),
            ("rougeL", RougeMeasure::L),
            ("rougeLsum", RougeMeasure::Lsum),
        ] {
            let found = rouge.score(measure);
            let expected = |part: &str| case[kind][name][part].as_f64().unwrap();
            for (part, value) in [("precision", found.precision), ("recall", found.recall), ("f1", found.f1)] {
                let wanted = expected(part);
                assert!((value - wanted).abs() < 1e-9, "{name} {part} of {prediction:?}: {value}, not {wanted}");
                compared += 1;
            }
        }
    }
    assert_eq!(compared, 57 * 4 * 3);
}

#[test]
fn plain_scores_equal_those_of_rouge_score() {
    check("plain", RougeWords::Ascii);
}

#[test]
fn stemmed_scores_equal_those_of_rouge_score() {
    check("stemmed", RougeWords::Stemmed);
}

#[test]
fn closed_forms() {
    let n = |n, reference, prediction| Rouge::new(RougeWords::Ascii, reference, prediction).score(RougeMeasure::N(n));
    // Three of four words, and two of three pairs of words.
    assert_eq!(n(1, "a b c d", "a b c"), Prf { precision: 1.0, recall: 0.75, f1: 6.0 / 7.0 });
    assert_eq!(n(2, "a b c d", "a b c").recall, 2.0 / 3.0);
    // Repetition earns nothing: "a" is matched once.
    assert_eq!(n(1, "a b", "a a a").precision, 1.0 / 3.0);
    assert_eq!(rouge_l("a b c", "c b a").f1, 1.0 / 3.0);
    assert_eq!(rouge_l("", "a"), Prf::default());
    assert_eq!(n(3, "a b", "a b"), Prf::default());
}
