//! Weights, documents and pairs, with SmolLM2's own tokenizer and template.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use finetuned_protocol::spec::TemplateSpec;
use serde_json::{Value, json};

use super::{
    mask_tests::{encode_one, marked},
    tests::*,
    *,
};

fn chat() -> PreparationSpec {
    spec(TemplateSpec::Chat)
}

/// The weight of each run of tokens with loss, in order.
fn weights(row: &Encoded) -> Vec<f32> {
    let weights = row.weights.as_ref().unwrap();
    assert_eq!(weights.len(), row.ids.len());
    let mut runs: Vec<f32> = Vec::new();
    let mut was_labelled = false;
    for (label, weight) in row.labels.iter().zip(weights) {
        let is_labelled = *label != IGNORED_LABEL;
        if is_labelled && !(was_labelled && runs.last() == Some(weight)) {
            runs.push(*weight);
        }
        was_labelled = is_labelled;
    }
    runs
}

fn two_answers(first: Value, second: Value) -> Value {
    let answer = |content: &str, weight: Value| json!({"role": "assistant", "content": content, "weight": weight});
    let user = |content: &str| json!({"role": "user", "content": content});
    json!({"messages": [user("q"), answer("a", first), user("r"), answer("b", second)]})
}

#[test]
fn weights_of_answers_and_rows_multiply() {
    let row = encode_one(&chat(), two_answers(json!(0.5), json!(2)));
    assert_eq!(weights(&row), [0.5, 2.0]);
    let mut weighted = two_answers(json!(0.5), json!(1));
    weighted["weight"] = json!(4);
    assert_eq!(weights(&encode_one(&chat(), weighted)), [2.0, 4.0]);
    for row in [json!({"prompt": "q", "completion": "a"}), json!({"instruction": "q", "output": "a"})] {
        for template in [TemplateSpec::Chat, TemplateSpec::Alpaca] {
            let mut weighted = row.clone();
            weighted["weight"] = json!(0.25);
            let (plain, row) =
                (encode_one(&spec(template.clone()), row.clone()), encode_one(&spec(template), weighted));
            assert_eq!((&row.ids, &row.labels), (&plain.ids, &plain.labels));
            assert_eq!(weights(&row), [0.25]);
            assert!(plain.weights.is_none(), "where all weights are 1, none are kept");
        }
    }
    let tokens = json!({"input_ids": [5, 6, 7], "labels": [-100, 6, 7], "weight": 3});
    assert_eq!(encode_one(&chat(), tokens).weights, Some(vec![3.0; 3]));
}

#[test]
fn an_answer_of_weight_zero_carries_none_and_weights_follow_the_cut() {
    let row = encode_one(&chat(), two_answers(json!(0), json!(1)));
    assert!(row.weights.is_none() && marked(&row).ends_with("«b<|im_end|>»") && !marked(&row).contains("«a"));
    let row = encode_one(&PreparationSpec { max_seq_len: 36, ..chat() }, two_answers(json!(0.5), json!(2)));
    assert_eq!(row.weights.as_ref().map(Vec::len), Some(row.ids.len()));
    assert!(row.ids.len() == 36 && weights(&row) == [0.5]);
}

#[test]
fn weights_on_the_prompt_are_those_of_the_row() {
    let spec = PreparationSpec { train_on_prompt: true, ..chat() };
    let mut row = two_answers(json!(1), json!(0.5));
    row["weight"] = json!(2);
    assert_eq!(weights(&encode_one(&spec, row)), [2.0, 1.0]);
}

#[test]
fn a_document_is_learned_whole_and_ends() {
    let row = encode_one(&chat(), json!({"text": "Once upon a time."}));
    let text = marked(&row);
    assert!(text.starts_with("Once«") && text.ends_with("time.<|im_end|>»"), "{text}");
    assert_eq!(row.supervised_tokens(), row.ids.len() - 1);
}

