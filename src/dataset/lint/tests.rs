#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::HashSet;

use finetuned_protocol::lint::{FileLayout, RowFormat};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::splitter::Splitter;

/// A linter that looks at the structure alone, as most tests here do.
fn structure<S: FnMut(Finding)>(sink: S) -> Linter<S> {
    Linter::new(&ReadingSpec::default(), LintScope::Structure, sink)
}

/// The summary, and each finding as `line pointer rule`.
pub(super) fn lint(bytes: &[u8]) -> (LintSummary, Vec<String>) {
    let mut findings = Vec::new();
    let mut linter = structure(|finding: Finding| {
        assert_eq!(finding.severity, rules::rule(&finding.rule).unwrap().severity);
        assert!(!finding.reason.is_empty());
        findings.push(format!("{} {} {}", finding.line, finding.pointer, finding.rule));
    });
    bytes.chunks(7).for_each(|portion| linter.feed(portion));
    let summary = linter.finish();
    (summary, findings)
}

fn findings(bytes: &[u8]) -> Vec<String> {
    lint(bytes).1
}

/// The findings of one row alone, without its line.
pub(super) fn of_row(row: &Value) -> Vec<String> {
    findings(row.to_string().as_bytes()).iter().map(|finding| finding[2..].to_owned()).collect()
}

pub(super) fn of_messages(messages: Value) -> Vec<String> {
    of_row(&json!({ "messages": messages }))
}

pub(super) fn user(text: &str) -> Value {
    json!({"role": "user", "content": text})
}

pub(super) fn assistant(text: &str) -> Value {
    json!({"role": "assistant", "content": text})
}

fn said(from: &str, value: &str) -> Value {
    json!({"from": from, "value": value})
}

#[test]
fn good_files_of_every_format_have_no_findings() {
    let rows = [
        (RowFormat::Chat, json!({"messages": [{"role": "system", "content": "s"}, user("q"), assistant("a")]})),
        (RowFormat::PromptCompletion, json!({"prompt": "q", "completion": "a"})),
        (RowFormat::Alpaca, json!({"instruction": "q", "input": "", "output": "a"})),
        (RowFormat::Alpaca, json!({"instruction": "q", "input": null, "output": "a"})),
        (RowFormat::Alpaca, json!({"instruction": "q", "output": "a"})),
        (RowFormat::Tokens, json!({"input_ids": [1, 2, 3], "labels": [-100, 2, 3]})),
        (RowFormat::Text, json!({"text": "Once upon a time."})),
        (RowFormat::Chat, json!({"system": "s", "conversations": [said("human", "q"), said("gpt", "a")]})),
    ];
    for (format, row) in rows {
        let (summary, findings) = lint(format!("{row}\n").as_bytes());
        assert!(findings.is_empty() && summary.is_usable(), "{row}: {findings:?}");
        assert_eq!((summary.format, summary.layout), (Some(format), Some(FileLayout::JsonLines)));
        let (summary, findings) = lint(json!([row]).to_string().as_bytes());
        assert!(findings.is_empty(), "{row}: {findings:?}");
        assert_eq!((summary.format, summary.layout, summary.rows), (Some(format), Some(FileLayout::JsonArray), 1));
    }
}

#[test]
fn every_bad_row_is_found_and_counted() {
    let file = [
        r#"{"prompt": "q1", "completion": "a"}"#,
        r#"{"prompt": "q2"}"#,
        "",
        r#"{"prompt": "q3", "completion": "#,
        r#"{"prompt": "", "completion": " ", "id": 7}"#,
        r#"{"prompt": "q1", "completion": "a"}"#,
        r#"["prompt"]"#,
    ]
    .join("\r\n");
    let (summary, findings) = lint(file.as_bytes());
    assert_eq!(
        findings,
        [
            "2 /completion answer_missing",
            "4  json_invalid",
            "5 /completion answer_empty",
            "5 /prompt prompt_empty",
            "5 /id field_unknown",
            "6  duplicate_row",
            "7  not_an_object",
        ]
    );
    assert_eq!((summary.rows, summary.error_rows, summary.warning_rows), (6, 4, 2));
    assert!(!summary.is_usable());
    let counts: Vec<_> = summary.by_rule.iter().map(|count| (count.rule.as_str(), count.rows)).collect();
    assert_eq!(counts.len(), 7);
    assert!(counts.iter().all(|(_, rows)| *rows == 1), "{counts:?}");
}

