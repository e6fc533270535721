//! Which tokens carry loss, with SmolLM2's own tokenizer and template.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use finetuned_protocol::{request::parse_template, spec::TemplateSpec, templates::TEMPLATES};
use serde_json::{Value, json};

use super::{tests::*, *};

/// Text of a row with its supervised runs in guillemets.
pub(super) fn marked(row: &Encoded) -> String {
    assert_eq!(row.ids.len(), row.labels.len());
    let mut text = String::new();
    let mut start = 0;
    while start < row.ids.len() {
        let has_loss = row.labels[start] != IGNORED_LABEL;
        let end =
            (start..row.ids.len()).find(|at| (row.labels[*at] != IGNORED_LABEL) != has_loss).unwrap_or(row.ids.len());
        let run = tokenizer().decode(&row.ids[start..end], false).unwrap();
        text.push_str(&if has_loss { format!("«{run}»") } else { run });
        start = end;
    }
    for (id, label) in row.ids.iter().zip(&row.labels) {
        assert!(*label == IGNORED_LABEL || *label == i64::from(*id));
    }
    text
}

fn marked_row(template: TemplateSpec, row: Value) -> String {
    marked(&encode_one(&spec(template), row))
}

pub(super) fn encode_one(spec: &PreparationSpec, row: Value) -> Encoded {
    prepare_rows(spec, &[row]).unwrap().train.remove(0)
}

fn turn(role: &str, content: &str) -> Value {
    json!({"role": role, "content": content})
}

const SYSTEM: &str =
    "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n";

#[test]
fn exactly_the_answer_and_its_end_marker_carry_loss() {
    let expected = format!("{SYSTEM}<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n«Hello!<|im_end|>»");
    assert_eq!(marked_row(TemplateSpec::Chat, json!({"prompt": "Hi", "completion": "Hello!"})), expected);
    assert_eq!(
        marked_row(TemplateSpec::Chat, json!({"messages": [turn("user", "Hi"), turn("assistant", "Hello!")]})),
        expected
    );
    assert_eq!(marked_row(TemplateSpec::Chat, json!({"instruction": "Hi", "input": "", "output": "Hello!"})), expected);
}

#[test]
fn the_ids_are_those_of_the_prompt_and_of_the_answer_told_apart() {
    let row = json!({"instruction": "Name two.", "input": "colours:\n", "output": " red,\n\nblue \n"});
    let encoded = encode_one(&spec(TemplateSpec::Chat), row);
    let prompt = format!("{SYSTEM}<|im_start|>user\nName two.\ncolours:\n<|im_end|>\n<|im_start|>assistant\n");
    let prompt = tokenizer().encode(&prompt).unwrap();
    let answer = tokenizer().encode(" red,\n\nblue \n<|im_end|>").unwrap();
    assert_eq!(encoded.ids, [prompt.clone(), answer.clone()].concat());
    let labels = prompt.iter().map(|_| IGNORED_LABEL).chain(answer.iter().map(|id| i64::from(*id)));
    assert_eq!(encoded.labels, labels.collect::<Vec<_>>());
}

/// Counts of prompt and response tokens as transformers gives them for the same rows.
#[test]
fn counts_equal_those_of_transformers() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/eval/smollm2.json");
    let fixture: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let cases = fixture["response_loss"].as_array().unwrap();
    assert_eq!(cases.len(), 6);
    for case in cases {
        let encoded = encode_one(&spec(TemplateSpec::Chat), case["example"].clone());
        let supervised = encoded.supervised_tokens();
        let counts = (encoded.ids.len() - supervised, supervised);
        let count = |name: &str| case[name].as_u64().unwrap() as usize;
        assert_eq!(counts, (count("prompt_tokens"), count("response_tokens")));
    }
}

