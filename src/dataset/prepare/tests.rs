#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{path::PathBuf, sync::LazyLock};

use finetuned_protocol::spec::TemplateSpec;
use finetuned_weights::ModelSource;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;

/// SmolLM2's tokenizer, of the model that the runtime script brings.
pub(super) fn tokenizer() -> &'static TextTokenizer {
    static TOKENIZER: LazyLock<TextTokenizer> = LazyLock::new(|| {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../.runtime/models/smollm2-135m-instruct.gguf");
        let model = ModelSource::open(Path::new(path)).expect("the runtime script has brought the model");
        model.tokenizer().unwrap()
    });
    &TOKENIZER
}

pub(super) fn spec(template: TemplateSpec) -> PreparationSpec {
    PreparationSpec {
        template,
        max_seq_len: 2048,
        train_on_prompt: false,
        eval_fraction: 0.0,
        split_seed: 0,
        rows: Default::default(),
    }
}

fn jsonl(rows: &[Value]) -> String {
    rows.iter().map(|row| format!("{row}\n")).collect()
}

/// Prepares files of these texts, and sees that a survey of them says the same.
pub(super) fn prepare_texts(
    spec: &PreparationSpec,
    train: &str,
    valid: Option<&str>,
) -> Result<Prepared, PrepareError> {
    let folder = TempDir::new().unwrap();
    let write = |name: &str, text: &str| -> PathBuf {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let train = write("train", train);
    let valid = valid.map(|text| write("valid", text));
    let mut progress = |done, total| {
        assert!(done <= total);
        ControlFlow::Continue(())
    };
    let prepared = prepare(spec, &train, valid.as_deref(), tokenizer(), &mut progress);
    let mut found = Vec::new();
    let add = &mut |_, findings: &[Finding]| found.extend_from_slice(findings);
    let watch = Watch { progress: &mut progress, found: add };
    let surveyed = survey(spec, &train, valid.as_deref(), tokenizer(), watch);
    match (&prepared, surveyed) {
        (Ok(Prepared { facts, dropped, warnings, .. }), Ok(survey)) => {
            assert_eq!((facts, dropped), (&survey.facts, &survey.dropped));
            // Only the survey compares held-out rows with others.
            let alike: Vec<_> = survey.warnings.iter().filter(|finding| finding.rule != "held_out_near").collect();
            assert_eq!(alike, warnings.iter().collect::<Vec<_>>());
            let told = |finding| found.contains(finding);
            assert!(survey.warnings.iter().all(told) && dropped.iter().all(told));
            assert_eq!(survey.formats.valid.is_some(), valid.is_some());
        }
        (Err(error), Err(surveyed)) => assert_eq!(error.to_string(), surveyed.to_string()),
        (prepared, surveyed) => panic!("{prepared:?} but {surveyed:?}"),
    }
    prepared
}

pub(super) fn prepare_rows(spec: &PreparationSpec, rows: &[Value]) -> Result<Prepared, PrepareError> {
    prepare_texts(spec, &jsonl(rows), None)
}

fn chat() -> PreparationSpec {
    spec(TemplateSpec::Chat)
}

pub(super) fn numbered(numbers: impl IntoIterator<Item = u32>) -> Vec<Value> {
    numbers
        .into_iter()
        .map(|n| json!({"prompt": format!("Number {n}?"), "completion": format!("It is {n}.")}))
        .collect()
}

pub(super) fn rules_of(findings: &[Finding]) -> Vec<(u64, &str)> {
    findings.iter().map(|finding| (finding.line, finding.rule.as_str())).collect()
}

#[test]
fn rows_are_split_and_counted() {
    let rows = numbered(0..600);
    let spec = PreparationSpec { eval_fraction: 0.1, ..chat() };
    let prepared = prepare_rows(&spec, &rows).unwrap();
    assert_eq!((prepared.train.len(), prepared.held_out.len()), (540, 60));
    assert_eq!(prepared.held_out_source, HeldOutSource::Split);
    assert!(
        prepared.train.is_sorted_by_key(|row| row.line) && prepared.held_out.is_sorted_by_key(|row| row.encoded.line)
    );
    let mut lines: Vec<u64> =
        prepared.train.iter().chain(prepared.held_out.iter().map(|row| &row.encoded)).map(|row| row.line).collect();
    lines.sort_unstable();
    assert_eq!(lines, (1..=600).collect::<Vec<u64>>());
    let facts = &prepared.facts;
    assert_eq!((facts.train_rows, facts.held_out_rows, facts.truncated_rows, facts.dropped_rows), (540, 60, 0, 0));
    assert_eq!(facts.train_tokens, prepared.train.iter().map(|row| row.ids.len() as u64).sum::<u64>());
    assert_eq!(
        facts.train_supervised_tokens,
        prepared.train.iter().map(|row| row.supervised_tokens() as u64).sum::<u64>()
    );
    assert_eq!(prepare_rows(&spec, &rows).unwrap(), prepared, "the same again");
}

#[test]
fn the_layout_does_not_change_the_split() {
    let rows = numbered(0..50);
    let spec = PreparationSpec { eval_fraction: 0.2, ..chat() };
    let texts = |prepared: Prepared| prepared.held_out.into_iter().map(|row| row.prompt_text).collect::<Vec<_>>();
    let from_lines = texts(prepare_rows(&spec, &rows).unwrap());
    let array = serde_json::to_string_pretty(&rows).unwrap();
    assert_eq!(texts(prepare_texts(&spec, &array, None).unwrap()), from_lines);
}

#[test]
fn held_out_rows_can_be_asked_and_judged() {
    let rows = [
        json!({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"}]}),
        json!({"messages": [
            {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Yes?"}, {"role": "user", "content": "Bye"},
            {"role": "assistant", "content": "Ciao"},
        ]}),
    ];
    let train = jsonl(&[json!({"prompt": "x", "completion": "y"})]);
    let prepared = prepare_texts(&chat(), &train, Some(&jsonl(&rows))).unwrap();
    assert_eq!(prepared.held_out_source, HeldOutSource::ValidationFile);
    let [first, second] = prepared.held_out.as_slice() else { panic!("two rows") };
    assert_eq!((first.prompt_text.as_str(), first.reference.as_str()), ("Hi", "Yes?"));
    assert_eq!(second.prompt_text, "system: Be brief.\n\nuser: Hi\n\nassistant: Yes?\n\nuser: Bye");
    assert_eq!(second.reference, "Ciao");
    assert_eq!(first.prompt_ids, first.encoded.ids[..first.prompt_ids.len()]);
    let prompt = tokenizer().decode(&second.prompt_ids, false).unwrap();
    assert!(prompt.ends_with("Bye<|im_end|>\n<|im_start|>assistant\n"), "{prompt}");
}

#[test]
fn an_earlier_answer_is_asked_for_where_the_last_prompt_does_not_fit() {
    let long = "word ".repeat(200);
    let row = json!({"messages": [
        {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"},
        {"role": "user", "content": long}, {"role": "assistant", "content": "Ciao"},
    ]});
    let spec = PreparationSpec { max_seq_len: 100, ..chat() };
    let prepared = prepare_texts(&spec, &jsonl(&numbered([1])), Some(&jsonl(&[row]))).unwrap();
    let held_out = &prepared.held_out[0];
    assert_eq!(held_out.reference, "Yes?");
    assert!(held_out.encoded.truncated && held_out.encoded.ids.len() <= 100);
}

#[test]
fn held_out_alpaca_and_token_rows() {
    let train = jsonl(&numbered([1]));
    let row = json!({"instruction": "Add.", "input": "1 2", "output": "3"});
    let prepared = prepare_texts(&spec(TemplateSpec::Alpaca), &train, Some(&jsonl(&[row]))).unwrap();
    let held_out = &prepared.held_out[0];
    assert_eq!((held_out.prompt_text.as_str(), held_out.reference.as_str()), ("Add.\n1 2", "3"));
    assert!(tokenizer().decode(&held_out.prompt_ids, false).unwrap().ends_with("### Response:"));
    let [question, answer] = ["Who are you?", "Nobody."].map(|text| tokenizer().encode(text).unwrap());
    let labels: Vec<i64> = question.iter().map(|_| -100).chain(answer.iter().map(|id| i64::from(*id))).collect();
    let row = json!({"input_ids": ([question, answer].concat()), "labels": labels});
    let prepared = prepare_texts(&chat(), &train, Some(&jsonl(&[row]))).unwrap();
    let held_out = &prepared.held_out[0];
    assert_eq!((held_out.prompt_text.as_str(), held_out.reference.as_str()), ("Who are you?", "Nobody."));
    assert!(held_out.prompt_ids.is_empty());
}

#[test]
fn equal_rows_stay_on_one_side() {
    let rows = numbered((0..40).flat_map(|n| [n, n, n % 7]));
    let prepared = prepare_rows(&PreparationSpec { eval_fraction: 0.3, ..chat() }, &rows).unwrap();
    assert!(!prepared.held_out.is_empty());
    for held_out in &prepared.held_out {
        assert!(prepared.train.iter().all(|row| row.ids != held_out.encoded.ids));
    }
}

#[test]
fn rows_that_leak_into_the_validation_file_are_named() {
    let prepared = prepare_texts(&chat(), &jsonl(&numbered(0..5)), Some(&jsonl(&numbered(3..8)))).unwrap();
    assert_eq!(rules_of(&prepared.warnings), [(1, "held_out_leak"), (2, "held_out_leak")]);
    assert_eq!(prepared.held_out.len(), 5, "they are still scored");
}

/// A survey's warnings as rule and line.
fn surveyed(spec: &PreparationSpec, train: &[Value], valid: Option<&[Value]>) -> Vec<(u64, String)> {
    let folder = TempDir::new().unwrap();
    let [train_path, valid_path] = ["train", "valid"].map(|name| folder.path().join(name));
    std::fs::write(&train_path, jsonl(train)).unwrap();
    let valid = valid.map(|rows| std::fs::write(&valid_path, jsonl(rows)).map(|()| &*valid_path).unwrap());
    let watch = Watch { progress: &mut |_, _| ControlFlow::Continue(()), found: &mut |_, _| {} };
    let survey = survey(spec, &train_path, valid, tokenizer(), watch).unwrap();
    survey.warnings.into_iter().map(|finding| (finding.line, finding.rule)).collect()
}

/// A text of a hundred words that no other number has, and another with one word of them changed.
fn story(number: u32) -> [Value; 2] {
    let words: Vec<String> = (0..100).map(|word| format!("w{number}x{word}")).collect();
    let text = words.join(" ");
    [text.clone(), text.replace("x50 ", "x50s ")].map(|text| json!({"prompt": "Tell it.", "completion": text}))
}

#[test]
fn held_out_rows_that_are_nearly_a_training_row_are_named() {
    let train: Vec<Value> = (0..10).map(|number| story(number)[0].clone()).collect();
    let [nearly, other, equal] = [story(3)[1].clone(), story(50)[0].clone(), story(4)[0].clone()];
    let valid = [other, nearly, equal];
    let near = |line| (line, "held_out_near".to_owned());
    let equal = (3, "held_out_leak".to_owned());
    assert_eq!(surveyed(&chat(), &train, Some(&valid)), [equal.clone(), near(2)]);
    let mut without = chat();
    without.rows.validation.disabled_rules = vec!["held_out_near".to_owned()];
    assert_eq!(surveyed(&without, &train, Some(&valid)), [equal]);
    without.rows.validation.disabled_rules.push("held_out_leak".to_owned());
    assert_eq!(surveyed(&without, &train, Some(&valid)), []);
    // Of rows that are nearly alike, the split puts some here and some there.
    let twins: Vec<Value> = (0..20).flat_map(story).collect();
    let split = surveyed(&PreparationSpec { eval_fraction: 0.2, ..chat() }, &twins, None);
    assert!(!split.is_empty() && split.iter().all(|(_, rule)| rule == "held_out_near"), "{split:?}");
    assert!(split.is_sorted());
    let lonely = surveyed(&PreparationSpec { eval_fraction: 0.2, ..chat() }, &train, None);
    assert_eq!(lonely, []);
}

#[test]
fn rules_that_need_a_model_can_be_switched_off_too() {
    let row = json!({"prompt": "Say <|im_end|>", "completion": "a"});
    let mut spec = chat();
    assert_eq!(
        rules_of(&prepare_rows(&spec, std::slice::from_ref(&row)).unwrap().warnings),
        [(1, "special_token_in_text")]
    );
    spec.rows.training.disabled_rules = vec!["special_token_in_text".to_owned()];
    assert!(prepare_rows(&spec, &[row]).unwrap().warnings.is_empty());
}

#[test]
fn every_bad_row_is_counted_before_anything_is_prepared() {
    let mut text = jsonl(&numbered([1]));
    text.push_str(&"{\"prompt\": \"q\"}\n".repeat(150));
    let Err(PrepareError::Rows { file, findings, total, .. }) = prepare_texts(&chat(), &text, None) else {
        panic!("bad rows")
    };
    assert_eq!((file, findings.len(), total, findings[0].line), (SourceFile::Training, 100, 150, 2));
    let good = jsonl(&numbered([1]));
    let error = prepare_texts(&chat(), &good, Some("{\"prompt\": 1}\n")).unwrap_err();
    assert!(matches!(error, PrepareError::Rows { file: SourceFile::Validation, total: 2, .. }), "{error}");
    assert!(
        error.to_string().starts_with("2 findings in the validation file must be mended; the first: line 1: "),
        "{error}"
    );
    let empty = prepare_texts(&chat(), "", None).unwrap_err();
    assert!(matches!(&empty, PrepareError::Rows { findings, .. } if findings[0].rule == "file_empty"), "{empty}");
}

/// Rows that only a model or a template can judge.
#[test]
fn rows_that_the_template_or_the_model_refuses() {
    let errors = |spec: PreparationSpec, rows: &[Value]| match prepare_rows(&spec, rows) {
        Err(PrepareError::Rows { findings, total, .. }) => {
            assert_eq!(findings.len() as u64, total);
            findings
                .iter()
                .map(|finding| format!("{} {} {}", finding.line, finding.pointer, finding.rule))
                .collect::<Vec<_>>()
        }
        other => panic!("{other:?}"),
    };
    let good = json!({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]});
    let system = json!({"messages": [
        {"role": "system", "content": "s"}, {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"},
    ]});
    let rows = [good.clone(), system.clone(), system.clone()];
    assert_eq!(
        errors(spec(TemplateSpec::Alpaca), &rows),
        ["2 /messages template_mismatch", "3 /messages template_mismatch"]
    );
    let source = "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system here') }}{% endif %}\
                  [{{ m.role }}]{{ m.content }}[end]{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}";
    let jinja = TemplateSpec::Jinja { source: source.into() };
    assert_eq!(errors(spec(jinja), &rows), ["2  template_failed", "3  template_failed"]);
    let broken = TemplateSpec::Jinja { source: "{% for".into() };
    assert_eq!(errors(spec(broken), &[good]), ["1  template_failed"]);
    let tokens = json!({"input_ids": [1, 60_000], "labels": [-100, 60_000]});
    assert_eq!(errors(chat(), &[tokens]), ["1 /input_ids/1 token_out_of_range"]);
}

#[test]
fn rows_without_room_for_an_answer_are_dropped_and_named() {
    let mut rows = numbered(0..3);
    rows.push(json!({"prompt": "word ".repeat(300), "completion": "a"}));
    let prepared = prepare_rows(&PreparationSpec { max_seq_len: 128, ..chat() }, &rows).unwrap();
    assert_eq!(rules_of(&prepared.dropped), [(4, "no_supervised_token")]);
    assert_eq!((prepared.train.len(), prepared.facts.dropped_rows), (3, 1));
    assert!(prepared.facts.longest_row_tokens <= 128);
}

#[test]
fn when_nothing_can_be_held_out_it_is_said() {
    let spec = PreparationSpec { eval_fraction: 0.1, ..chat() };
    let prepared = prepare_rows(&spec, &numbered([1])).unwrap();
    assert_eq!((prepared.held_out.len(), rules_of(&prepared.warnings)), (0, vec![(1, "held_out_empty")]));
    assert!(prepare_rows(&chat(), &numbered([1])).unwrap().warnings.is_empty(), "nobody asked for it");
}

#[test]
fn progress_ends_at_the_whole_and_can_stop() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("train");
    std::fs::write(&path, jsonl(&numbered(0..2000))).unwrap();
    let mut calls = Vec::new();
    prepare(&chat(), &path, None, tokenizer(), &mut |done, total| {
        calls.push((done, total));
        ControlFlow::Continue(())
    })
    .unwrap();
    let size = std::fs::metadata(&path).unwrap().len();
    assert_eq!(calls.last(), Some(&(2 * size, 2 * size)));
    assert!(calls.len() > 10 && calls.is_sorted());
    let mut left = 9;
    let stopped = prepare(&chat(), &path, None, tokenizer(), &mut |_, _| {
        left -= 1;
        if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert!(matches!(stopped, Err(PrepareError::Cancelled)) && left == 0);
    let missing =
        prepare(&chat(), &folder.path().join("none"), None, tokenizer(), &mut |_, _| ControlFlow::Continue(()));
    assert!(matches!(missing, Err(PrepareError::Read(_))));
}

/// Every rule of preparation is provoked here or beside; this keeps the table and the tests together.
#[test]
fn rules_of_preparation_are_the_ones_tested_here() {
    let sources =
        [include_str!("tests.rs"), include_str!("mask_tests.rs"), include_str!("objective_tests.rs")].concat();
    let first = rules::RULES.iter().position(|rule| rule.id == "template_failed").unwrap();
    for rule in &rules::RULES[first..] {
        assert!(sources.contains(&format!("{}\"", rule.id)), "no test provokes {}", rule.id);
    }
}