#[test]
fn whole_files_that_are_wrong() {
    assert_eq!(findings(b""), ["1  file_empty"]);
    assert_eq!(findings(b" \n\n"), ["1  file_empty"]);
    assert_eq!(findings(b"[]"), ["1  file_empty"]);
    assert_eq!(findings(b"{\"prompt\": \"q\", \"compl"), ["1  truncated"]);
    assert_eq!(findings(b"[{\"prompt\": \"q\", \"completion\": \"a\"},\n{\"pr"), ["2  truncated"]);
    assert_eq!(findings(b"[{\"prompt\": \"q\", \"completion\": \"a\"}] {}"), ["1  trailing_text"]);
    assert_eq!(findings(b"[{\"prompt\": \"q\", \"completion\": \"a\"},]"), ["1  json_invalid"]);
    assert_eq!(findings(b"{\"prompt\": \"q\", \"completion\": \"\xff\"}\n\xff\xfe{"), ["1  not_utf8", "2  not_utf8"]);
    let (summary, _) = lint(b"");
    assert!(!summary.is_usable() && summary.format.is_none() && summary.layout.is_none());
}

/// The reason of the first finding.
fn reason(bytes: &[u8]) -> String {
    let mut reasons = Vec::new();
    let mut linter = structure(|finding: Finding| reasons.push(finding.reason));
    linter.feed(bytes);
    linter.finish();
    reasons.remove(0)
}

#[test]
fn frequent_mistakes_are_told_with_what_to_do() {
    for (file, remedy) in [
        (&b"{\n  \"prompt\": \"q\",\n  \"completion\": \"a\"\n}\n"[..], "a row is one line"),
        (b"{\"prompt\": \"q\", \"completion\": \"a\"}\r{\"prompt\": \"r\"}\r", "carriage return"),
        (b"{'prompt': 'q', 'completion': 'a'}\n", "json.dumps"),
        (b"{\"prompt\": \"q\", \"completion\": \"a\", \"weight\": NaN}\n", "no NaN"),
        (b"{\"data\": [{\"prompt\": \"q\"}]}\n", "within the field `data`"),
        (b"{\"Prompt\": \"q\", \"Completion\": \"a\"}\n", "the row has the fields `Prompt`, `Completion`"),
        (b"{}\n", "the row has no field"),
    ] {
        let told = reason(file);
        assert!(told.contains(remedy), "{told}");
    }
    assert!(!reason(b"{\"prompt\": x}\n").contains(';'));
}

#[test]
fn rows_that_are_too_long() {
    let mut file = b"{\"prompt\": \"".to_vec();
    file.resize(file.len() + (16 << 20), b'x');
    file.extend_from_slice(b"\", \"completion\": \"a\"}\n{\"prompt\": \"q\", \"completion\": \"a\"}\n");
    assert_eq!(findings(&file), ["1  row_too_long"]);
    let many = format!("{{\"input_ids\": [{}1]}}\n", "1,".repeat(1 << 19));
    assert_eq!(findings(many.as_bytes()), ["1  row_too_long"]);
}

#[test]
fn formats() {
    assert_eq!(of_row(&json!({"body": "x"})), [" format_unknown"]);
    assert_eq!(of_row(&json!({})), [" format_unknown"]);
    let mixed = b"{\"body\":1}\n{\"prompt\":\"q\",\"completion\":\"a\"}\n{\"messages\":[]}\n{\"body\":2}";
    assert_eq!(
        findings(mixed),
        [
            "1  format_unknown",
            "3  format_mixed",
            "4 /prompt field_missing",
            "4 /completion answer_missing",
            "4 /body field_unknown"
        ]
    );
}

