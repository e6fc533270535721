#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{collections::BTreeSet, fs, path::PathBuf};

use finetuned_protocol::ids::FileId;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;

/// Files on a disk, and what becomes of them.
struct Bench {
    folder: TempDir,
    files: Vec<(PathBuf, ReadingSpec, f64)>,
    seed: u32,
}

/// What came out.
struct Made {
    applied: Applied,
    training: String,
    held_out: String,
}

impl Made {
    /// A field of every training row.
    fn column(&self, name: &str) -> Vec<String> {
        column(&self.training, name)
    }
}

fn column(lines: &str, name: &str) -> Vec<String> {
    let value = |line: &str| serde_json::from_str::<Value>(line).unwrap()[name].as_str().unwrap().to_owned();
    lines.lines().map(value).collect()
}

impl Bench {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), files: Vec::new(), seed: 0 }
    }

    fn with(mut self, text: impl AsRef<[u8]>, weight: f64) -> Self {
        let path = self.folder.path().join(self.files.len().to_string());
        fs::write(&path, text).unwrap();
        self.files.push((path, ReadingSpec::default(), weight));
        self
    }

    fn read_as(mut self, reading: Value) -> Self {
        self.files.last_mut().unwrap().1 = serde_json::from_value(reading).unwrap();
        self
    }

    fn seed(mut self, seed: u32) -> Self {
        self.seed = seed;
        self
    }

    fn run(&self, steps: Value) -> Result<Made, StepError> {
        let steps: Vec<PreparationStep> = serde_json::from_value(steps).unwrap();
        let source = |(path, reading, weight): &'_ (PathBuf, ReadingSpec, f64)| {
            let bytes = fs::metadata(path).unwrap().len();
            let (file_id, sha256) = (FileId::generate(), String::new());
            let record = SourceRecord {
                file_id,
                sha256,
                bytes,
                weight: *weight,
                rows_in: 0,
                left_by_rule: Default::default(),
                training_rows: 0,
                held_out_rows: 0,
            };
            (path.clone(), reading.clone(), record)
        };
        let files: Vec<_> = self.files.iter().map(source).collect();
        let sources: Vec<_> =
            files.iter().map(|(path, reading, record)| StepSource { path, reading, record: record.clone() }).collect();
        let plan = StepPlan { sources: &sources, steps: &steps, seed: self.seed, tokenizer: None, most_bytes: 1 << 20 };
        let (training, held_out) = (self.folder.path().join("training"), self.folder.path().join("held_out"));
        let _ = fs::remove_file(&held_out);
        let applied = apply_steps(&plan, &training, &held_out, &mut |_, _| ControlFlow::Continue(()))?;
        let text = |path| fs::read_to_string(path).unwrap_or_default();
        Ok(Made { applied, training: text(training), held_out: text(held_out) })
    }
}

fn pairs(count: usize) -> String {
    (0..count)
        .map(|n| json!({"prompt": format!("What is {n}?"), "completion": n.to_string()}).to_string() + "\n")
        .collect()
}

#[test]
fn rows_keep_all_their_fields_under_the_names_of_their_format() {
    let csv = "question,reply,source\nWhat is red?,A colour.,web\n";
    let columns = json!({"columns": {"prompt": "question", "completion": "reply"}, "layout": "csv"});
    let array = r#"[{"prompt": "é", "completion": "b",
        "n": 0.10, "deep": {"z": 1, "a": [null, true]}}]"#;
    let made = Bench::new().with(csv, 1.0).read_as(columns).with(array, 1.0).run(json!([])).unwrap();
    assert_eq!(
        made.training,
        "{\"prompt\":\"What is red?\",\"completion\":\"A colour.\",\"source\":\"web\"}\n\
         {\"prompt\":\"é\",\"completion\":\"b\",\"n\":0.1,\"deep\":{\"z\":1,\"a\":[null,true]}}\n"
    );
    let reading = serde_json::to_value(&made.applied.reading).unwrap();
    assert_eq!(reading, json!({"layout": "jsonl", "format": "prompt_completion"}));
    assert_eq!((made.applied.training_rows, made.applied.held_out_rows), (2, 0));
}

