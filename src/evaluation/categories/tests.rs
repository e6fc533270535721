#![allow(clippy::unwrap_used)]

use std::path::PathBuf;

use serde::Deserialize;

use super::*;

/// `tests/python/category_examples.py` wrote them.
#[derive(Deserialize)]
struct Example {
    category: ErrorCategory,
    label: bool,
    unseen: bool,
    prompt: String,
    reference: String,
    answer: String,
    #[serde(default = "ended")]
    ended: bool,
}

fn ended() -> bool {
    true
}

fn checkout(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

fn examples() -> Vec<Example> {
    let text = std::fs::read_to_string(checkout("tests/fixtures/eval/categories.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The words of no training rows are known here.
fn categoriser(spelling: &Spelling) -> Categoriser<'_> {
    Categoriser::new(&EvaluationSpec::default(), Some((spelling, KnownWords::new()))).unwrap()
}

#[test]
fn each_category_is_found_with_precision_and_recall_of_nine_tenths() {
    let spelling = Spelling::open(&checkout(".runtime/dictionaries")).unwrap();
    let categoriser = categoriser(&spelling);
    let examples = examples();
    let mut faults = Vec::new();
    for category in ErrorCategory::ALL {
        for unseen in [false, true] {
            let (mut right, mut missed, mut wrong) = (0, 0, 0);
            for example in examples.iter().filter(|example| example.category == *category && example.unseen == unseen) {
                let Example { prompt, reference, answer, ended, .. } = example;
                let found = categoriser.has(*category, &Judged { prompt, reference, answer, ended: *ended });
                match (example.label, found) {
                    (true, true) => right += 1,
                    (true, false) => missed += 1,
                    (false, true) => wrong += 1,
                    (false, false) => {}
                }
                if example.label != found && !unseen {
                    println!("{category}, {}: {answer:?}", example.label);
                }
            }
            assert!(right + missed >= 20, "{category}");
            let (precision, recall) = (share(right, right + wrong), share(right, right + missed));
            println!("{category}, unseen {unseen}: precision {precision:.3}, recall {recall:.3}");
            if precision < 0.9 || recall < 0.9 {
                faults.push(format!("{category}, unseen {unseen}: precision {precision:.3}, recall {recall:.3}"));
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

fn share(part: u32, whole: u32) -> f64 {
    f64::from(part) / f64::from(whole.max(1))
}

#[test]
fn every_category_has_fifty_examples_of_each_label() {
    let examples = examples();
    for category in ErrorCategory::ALL {
        for label in [true, false] {
            let count =
                examples.iter().filter(|example| example.category == *category && example.label == label).count();
            assert!(count >= 50, "{category}, {label}: {count}");
        }
    }
}

#[test]
fn thresholds_decide() {
    let mut spec = EvaluationSpec::default();
    let long =
        Judged { prompt: "p", reference: "one two three four five six", answer: &"word ".repeat(17), ended: true };
    let has =
        |spec: &EvaluationSpec, category, row: &Judged<'_>| Categoriser::new(spec, None).unwrap().has(category, row);
    assert!(has(&spec, ErrorCategory::TooLong, &long));
    spec.thresholds.too_long_ratio = 3.0;
    assert!(!has(&spec, ErrorCategory::TooLong, &long));
    let numbers = Judged { prompt: "p", reference: "none", answer: "It was 3 or 4.", ended: true };
    spec.thresholds.unsupported_numbers = 3;
    assert!(!has(&spec, ErrorCategory::HallucinatedNumber, &numbers));
    spec.thresholds.unsupported_numbers = 2;
    assert!(has(&spec, ErrorCategory::HallucinatedNumber, &numbers));
}

#[test]
fn a_word_of_the_training_rows_is_not_misspelled() {
    let spelling = Spelling::open(&checkout(".runtime/dictionaries")).unwrap();
    let row = Judged { prompt: "Which oil?", reference: "The thin one.", answer: "Use the plimsy oil.", ended: true };
    assert!(categoriser(&spelling).has(ErrorCategory::Misspelled, &row));
    let mut known = KnownWords::new();
    add_known_words("A Plimsy bottle", &mut known);
    let knowing = Categoriser::new(&EvaluationSpec::default(), Some((&spelling, known))).unwrap();
    assert!(!knowing.has(ErrorCategory::Misspelled, &row));
}