#[test]
fn fields() {
    assert_eq!(of_row(&json!({"completion": "a"})), ["/prompt field_missing"]);
    assert_eq!(of_row(&json!({"prompt": 1, "completion": ["a"]})), ["/prompt field_type", "/completion field_type"]);
    assert_eq!(of_row(&json!({"instruction": "q", "input": 5, "output": "a"})), ["/input field_type"]);
    assert_eq!(of_row(&json!({"instruction": "q", "output": null})), ["/output answer_missing"]);
    assert_eq!(of_row(&json!({"instruction": " ", "output": "a"})), ["/instruction prompt_empty"]);
    assert_eq!(of_row(&json!({"prompt": "q", "completion": "a", "a/b~c": 1})), ["/a~1b~0c field_unknown"]);
    assert_eq!(findings(br#"{"prompt": "q", "completion": "a", "prompt": "r"}"#), ["1 /prompt field_repeated"]);
}

#[test]
fn characters() {
    assert_eq!(of_row(&json!({"prompt": "tab\t\r\n", "completion": "bell\u{7}"})), ["/completion control_character"]);
    assert_eq!(
        of_row(&json!({"prompt": "\u{1}x\u{0}", "completion": "a"})),
        ["/prompt nul_character", "/prompt control_character"]
    );
    assert_eq!(of_messages(json!([user("\u{0}"), assistant("a")])), ["/messages/0/content nul_character"]);
}

#[test]
fn messages() {
    assert_eq!(of_row(&json!({"messages": "hi"})), ["/messages field_type"]);
    assert_eq!(of_row(&json!({"messages": null})), ["/messages field_missing"]);
    assert_eq!(of_messages(json!([])), ["/messages messages_empty"]);
    assert_eq!(of_messages(json!(["hi"])), ["/messages/0 field_type"]);
    assert_eq!(of_messages(json!([{"content": "x"}])), ["/messages/0/role field_missing"]);
    assert_eq!(
        of_messages(json!([{"role": "bot", "content": "x"}, {"role": "user"}, {"role": 1, "content": 2}])),
        [
            "/messages/0/role role_unknown",
            "/messages/1/content field_missing",
            "/messages/2/role field_type",
            "/messages/2/content field_type",
        ]
    );
    assert_eq!(of_messages(json!([user("q")])), ["/messages answer_missing"]);
    assert_eq!(of_messages(json!([user("q"), {"role": "assistant"}])), ["/messages/1/content answer_missing"]);
    assert_eq!(of_messages(json!([user("q"), assistant(" \n")])), ["/messages/1/content answer_empty"]);
    assert_eq!(of_messages(json!([user(""), assistant("a")])), ["/messages/0/content prompt_empty"]);
    assert_eq!(of_messages(json!([user("q"), assistant("a"), user("q")])), ["/messages/2 answer_not_last"]);
    let named = json!([{"role": "user", "content": "q", "name": "Ann", "weight": 1}, assistant("a")]);
    assert_eq!(of_messages(named), ["/messages/0/name field_unknown", "/messages/0/weight field_unknown"]);
}

#[test]
fn weights() {
    let weighted = |weight: Value| json!({"role": "assistant", "content": "a", "weight": weight});
    assert!(of_messages(json!([user("q"), weighted(json!(1))])).is_empty());
    assert!(of_messages(json!([user("q"), weighted(json!(0)), user("r"), assistant("a")])).is_empty());
    assert!(of_messages(json!([user("q"), weighted(json!(0.25))])).is_empty());
    for wrong in [json!(-1), json!(100.5), json!(true), json!("1")] {
        assert_eq!(of_messages(json!([user("q"), weighted(wrong)])), ["/messages/1/weight weight_invalid"]);
    }
    assert_eq!(of_messages(json!([user("q"), weighted(json!(0))])), ["/messages no_supervised_message"]);
    let silent = json!([user("q"), {"role": "assistant", "content": "", "weight": 0}, user("r"), assistant("a")]);
    assert!(of_messages(silent).is_empty(), "an empty answer without loss does no harm");
    for row in [
        json!({"messages": [user("q"), assistant("a")]}),
        json!({"prompt": "q", "completion": "a"}),
        json!({"instruction": "q", "output": "a"}),
        json!({"input_ids": [1, 2], "labels": [-100, 2]}),
    ] {
        let with = |weight: Value| {
            let mut row = row.clone();
            row["weight"] = weight;
            of_row(&row)
        };
        assert!(with(json!(2.5)).is_empty());
        for wrong in [json!(0), json!(-0.5), json!(101), json!([1])] {
            assert_eq!(with(wrong), ["/weight weight_invalid"], "{row}");
        }
    }
    assert_eq!(of_row(&json!({"text": "x", "weight": 2})), ["/weight not_supported"]);
    assert_eq!(of_row(&json!({"prompt": "q", "chosen": "a", "rejected": "b", "weight": 2})), ["/weight not_supported"]);
}

#[test]
fn the_order_of_roles() {
    let system = || json!({"role": "system", "content": "s"});
    for (messages, pointer) in [
        (json!([user("q"), system(), assistant("a")]), "/messages/1/role"),
        (json!([user("q"), user("q"), assistant("a")]), "/messages/1/role"),
        (json!([user("q"), assistant("a"), assistant("b")]), "/messages/2/role"),
        (json!([assistant("a")]), "/messages/0/role"),
        (json!([system(), assistant("a")]), "/messages/1/role"),
    ] {
        assert_eq!(of_messages(messages), [format!("{pointer} role_order")]);
    }
}

#[test]
fn content_in_parts_and_what_is_not_supported() {
    let parts = |parts: Value| of_messages(json!([{"role": "user", "content": parts}, assistant("a")]));
    assert!(parts(json!([{"type": "text", "text": "q"}, {"type": "text", "text": "r"}])).is_empty());
    assert_eq!(parts(json!([{"type": "image_url", "image_url": {}}])), ["/messages/0/content/0/type not_supported"]);
    assert_eq!(
        parts(json!(["q", {"type": "text"}])),
        ["/messages/0/content/0 field_type", "/messages/0/content/1/text field_missing"]
    );
    assert_eq!(parts(json!([])), ["/messages/0/content prompt_empty"]);
    let asked = json!({"messages": [user("q"), assistant("a")], "function_call": "auto", "functions": []});
    assert_eq!(of_row(&asked), ["/function_call not_supported"]);
}

#[test]
fn tokens() {
    let row = |ids: Value, labels: Value| of_row(&json!({"input_ids": ids, "labels": labels}));
    assert_eq!(of_row(&json!({"input_ids": [1, 2]})), ["/labels field_missing"]);
    assert_eq!(row(json!([1, "2"]), json!("x")), ["/input_ids/1 field_type", "/labels field_type"]);
    assert_eq!(row(json!([1, -2]), json!([1, 2])), ["/input_ids/1 token_invalid"]);
    assert_eq!(row(json!([1, 1_u64 << 32]), json!([1, 2])), ["/input_ids/1 token_invalid"]);
    assert_eq!(row(json!([1, 2]), json!([-100, 2, 2])), ["/labels labels_length"]);
    assert_eq!(row(json!([1, 2, 3]), json!([-100, 3, 3])), ["/labels/1 labels_mismatch"]);
    assert_eq!(row(json!([1, 2]), json!([1, -100])), ["/labels answer_missing"]);
    assert_eq!(row(json!([]), json!([])), ["/labels answer_missing"]);
}

#[test]
fn pairs_are_read_in_every_spelling() {
    let file = [
        json!({
            "input": {"messages": [{"role": "system", "content": "s"}, user("q")], "tools": []},
            "preferred_output": [assistant("good")], "non_preferred_output": [assistant("bad")],
        }),
        json!({
            "input": {"messages": [{"role": "system", "content": "s"}, user("q")]},
            "preferred_completion": [assistant("good")], "non_preferred_completion": [assistant("bad")],
        }),
        json!({
            "conversations": [said("system", "s"), said("human", "q")],
            "chosen": said("gpt", "good"), "rejected": said("gpt", "bad"),
        }),
        json!({"system": "s", "conversations": [said("human", "q")], "chosen": "good", "rejected": "bad"}),
        json!({
            "messages": [{"role": "system", "content": "s"}, user("q")],
            "chosen": assistant("good"), "rejected": [assistant("bad")],
        }),
        json!({
            "prompt": [{"role": "system", "content": "s"}, user("q")], "chosen": "good", "rejected": "bad",
        }),
        json!({
            "chosen": [{"role": "system", "content": "s"}, user("q"), assistant("good")],
            "rejected": [{"role": "system", "content": "s"}, user("q"), assistant("bad")],
        }),
    ];
    let lines: String = file.iter().map(|row| format!("{row}\n")).collect();
    let (summary, findings) = lint(lines.as_bytes());
    let duplicates: Vec<String> = (2..=7).map(|line| format!("{line}  duplicate_row")).collect();
    assert_eq!(findings, duplicates, "all of them say the same");
    assert_eq!((summary.format, summary.error_rows), (Some(RowFormat::Preference), 0));
    let lines = [
        json!({"prompt": "q\nx", "chosen": "good", "rejected": "bad"}),
        json!({"instruction": "q", "input": "x", "chosen": "good", "rejected": "bad"}),
        json!({"prompt": "q\nx", "chosen": [user("q\nx"), assistant("good")], "rejected": "bad"}),
    ]
    .map(|row| format!("{row}\n"))
    .concat();
    assert_eq!(lint(lines.as_bytes()).1, ["2  duplicate_row", "3  duplicate_row"]);
}

#[test]
fn pairs_that_cannot_be_learned_from() {
    let pair = |chosen: Value, rejected: Value| json!({"prompt": "q", "chosen": chosen, "rejected": rejected});
    assert_eq!(of_row(&pair(json!("a"), Value::Null)), ["/rejected answer_missing"]);
    assert_eq!(of_row(&pair(json!(" "), json!("b"))), ["/chosen answer_empty"]);
    assert_eq!(of_row(&pair(json!("a"), json!([assistant("")]))), ["/rejected/0/content answer_empty"]);
    assert_eq!(of_row(&pair(json!("a"), json!("a"))), ["/rejected answers_equal"]);
    assert_eq!(of_row(&pair(json!(1), json!([]))), ["/chosen field_type", "/rejected messages_empty"]);
    assert_eq!(of_row(&pair(json!("a"), user("b"))), ["/rejected answer_missing"]);
    assert_eq!(of_row(&pair(json!("a"), json!([user("other"), assistant("b")]))), ["/rejected/1 not_supported"]);
    assert_eq!(of_row(&json!({"chosen": "a", "rejected": "b"})), [" field_missing"]);
    assert_eq!(
        of_row(&json!({"input": "q", "preferred_output": [assistant("a")]})),
        ["/input field_type", "/non_preferred_output answer_missing",]
    );
    let differing = json!({
        "chosen": [user("q"), assistant("a")], "rejected": [user("r"), assistant("b")],
    });
    assert_eq!(of_row(&differing), ["/rejected not_supported"]);
    let weighted = json!({"role": "assistant", "content": "a", "weight": 0.5});
    assert_eq!(of_row(&pair(weighted, json!("b"))), ["/chosen/weight not_supported"]);
    let called = json!({
        "conversations": [said("human", "q"), said("function_call", "f()")], "chosen": "a", "rejected": "b",
    });
    assert_eq!(of_row(&called), ["/conversations/1/from role_unknown"]);
}

#[test]
fn documents() {
    assert_eq!(of_row(&json!({"text": " \n"})), ["/text text_empty"]);
    assert_eq!(of_row(&json!({"text": 1})), ["/text field_type"]);
    assert_eq!(of_row(&json!({"text": "x", "url": "y"})), ["/url field_unknown"]);
    let mixed = b"{\"text\":\"x\"}\n{\"prompt\":\"q\",\"completion\":\"a\"}";
    assert_eq!(findings(mixed), ["2  format_mixed"]);
}

#[test]
fn duplicates_are_found_by_meaning() {
    let file = r#"[{"prompt":"é","completion":"a"},
                   { "completion": "a", "prompt": "\u00e9" },
                   {"prompt":"e","completion":"a"}]"#;
    assert_eq!(findings(file.as_bytes()), ["2  duplicate_row"]);
}

#[test]
fn rows_beyond_the_memory_are_compared_at_the_end() {
    let mut findings = Vec::new();
    let sink = |finding: Finding| findings.push((finding.line, finding.rule));
    let mut judge = RowJudge::new(&ReadingSpec::default(), LintScope::Structure, sink, 2);
    let mut splitter = Splitter::new();
    for number in [0, 1, 2, 3, 1, 3] {
        let row = format!("{{\"prompt\":\"{number}\",\"completion\":\"a\"}}\n");
        splitter.feed(row.as_bytes(), &mut |piece| judge.judge(piece));
    }
    let summary = judge.finish(Detected::default());
    assert_eq!((summary.warning_rows, summary.by_rule[0].rows), (2, 2));
    assert_eq!(findings, [(5, "duplicate_row".to_owned()), (6, "duplicate_row".to_owned())]);
}

/// A disk that fails cannot be had in a test of a unit; the finding alone is looked at.
#[test]
fn a_disk_that_fails_is_told() {
    let finding = unchecked(3, &std::io::Error::other("no space"));
    assert_eq!((finding.line, &*finding.rule), (3, "duplicates_unchecked"));
    assert!(finding.reason.contains("no space"));
}

/// The findings of a file with a look at its content.
fn content(reading: &ReadingSpec, bytes: &[u8]) -> (LintSummary, Vec<String>) {
    let mut findings = Vec::new();
    let sink = |finding: Finding| findings.push(format!("{} {} {}", finding.line, finding.pointer, finding.rule));
    let mut linter = Linter::new(reading, LintScope::Content, sink);
    linter.feed(bytes);
    let summary = linter.finish();
    (summary, findings)
}

#[test]
fn what_rows_say_is_looked_at_and_rules_can_be_switched_off() {
    let story = "It was a dark night and the keeper of the lighthouse went up the stairs once more to see the lamp.";
    let rows: String = [
        json!({"prompt": "Tell me a story.", "completion": story}),
        json!({"prompt": "Tell me a story!", "completion": format!("{story} The end")}),
        json!({"prompt": "Who?", "completion": "Write to me@example.org"}),
        json!({"prompt": "How?", "completion": " "}),
    ]
    .iter()
    .map(|row| format!("{row}\n"))
    .collect();
    let (summary, found) = content(&ReadingSpec::default(), rows.as_bytes());
    assert_eq!(found, ["3 /completion email_address", "4 /completion answer_empty", "2  near_duplicate"]);
    let counts: Vec<_> =
        summary.by_rule.iter().map(|count| (&*count.rule, count.share, count.examples[0].line)).collect();
    assert_eq!(counts, [("answer_empty", 0.25, 4), ("near_duplicate", 0.25, 2), ("email_address", 0.25, 3)]);
    assert!(!summary.is_usable() && summary.evidence[1].starts_with("prompt_completion: line 1 has the fields"));
    let off = ["answer_empty", "email_address"].map(str::to_owned).to_vec();
    let (summary, found) = content(&ReadingSpec { disabled_rules: off, ..ReadingSpec::default() }, rows.as_bytes());
    assert!(summary.is_usable());
    assert_eq!(found, ["2  near_duplicate"]);
}

#[test]
fn share_gpt_rows() {
    let row = |conversations: Value| of_row(&json!({ "conversations": conversations }));
    let said = |from: &str, value: &str| json!({"from": from, "value": value});
    assert_eq!(row(json!([said("system", "s"), said("human", "q"), said("gpt", "a")])), [""; 0]);
    assert_eq!(row(json!([["q", "a"], ["r", "b"]])), [""; 0]);
    assert_eq!(row(json!([["q", ""]])), ["/conversations/0/1 answer_empty"]);
    assert_eq!(row(json!([["q"]])), ["/conversations/0 field_type"]);
    assert_eq!(row(json!([said("robot", "x")])), ["/conversations/0/from role_unknown"]);
    assert_eq!(row(json!([said("human", "q")])), ["/conversations answer_missing"]);
    assert_eq!(row(json!([said("gpt", "a")])), ["/conversations/0/role role_order"]);
    assert_eq!(row(json!([])), ["/conversations messages_empty"]);
    assert_eq!(row(json!("x")), ["/conversations field_type"]);
}

#[test]
fn alpaca_rows_with_a_history() {
    let row = |history: Value| of_row(&json!({"instruction": "q", "output": "a", "history": history}));
    assert_eq!(row(json!([["p", "o"]])), [""; 0]);
    assert_eq!(row(json!([])), [""; 0]);
    assert_eq!(row(json!(null)), [""; 0]);
    assert_eq!(row(json!([["p"]])), ["/history/0 field_type"]);
    assert_eq!(row(json!({"p": "o"})), ["/history field_type"]);
    assert_eq!(of_row(&json!({"instruction": "q", "output": "a", "system": "s"})), [""; 0]);
}

#[test]
fn a_fault_names_its_column_and_its_line() {
    let reason = |bytes: &[u8]| {
        let mut reasons = Vec::new();
        let mut linter = structure(|finding: Finding| reasons.push(finding.reason));
        linter.feed(bytes);
        linter.finish();
        reasons.remove(0)
    };
    assert!(reason(b"\n  {\"a\": 1,}\n").ends_with("at column 11"), "{}", reason(b"\n  {\"a\": 1,}\n"));
    let pretty = b"[\n  {\n    \"a\" 1\n  }\n]";
    assert!(reason(pretty).ends_with("at line 3, column 9"), "{}", reason(pretty));
    assert!(reason(b"{\"prompt\": \"ab\xff").contains("byte 15 of the row is 0xff"));
    assert!(reason(b"\xff\xfe{\0").contains("UTF-16"));
}

#[test]
fn a_row_of_a_million_faults_is_told_so_by_its_first() {
    let turns = vec![json!(1); 1000];
    assert_eq!(of_messages(json!(turns)).len(), 50);
    let fields: serde_json::Map<String, Value> = (0..100).map(|index| (format!("f{index}"), json!(1))).collect();
    let mut row = json!({"prompt": "q", "completion": ""});
    row.as_object_mut().unwrap().extend(fields);
    let (summary, findings) = lint(row.to_string().as_bytes());
    assert_eq!((findings.len(), summary.error_rows), (51, 1));
}

/// Rows of every format, some with a stretch of bytes replaced.
fn damaged_file() -> impl Strategy<Value = Vec<u8>> {
    let row = prop::sample::select(vec![
        r#"{"messages": [{"role": "user", "content": [{"type": "text", "text": "q"}]}, {"role": "assistant"}]}"#,
        r#"{"messages": [{"role": "assistant", "content": "\u00e9", "weight": 1}]}"#,
        r#"{"prompt": "q\n", "completion": "a", "id": [1, -2.5e3, null, true]}"#,
        r#"{"instruction": "é", "input": "", "output": "a\u0000"}"#,
        r#"{"input_ids": [1, 2], "labels": [-100, 2]}"#,
        r#"{"text": "é\u0001", "weight": 1}"#,
        r#"{"input": {"messages": []}, "preferred_output": [{"role": "assistant"}], "chosen": {"from": "gpt"}}"#,
    ]);
    let damage = (0_usize..600, prop::collection::vec(any::<u8>(), 0..6));
    (any::<bool>(), prop::collection::vec(row, 1..5), prop::collection::vec(damage, 0..3)).prop_map(
        |(array, rows, damages)| {
            let text = if array { format!("[{}]", rows.join(",\n")) } else { rows.join("\n") };
            let mut bytes = text.into_bytes();
            for (at, with) in damages {
                let at = at % bytes.len().max(1);
                let end = (at + with.len()).min(bytes.len());
                bytes.splice(at..end, with);
            }
            bytes
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_the_bytes_the_summary_agrees_with_the_findings(bytes in damaged_file()) {
        let (summary, findings) = lint(&bytes);
        let lines: HashSet<&str> = findings.iter().filter_map(|finding| finding.split(' ').next()).collect();
        prop_assert!(summary.error_rows <= summary.rows && summary.warning_rows <= summary.rows);
        prop_assert!(lines.len() as u64 <= summary.error_rows + summary.warning_rows + u64::from(summary.rows == 0));
        prop_assert_eq!(findings.is_empty(), summary.by_rule.is_empty());
        prop_assert_eq!(summary.error_rows == 0 && summary.rows > 0, summary.is_usable());
    }
}

/// Every rule that needs no model is provoked somewhere above; this list keeps the table and the tests together.
#[test]
fn rules_of_the_linter_are_the_ones_tested_here() {
    let source = include_str!("tests.rs");
    // Those of containers and of content have tests of their own.
    let beside =
        [include_str!("../container/tests.rs"), include_str!("../checks/tests.rs"), include_str!("tools_tests.rs")];
    let sources = [&[source], beside.as_slice()].concat();
    let of_preparation = rules::RULES.iter().position(|rule| rule.id == "template_failed").unwrap();
    for rule in &rules::RULES[..of_preparation] {
        assert!(sources.iter().any(|source| source.contains(rule.id)), "no test provokes {}", rule.id);
    }
}