#[test]
fn equal_rows_leave_whatever_their_spelling_and_near_ones_where_asked() {
    let long = |word: &str| format!("one two three four five six seven eight nine ten eleven twelve thirteen {word}");
    let row = |prompt: &str, answer: &str| json!({"prompt": prompt, "completion": answer}).to_string() + "\n";
    let text = row("a", &long("last"))
        + "{\"completion\": \"x\", \"prompt\": \"b\"}\n"
        + &row("b", "x")
        + &row("a", &long("final"))
        + &row("c", "x");
    let bench = Bench::new().with(text, 1.0);
    let made = bench.run(json!([{"type": "deduplicate"}])).unwrap();
    assert_eq!(made.column("prompt"), ["a", "b", "a", "c"]);
    let made = bench.run(json!([{"type": "deduplicate", "near": true}])).unwrap();
    assert_eq!(made.column("prompt"), ["a", "b", "c"]);
    let StepRecord { rows_in, rows_out, left_by_rule, .. } = &made.applied.steps[0];
    let left = json!({"duplicate_row": 1, "near_duplicate": 1});
    assert_eq!((*rows_in, *rows_out, serde_json::to_value(left_by_rule).unwrap()), (5, 3, left));
}

#[test]
fn a_shuffle_keeps_every_row_and_follows_from_the_seed() {
    let order = |seed: u32| {
        let made = Bench::new().with(pairs(500), 1.0).seed(seed).run(json!([{"type": "shuffle"}])).unwrap();
        made.column("completion")
    };
    let (first, again, other) = (order(1), order(1), order(2));
    assert_eq!(first, again);
    assert_ne!(first, other);
    let unsorted: Vec<String> = (0..500).map(|n| n.to_string()).collect();
    assert_ne!(first, unsorted);
    assert_eq!(first.iter().collect::<BTreeSet<_>>(), unsorted.iter().collect());
}

#[test]
fn weights_say_how_often_a_row_comes() {
    let count = |weight: f64| {
        let other = "{\"prompt\": \"other\", \"completion\": \"one\"}\n";
        let made = Bench::new().with(pairs(1000), weight).with(other, 1.0).run(json!([{"type": "shuffle"}])).unwrap();
        let prompts = made.column("prompt");
        assert_eq!(prompts.iter().filter(|prompt| *prompt == "other").count(), 1);
        assert_eq!(prompts.len() as u64, made.applied.training_rows);
        assert_eq!(prompts.len() as u64 - 1, made.applied.sources[0].training_rows);
        (prompts.len() - 1, prompts.iter().collect::<BTreeSet<_>>().len() - 1)
    };
    assert_eq!(count(1.0), (1000, 1000));
    assert_eq!(count(2.0), (2000, 1000));
    // 500 is expected, with a standard deviation of 16.
    let (half, different) = count(0.5);
    assert!((420..580).contains(&half) && half == different, "{half} {different}");
    assert_eq!(count(2.5), (2000 + half, 1000));
}

#[test]
fn files_that_do_not_go_together_are_refused() {
    let chat =
        json!({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}).to_string();
    let Err(StepError::Refused { blame, message }) = Bench::new().with(pairs(2), 1.0).with(chat, 1.0).run(json!([]))
    else {
        panic!("two formats went together");
    };
    assert_eq!(blame, Blame::Source(1));
    assert!(message.contains("holds chat rows") && message.contains("prompt_completion rows"), "{message}");
    let broken = pairs(1) + "{\"prompt\": \"a\", \"completion\": \"\"}\nno json\n";
    let Err(StepError::Rows { source_index, findings, total }) = Bench::new().with(broken, 1.0).run(json!([])) else {
        panic!("broken rows went through");
    };
    assert_eq!((source_index, total, findings[0].line, findings[1].line), (0, 2, 2, 3));
    let empty = Bench::new().with("", 1.0).run(json!([]));
    assert!(matches!(empty, Err(StepError::Refused { blame: Blame::Sources, .. })));
    let much = Bench::new().with(pairs(30_000), 1.0).run(json!([]));
    assert!(
        matches!(much, Err(StepError::Refused { blame: Blame::Sources, message }) if message.contains("1048576 bytes"))
    );
}

fn lines(count: usize, row: impl Fn(usize) -> Value) -> String {
    (0..count).map(|n| row(n).to_string() + "\n").collect()
}