#[test]
fn every_answer_of_a_chat_carries_loss_but_those_of_weight_zero() {
    let row = json!({"messages": [
        turn("system", "Be brief."), turn("user", "1+1?"), {"role": "assistant", "content": "3", "weight": 0},
        turn("user", "Sure?"), turn("assistant", "No: 2"), turn("user", "2+2?"), turn("assistant", "4"),
    ]});
    assert_eq!(
        marked_row(TemplateSpec::Chat, row),
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n1+1?<|im_end|>\n<|im_start|>assistant\n3<|im_end|>\
         \n\
         <|im_start|>user\nSure?<|im_end|>\n<|im_start|>assistant\n«No: 2<|im_end|>»\n\
         <|im_start|>user\n2+2?<|im_end|>\n<|im_start|>assistant\n«4<|im_end|>»"
    );
}

#[test]
fn what_follows_the_last_answer_with_loss_is_left_out() {
    let row = json!({"messages": [
        turn("developer", "s"), turn("user", "q"), turn("assistant", "a"), turn("user", "r"),
        {"role": "assistant", "content": "b", "weight": 0},
    ]});
    let expected =
        "<|im_start|>system\ns<|im_end|>\n<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n«a<|im_end|>»";
    assert_eq!(marked_row(TemplateSpec::Chat, row), expected);
}

#[test]
fn content_that_looks_like_a_marker_moves_no_boundary() {
    let answer = "Say assistant\n<|im_start|>assistant\nagain";
    let row = json!({"messages": [turn("user", "<|im_start|>assistant\nfake<|im_end|>"), turn("assistant", answer)]});
    let prepared = prepare_rows(&spec(TemplateSpec::Chat), &[row]).unwrap();
    let text = marked(&prepared.train[0]);
    assert!(
        text.ends_with(&format!("fake<|im_end|><|im_end|>\n<|im_start|>assistant\n«{answer}<|im_end|>»")),
        "{text}"
    );
    let warned: Vec<_> = prepared.warnings.iter().map(|finding| (&*finding.rule, &*finding.pointer)).collect();
    let rule = "special_token_in_text";
    assert_eq!(warned, [(rule, "/messages/0/content"), (rule, "/messages/1/content")]);
}

#[test]
fn on_request_the_prompt_carries_loss_too() {
    let spec = PreparationSpec { train_on_prompt: true, ..spec(TemplateSpec::Chat) };
    let row = json!({"messages": [turn("system", "s"), turn("user", "q"), turn("assistant", "a"), turn("user", "r")]});
    let text = marked(&encode_one(&spec, row));
    let rest = "system\ns<|im_end|>\n<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\na<|im_end|>\n\
                <|im_start|>user\nr<|im_end|>";
    assert_eq!(text, format!("<|im_start|>«{rest}»"));
    let plain = encode_one(&spec, json!({"prompt": "q", "completion": "a"}));
    assert_eq!(plain.supervised_tokens(), plain.ids.len() - 1);
    let masked = encode_one(&super::tests::spec(TemplateSpec::Chat), json!({"prompt": "q", "completion": "a"}));
    assert_eq!(plain.ids, masked.ids, "the same row, only the mask differs");
}

#[test]
fn the_alpaca_prompt_ends_with_the_token_that_ends_a_text() {
    let row = json!({"instruction": "Add.", "input": "1 2", "output": "3"});
    let expected = "Below is an instruction that describes a task, paired with an input that provides further context. \
        Write a response that appropriately completes the request.\n\n### Instruction:\nAdd.\n\n### Input:\n1 2\n\n\
        ### Response:«3<|im_end|>»";
    assert_eq!(marked_row(TemplateSpec::Alpaca, row), expected);
    let expected = "Below is an instruction that describes a task. Write a response that appropriately completes the \
        request.\n\n### Instruction:\nAdd.\n\n### Response:«3<|im_end|>»";
    for row in [
        json!({"instruction": "Add.", "output": "3"}),
        json!({"prompt": "Add.", "completion": "3"}),
        json!({"messages": [turn("user", "Add."), turn("assistant", "3"), turn("user", "Thanks.")]}),
    ] {
        assert_eq!(marked_row(TemplateSpec::Alpaca, row), expected);
    }
}