#[test]
fn a_long_document_becomes_pieces_that_miss_no_token() {
    let text = (0..200).map(|n| format!("word{n} ")).collect::<String>();
    let whole = encode_one(&chat(), json!({ "text": text }));
    let spec = PreparationSpec { max_seq_len: 64, ..chat() };
    let prepared = prepare_rows(&spec, &[json!({ "text": text }), json!({"text": "short"})]).unwrap();
    let (pieces, short): (Vec<&Encoded>, Vec<&Encoded>) = prepared.train.iter().partition(|row| row.line == 1);
    assert!(pieces.len() > 10 && short.len() == 1);
    assert_eq!(pieces.iter().map(|row| row.piece).collect::<Vec<_>>(), (0..pieces.len() as u32).collect::<Vec<_>>());
    let mut joined = vec![pieces[0].ids[0]];
    for piece in &pieces {
        assert!((2..=64).contains(&piece.ids.len()));
        assert_eq!(*joined.last().unwrap(), piece.ids[0], "a piece begins with the last token of the one before");
        let learned = piece.labels.iter().filter(|label| **label != IGNORED_LABEL);
        joined.extend(learned.map(|label| *label as u32));
    }
    assert_eq!(joined, whole.ids);
    assert_eq!(prepared.facts.train_rows, prepared.train.len() as u64);
    assert_eq!(prepared.facts.truncated_rows, 0);
}

#[test]
fn pieces_of_a_document_stay_on_one_side_and_are_not_asked() {
    let documents: Vec<Value> =
        (0..20).map(|n| json!({"text": format!("Document {n}. {}", "and so on ".repeat(40))})).collect();
    let spec = PreparationSpec { max_seq_len: 32, eval_fraction: 0.2, ..chat() };
    let prepared = prepare_rows(&spec, &documents).unwrap();
    let train: std::collections::HashSet<u64> = prepared.train.iter().map(|row| row.line).collect();
    let held: std::collections::HashSet<u64> = prepared.held_out.iter().map(|row| row.encoded.line).collect();
    assert_eq!((train.len(), held.len()), (16, 4));
    assert!(train.is_disjoint(&held));
    assert!(prepared.held_out.iter().all(|row| row.prompt_ids.is_empty()));
}

fn pair(prompt: &str, chosen: &str, rejected: &str) -> Value {
    json!({"prompt": prompt, "chosen": chosen, "rejected": rejected})
}

#[test]
fn both_answers_of_a_pair_follow_the_same_prompt() {
    for template in [TemplateSpec::Chat, TemplateSpec::Alpaca] {
        let single = |answer: &str| encode_one(&spec(template.clone()), json!({"prompt": "q", "completion": answer}));
        let row = encode_one(&spec(template.clone()), pair("q", "Yes, of course.", "No."));
        let (chosen, rejected) = (single("Yes, of course."), single("No."));
        assert_eq!((&row.ids, &row.labels), (&chosen.ids, &chosen.labels));
        let Rejected { ids, labels } = row.rejected.as_ref().unwrap();
        assert_eq!((ids, labels), (&rejected.ids, &rejected.labels));
        assert_eq!(row.tokens(), chosen.ids.len() + rejected.ids.len());
    }
}

#[test]
fn earlier_answers_of_a_pairs_chat_carry_no_loss() {
    let row = json!({
        "conversations": [
            {"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}, {"from": "human", "value": "r"},
        ],
        "chosen": {"from": "gpt", "value": "good"}, "rejected": {"from": "gpt", "value": "bad"},
    });
    let text = marked(&encode_one(&chat(), row));
    assert!(text.ends_with("assistant\n«good<|im_end|>»") && text.matches('«').count() == 1, "{text}");
}

#[test]
fn a_held_out_pair_is_asked_for_the_better_answer() {
    let train = format!("{}\n", pair("x", "y", "z"));
    let valid = format!("{}\n", pair("Hi", "Hello!", "Go away."));
    let prepared = prepare_texts(&chat(), &train, Some(&valid)).unwrap();
    let held_out = &prepared.held_out[0];
    assert_eq!((held_out.prompt_text.as_str(), held_out.reference.as_str()), ("Hi", "Hello!"));
    assert!(held_out.encoded.rejected.is_some() && !held_out.prompt_ids.is_empty());
    assert_eq!(prepared.facts.longest_row_tokens as usize, held_out.encoded.tokens().max(prepared.train[0].tokens()));
}

#[test]
fn a_pair_without_room_for_an_answer_is_dropped_whole() {
    let rows = [pair("q", "a", "b"), pair(&"word ".repeat(200), "a", "b")];
    let prepared = prepare_rows(&PreparationSpec { max_seq_len: 128, ..chat() }, &rows).unwrap();
    assert_eq!((prepared.train.len(), rules_of(&prepared.dropped)), (1, vec![(2, "no_supervised_token")]));
    let cut = [pair("q", "a", &"word ".repeat(200))];
    let prepared = prepare_rows(&PreparationSpec { max_seq_len: 128, ..chat() }, &cut).unwrap();
    assert!(prepared.train[0].truncated && prepared.train[0].rejected.as_ref().unwrap().ids.len() == 128);
}