#[test]
fn rows_leave_by_the_rules_they_break_also_those_that_cannot_be_read() {
    let row = |answer: &str| json!({"prompt": "What?", "completion": answer}).to_string() + "\n";
    let text = row("fine") + &row("ask me@example.org") + &row("") + "no json\n" + &row("x");
    let bench = Bench::new().with(text, 1.0);
    let rules = json!(["email_address", "answer_empty", "json_invalid", "answer_short"]);
    let made = bench.run(json!([{"type": "drop", "rules": rules}])).unwrap();
    assert_eq!(made.column("completion"), ["fine"]);
    let left = |left: &LeftByRule| serde_json::to_value(left).unwrap();
    assert_eq!(made.applied.sources[0].rows_in, 5);
    assert_eq!(left(&made.applied.sources[0].left_by_rule), json!({"answer_empty": 1, "json_invalid": 1}));
    assert_eq!(left(&made.applied.steps[0].left_by_rule), json!({"email_address": 1, "answer_short": 1}));
    let refused = bench.run(json!([{"type": "drop", "rules": ["json_invalid"]}]));
    assert!(matches!(refused, Err(StepError::Rows { total: 1, .. })));
    // A rule that the upload switched off is one that rows can be dropped by all the same.
    let lenient = Bench::new().with(row("") + &row("fine"), 1.0).read_as(json!({"disabled_rules": ["answer_empty"]}));
    assert_eq!(lenient.run(json!([])).unwrap().applied.training_rows, 2);
    let made = lenient.run(json!([{"type": "drop", "rules": ["answer_empty"]}])).unwrap();
    assert_eq!(made.column("completion"), ["fine"]);
    let Err(StepError::Refused { blame, message }) = bench.run(json!([
        {"type": "drop", "rules": ["answer_empty", "json_invalid"]},
        {"type": "filter_length", "unit": "characters", "min": 1000},
    ])) else {
        panic!("nothing was left, and nothing was said");
    };
    assert_eq!((blame, message.contains("of 3 before it")), (Blame::Step { index: 1, field: None }, true), "{message}");
}

#[test]
fn private_data_is_redacted_wherever_it_stands_in_a_row() {
    let text = json!({
        "messages": [{"role": "user", "content": "I am me@example.org"}, {"role": "assistant", "content": "Hello."}],
        "seen": {"card": ["4111 1111 1111 1111"]},
    });
    let bench = Bench::new().with(text.to_string(), 1.0);
    let made = bench.run(json!([{"type": "redact"}])).unwrap();
    let row: Value = serde_json::from_str(&made.training).unwrap();
    assert_eq!(row["messages"][0]["content"], "I am [email_address]");
    assert_eq!(row["seen"]["card"][0], "[card_number]");
    let made = bench.run(json!([{"type": "redact", "kinds": ["card_number"]}])).unwrap();
    assert!(made.training.contains("me@example.org") && !made.training.contains("4111"));
}

#[test]
fn lengths_count_all_texts_of_a_row_and_caps_the_first_rows_of_a_source() {
    let text = lines(6, |n| json!({"prompt": "é".repeat(n), "completion": "ab", "site": n % 2}));
    let bench = Bench::new().with(&text, 1.0).with(lines(1, |_| json!({"prompt": "é", "completion": "other"})), 1.0);
    let made = bench.run(json!([{"type": "filter_length", "unit": "characters", "min": 3, "max": 5}])).unwrap();
    assert_eq!(made.column("prompt"), ["é", "éé", "ééé"]);
    let left = serde_json::to_value(&made.applied.steps[0].left_by_rule).unwrap();
    assert_eq!(left, json!({"too_long": 3, "too_short": 1}));
    let made = bench.run(json!([{"type": "cap_per_source", "by": "file", "rows": 2}])).unwrap();
    assert_eq!(made.column("completion"), ["ab", "ab", "other"]);
    let bench = Bench::new().with(&text, 1.0);
    let cap = json!([{"type": "cap_per_source", "by": "column", "column": "site", "rows": 1}]);
    assert_eq!(bench.run(cap).unwrap().column("prompt"), ["", "é"]);
    let cap = json!([{"type": "shuffle"}, {"type": "cap_per_source", "by": "column", "column": "web", "rows": 1}]);
    let Err(StepError::Refused { blame, message }) = bench.run(cap) else { panic!("a column was made up") };
    assert_eq!(blame, Blame::Step { index: 1, field: Some("column") });
    assert!(message.contains("no field `web`; it has `prompt`, `completion`, `site`"), "{message}");
}