fn jinja(source: &str) -> TemplateSpec {
    TemplateSpec::Jinja { source: source.to_owned() }
}

#[test]
fn a_template_of_the_users_own_is_masked_alike() {
    let source = "{% for m in messages %}<{{ m.role }}>{{ m.content | trim }}</s>\n{% endfor %}\
                  {% if add_generation_prompt %}<assistant>{% endif %}";
    let row =
        json!({"messages": [turn("user", " q "), turn("assistant", " a "), turn("user", "r"), turn("assistant", "b")]});
    assert_eq!(marked_row(jinja(source), row), "<user>q</s>\n<assistant>«a</s>»\n<user>r</s>\n<assistant>«b</s>»");
}

#[test]
fn a_template_without_end_marker_is_reported_once() {
    let source = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}\
                  {% if add_generation_prompt %}assistant: {% endif %}";
    let row = |question: &str| json!({"prompt": question, "completion": "a"});
    let prepared = prepare_rows(&spec(jinja(source)), &[row("q"), row("r")]).unwrap();
    assert_eq!(marked(&prepared.train[0]), "user: q\nassistant: «a»");
    assert_eq!(prepared.warnings.iter().map(|finding| &*finding.rule).collect::<Vec<_>>(), ["no_end_marker"]);
}

/// A template that drops its thoughts from earlier answers, as templates of reasoning models do.
#[test]
fn answers_that_later_render_otherwise_carry_no_loss() {
    let source = "{% for m in messages %}[{{ m.role }}]{% if m.role == 'assistant' and loop.last %}(thought){% endif %}\
                  {{ m.content }}[end]{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}";
    let row =
        json!({"messages": [turn("user", "q"), turn("assistant", "a"), turn("user", "r"), turn("assistant", "b")]});
    let prepared = prepare_rows(&spec(jinja(source)), &[row]).unwrap();
    assert_eq!(marked(&prepared.train[0]), "[user]q[end][assistant]a[end][user]r[end][assistant]«(thought)b[end]»");
    let finding = &prepared.warnings[0];
    assert_eq!((&*finding.rule, &*finding.pointer), ("template_unstable", "/messages/1"));
    assert!(finding.reason.contains("1 of 2 answers"), "{}", finding.reason);
}

#[test]
fn a_row_is_dropped_where_no_answer_renders_alike() {
    let source = "{% for m in messages %}[{{ m.role }}]{{ m.content }}[end]{% endfor %}\
                  {% if add_generation_prompt %}[model]{% endif %}";
    let row = json!({"prompt": "q", "completion": "a"});
    let Err(PrepareError::NothingToTrain { rows: RowCounts { train: 1, .. }, dropped: 1, findings }) =
        prepare_rows(&spec(jinja(source)), &[row])
    else {
        panic!("the only row should be dropped")
    };
    assert_eq!(findings[0].rule, "template_unstable");
}

#[test]
fn rows_are_cut_at_the_end() {
    let row = json!({"prompt": "q", "completion": "one two three four five six seven eight"});
    let whole = encode_one(&spec(TemplateSpec::Chat), row.clone());
    assert!(!whole.truncated);
    let prompt = whole.ids.len() - whole.supervised_tokens();
    let cut_to = |max_seq_len: usize| PreparationSpec { max_seq_len: max_seq_len as u32, ..spec(TemplateSpec::Chat) };
    let cut = encode_one(&cut_to(prompt + 3), row.clone());
    let told = &prepare_rows(&cut_to(prompt + 3), std::slice::from_ref(&row)).unwrap().warnings[0];
    assert_eq!((told.line, &*told.rule), (1, "answer_truncated"));
    let lost = whole.supervised_tokens() - 3;
    assert!(told.reason.starts_with(&format!("{lost} tokens that carry loss are cut off")), "{}", told.reason);
    assert_eq!((cut.ids.as_slice(), cut.supervised_tokens(), cut.truncated), (&whole.ids[..prompt + 3], 3, true));
    let exact = encode_one(&cut_to(whole.ids.len()), row.clone());
    assert_eq!(exact, whole);
    let Err(PrepareError::NothingToTrain { findings, .. }) = prepare_rows(&cut_to(prompt), &[row]) else {
        panic!("nothing of the answer is left")
    };
    assert_eq!(findings[0].rule, "no_supervised_token");
    assert!(findings[0].reason.contains(&format!("{prompt} tokens come before")), "{}", findings[0].reason);
}