#[test]
fn a_split_by_hash_holds_out_its_share_and_no_row_is_on_both_sides() {
    let text = lines(200, |n| json!({"prompt": format!("{}", n / 2), "completion": "x", "label": n % 10 == 0}));
    let bench = Bench::new().with(&text, 1.0).seed(7);
    let split = json!([{"type": "split", "by": "hash", "held_out": 0.1}]);
    let made = bench.run(split.clone()).unwrap();
    let side = |lines: &str| column(lines, "prompt").into_iter().collect::<BTreeSet<_>>();
    assert_eq!((made.applied.training_rows, made.applied.held_out_rows), (180, 20));
    assert!(side(&made.training).is_disjoint(&side(&made.held_out)), "equal rows were divided");
    assert_eq!(made.applied.sources[0].held_out_rows, 20);
    assert_eq!(bench.run(split).unwrap().held_out, made.held_out);
    let stratified = json!([{"type": "split", "by": "hash", "held_out": 0.2, "stratify_by": "label"}]);
    let made = bench.run(stratified).unwrap();
    let rare = |lines: &str| lines.matches("\"label\":true").count();
    assert_eq!((rare(&made.training), rare(&made.held_out), made.applied.held_out_rows), (16, 4, 40));
    let alike = Bench::new().with(lines(5, |_| json!({"prompt": "a", "completion": "b"})), 1.0);
    let refused = alike.run(json!([{"type": "split", "by": "hash", "held_out": 0.5}]));
    assert!(matches!(refused, Err(StepError::Refused { blame: Blame::Step { index: 0, field: None }, .. })));
}

#[test]
fn a_split_by_group_keeps_groups_whole_and_one_by_time_holds_out_what_is_later() {
    let text = lines(100, |n| {
        let at = format!("2026-01-{:02}T00:00:00Z", n % 28 + 1);
        json!({"prompt": format!("{n}"), "completion": "x", "user": format!("u{}", n % 13), "at": at})
    });
    let bench = Bench::new().with(&text, 1.0);
    let made = bench.run(json!([{"type": "split", "by": "group", "column": "user", "held_out": 0.25}])).unwrap();
    let users = |lines: &str| column(lines, "user").into_iter().collect::<BTreeSet<_>>();
    assert!(users(&made.training).is_disjoint(&users(&made.held_out)), "a group was divided");
    assert!((15..=25).contains(&made.applied.held_out_rows), "{}", made.applied.held_out_rows);
    let made = bench.run(json!([{"type": "split", "by": "time", "column": "at", "from": "2026-01-20"}])).unwrap();
    assert!(column(&made.training, "at").iter().all(|at| at.as_str() < "2026-01-20"));
    assert!(column(&made.held_out, "at").iter().all(|at| at.as_str() >= "2026-01-20"));
    for (step, field, words) in [
        (json!({"type": "split", "by": "time", "column": "at", "from": "2027-01-01"}), None, "2027-01-01 or later"),
        (
            json!({"type": "split", "by": "time", "column": "user", "from": "2026-01-01"}),
            Some("column"),
            "neither a date",
        ),
        (
            json!({"type": "split", "by": "time", "column": "when", "from": "2026-01-01"}),
            Some("column"),
            "no field `when`",
        ),
        (json!({"type": "split", "by": "time", "column": "at", "from": "2025-01-01"}), None, "no row to train on"),
    ] {
        let Err(StepError::Refused { blame, message }) = bench.run(json!([step])) else { panic!("{step} passed") };
        assert_eq!(blame, Blame::Step { index: 0, field });
        assert!(message.contains(words), "{message}");
    }
}

#[test]
fn held_out_rows_come_once_whatever_the_weight() {
    let bench = Bench::new().with(pairs(100), 3.0);
    let made = bench.run(json!([{"type": "split", "by": "hash", "held_out": 0.2}, {"type": "shuffle"}])).unwrap();
    assert_eq!((made.applied.training_rows, made.applied.held_out_rows), (240, 20));
    let text = made.column("completion");
    assert!(text.chunks(80).any(|chunk| chunk.iter().collect::<BTreeSet<_>>().len() < 80), "copies were not shuffled");
}