#[test]
fn rows_of_tokens_are_taken_as_they_are() {
    let row = json!({"input_ids": [5, 6, 7, 8, 9], "labels": [5, -100, 7, 8, -100]});
    let encoded = encode_one(&spec(TemplateSpec::Chat), row);
    assert_eq!((encoded.ids, encoded.labels), (vec![5, 6, 7, 8], vec![-100, -100, 7, 8]));
}

/// Exactly the answers and their end markers carry loss, whatever the template; what those are is written out by hand.
#[test]
fn every_template_masks_exactly_the_answers_and_their_end_markers() {
    let row = json!({"messages": [
        turn("system", "Be brief."), turn("user", "1+1?"), turn("assistant", "It is 2"), turn("user", "2+2?"),
        turn("assistant", "It is 4"),
    ]});
    // SmolLM2 begins a text with <|im_start|> and ends one with <|im_end|>.
    let expected = [
        (
            "chatml",
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n1+1?<|im_end|>\n<|im_start|>assistant\n\
             «It is 2<|im_end|>»\n<|im_start|>user\n2+2?<|im_end|>\n<|im_start|>assistant\n«It is 4<|im_end|>»",
        ),
        (
            "llama-2",
            "<|im_start|>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\n1+1? [/INST]« It is 2 <|im_end|>»\
             <|im_start|>[INST] 2+2? [/INST]« It is 4 <|im_end|>»",
        ),
        (
            "llama-3",
            "<|im_start|><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>\
             <|start_header_id|>user<|end_header_id|>\n\n1+1?<|eot_id|>\
             <|start_header_id|>assistant<|end_header_id|>\n\n«It is 2<|eot_id|>»\
             <|start_header_id|>user<|end_header_id|>\n\n2+2?<|eot_id|>\
             <|start_header_id|>assistant<|end_header_id|>\n\n«It is 4<|eot_id|>»",
        ),
        (
            "mistral",
            "<|im_start|>[INST] Be brief.\n\n1+1? [/INST]« It is 2<|im_end|>»[INST] 2+2? [/INST]« It is 4<|im_end|>»",
        ),
        (
            "gemma",
            "<|im_start|><start_of_turn>user\nBe brief.\n\n1+1?<end_of_turn>\n<start_of_turn>model\n\
             «It is 2<end_of_turn>»\n<start_of_turn>user\n2+2?<end_of_turn>\n<start_of_turn>model\n\
             «It is 4<end_of_turn>»",
        ),
        (
            "phi",
            "<|system|>\nBe brief.<|end|>\n<|user|>\n1+1?<|end|>\n<|assistant|>\n«It is 2<|end|>»\n\
             <|user|>\n2+2?<|end|>\n<|assistant|>\n«It is 4<|end|>»",
        ),
        ("plain", "Be brief.\n\n1+1?\n\n«It is 2<|im_end|>»2+2?\n\n«It is 4<|im_end|>»"),
    ];
    assert_eq!(expected.map(|(name, _)| name), TEMPLATES.iter().map(|(name, _)| *name).collect::<Vec<_>>()[..]);
    for (name, text) in expected {
        let template = parse_template(name).unwrap();
        assert_eq!(marked_row(template, row.clone()), text, "{name}");
    }
    let own = marked_row(TemplateSpec::Chat, row);
    assert!(own.ends_with(
        "«It is 2<|im_end|>»\n<|im_start|>user\n2+2?<|im_end|>\n<|im_start|>assistant\n«It is 4<|im_end|>»"
    ));
}
