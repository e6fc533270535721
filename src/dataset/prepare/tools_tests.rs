//! Tools and calls through templates: exactly the assistant's tokens carry loss, or the row is refused by name.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use finetuned_protocol::{request::parse_template, spec::TemplateSpec, templates::TEMPLATES};
use finetuned_weights::ModelSource;
use serde_json::{Value, json};

use super::{
    mask_tests::{encode_one, marked},
    tests::*,
    *,
};

fn row() -> Value {
    let call = |id: &str, city: &str| {
        let arguments = format!("{{\"city\": \"{city}\", \"unit\": \"C\"}}");
        json!({"id": id, "type": "function", "function": {"name": "sky", "arguments": arguments}})
    };
    json!({
        "messages": [
            {"role": "user", "content": "Oslo?"},
            {"role": "assistant", "content": null, "tool_calls": [call("c1", "Oslo"), call("c2", "Rome")]},
            {"role": "tool", "tool_call_id": "c1", "content": "rain"},
            {"role": "tool", "tool_call_id": "c2", "content": "sun"},
            {"role": "assistant", "content": "It rains."},
            {"role": "user", "content": "Bergen?"},
            {"role": "assistant", "content": "I look.", "tool_calls": [call("c3", "Bergen")]},
        ],
        "tools": [{"type": "function", "function": {"name": "sky", "parameters": {"type": "object"}}}],
    })
}

const CHATML: &str = "<|im_start|>system\nFunctions that can be called, each with a JSON Schema of its arguments:\n<tools>\n\
    {\"type\": \"function\", \"function\": {\"name\": \"sky\", \"parameters\": {\"type\": \"object\"}}}\n</tools>\n\
    A call is written as a JSON object:\n<tool_call>\n{\"name\": <name>, \"arguments\": <object>}\n</tool_call><|im_end|>\n\
    <|im_start|>user\nOslo?<|im_end|>\n<|im_start|>assistant\n\
    «<tool_call>\n{\"name\": \"sky\", \"arguments\": {\"city\": \"Oslo\", \"unit\": \"C\"}}\n</tool_call>\n\
    <tool_call>\n{\"name\": \"sky\", \"arguments\": {\"city\": \"Rome\", \"unit\": \"C\"}}\n</tool_call><|im_end|>»\n\
    <|im_start|>tool\nrain<|im_end|>\n<|im_start|>tool\nsun<|im_end|>\n<|im_start|>assistant\n«It rains.<|im_end|>»\n\
    <|im_start|>user\nBergen?<|im_end|>\n<|im_start|>assistant\n\
    «I look.\n<tool_call>\n{\"name\": \"sky\", \"arguments\": {\"city\": \"Bergen\", \"unit\": \"C\"}}\n</tool_call>\
    <|im_end|>»";

/// Every template by name, and SmolLM2's own, either masks exactly or refuses the row.
#[test]
fn every_template_masks_calls_exactly_or_refuses_them() {
    let expected = [
        ("chatml", Ok(CHATML)),
        ("llama-2", Err(("template_failed", ""))),
        ("llama-3", Err(("template_mismatch", "/tools"))),
        ("mistral", Err(("template_failed", ""))),
        ("gemma", Err(("template_failed", ""))),
        ("phi", Err(("template_mismatch", "/tools"))),
        ("plain", Err(("template_mismatch", "/tools"))),
    ];
    assert_eq!(expected.map(|(name, _)| name), TEMPLATES.iter().map(|(name, _)| *name).collect::<Vec<_>>()[..]);
    let all = expected.into_iter().map(|(name, expected)| (parse_template(name).unwrap(), expected));
    let rest =
        [TemplateSpec::Chat, TemplateSpec::Alpaca].map(|template| (template, Err(("template_mismatch", "/messages"))));
    for (template, expected) in all.chain(rest) {
        match (prepare_rows(&spec(template.clone()), &[row()]), expected) {
            (Ok(mut prepared), Ok(expected)) => assert_eq!(marked(&prepared.train.remove(0)), expected),
            (Err(PrepareError::Rows { findings, total: 1, .. }), Err((rule, pointer))) => {
                assert_eq!(findings[0].rule, rule);
                let own = if template == TemplateSpec::Chat { "/tools" } else { pointer };
                assert_eq!(findings[0].pointer, own);
                assert!(findings[0].reason.contains("template"), "{}", findings[0].reason);
            }
            (other, expected) => panic!("{template:?}: {other:?} where {expected:?} was expected"),
        }
    }
}

/// Calls without a list of tools need a template that writes calls.
#[test]
fn calls_that_a_template_passes_over_are_refused_where_they_are() {
    let mut row = row();
    row.as_object_mut().unwrap().remove("tools");
    let Err(PrepareError::Rows { findings, .. }) = prepare_rows(&spec(TemplateSpec::Chat), &[row.clone()]) else {
        panic!("SmolLM2's template writes no calls")
    };
    assert_eq!((&*findings[0].rule, &*findings[0].pointer), ("template_mismatch", "/messages/1/tool_calls"));
    // One that writes the first call alone.
    let source = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% if m.tool_calls %}\
                  {{ m.tool_calls[0].function.name }}{% endif %}[end]\
                  {% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}";
    let jinja = TemplateSpec::Jinja { source: source.to_owned() };
    let Err(PrepareError::Rows { findings, .. }) = prepare_rows(&spec(jinja), &[row]) else {
        panic!("the second call is not written")
    };
    assert_eq!((&*findings[0].rule, &*findings[0].pointer), ("template_mismatch", "/messages/1/tool_calls"));
}

/// A model's own template of the shape that tool-calling models publish: arguments as JSON, ids, a tool's answers gathered.
const OWN: &str = "{%- if tools is not none %}{{- '<|im_start|>system\\n' }}{%- for tool in tools %}\
    {{- tool.function | tojson }}{%- endfor %}{{- '<|im_end|>\\n' }}{%- endif %}{%- for message in messages %}\
    {%- if message.role == 'tool' %}{%- if messages[loop.index0 - 1].role != 'tool' %}{{- '<|im_start|>user' }}{%- endif %}\
    {{- '\\n' + message.tool_call_id + '=' + message.content }}\
    {%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{- '<|im_end|>\\n' }}{%- endif %}\
    {%- else %}{{- '<|im_start|>' + message.role + '\\n' + message.content }}\
    {%- if message.tool_calls is defined %}{%- for call in message.tool_calls %}\
    {{- call.id + ':' + call.function.name + call.function.arguments | tojson }}{%- endfor %}{%- endif %}\
    {{- '<|im_end|>\\n' }}{%- endif %}{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}";

#[test]
fn a_models_own_template_sees_tools_calls_and_their_ids() {
    let tiny = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/tiny-chat");
    let folder = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(tiny).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), folder.path().join(file.file_name())).unwrap();
    }
    let path = folder.path().join("tokenizer_config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    config["chat_template"] = OWN.into();
    std::fs::write(&path, config.to_string()).unwrap();
    let tokenizer = ModelSource::open(folder.path()).unwrap().tokenizer().unwrap();
    let rows = folder.path().join("rows.jsonl");
    std::fs::write(&rows, format!("{}\n", row())).unwrap();
    let spec = spec(TemplateSpec::Chat);
    let go_on = &mut |_, _| ControlFlow::Continue(());
    let prepared = prepare(&spec, &rows, Some(&rows), &tokenizer, go_on).unwrap();
    let supervised = |encoded: &Encoded| {
        let kept = encoded.ids.iter().zip(&encoded.labels).filter(|(_, label)| **label != IGNORED_LABEL);
        tokenizer.decode(&kept.map(|(id, _)| *id).collect::<Vec<_>>(), false).unwrap()
    };
    let calls = "c1:sky{\"city\": \"Oslo\", \"unit\": \"C\"}c2:sky{\"city\": \"Rome\", \"unit\": \"C\"}<|im_end|>";
    let last = "I look.c3:sky{\"city\": \"Bergen\", \"unit\": \"C\"}";
    assert_eq!(supervised(&prepared.train[0]), format!("{calls}It rains.<|im_end|>{last}<|im_end|>"));
    let whole = tokenizer.decode(&prepared.train[0].ids, false).unwrap();
    assert!(whole.contains("user\nc1=rain\nc2=sun<|im_end|>"), "{whole}");
    // The held-out question is the last answer's, and its reference the calls as they are written.
    assert_eq!(prepared.held_out[0].reference, last);
    assert!(prepared.held_out[0].prompt_text.contains("assistant: sky({\"city\":\"Oslo\",\"unit\":\"C\"})"));
}

#[test]
fn a_calling_answer_of_weight_zero_carries_no_loss() {
    let mut row = row();
    row["messages"][1]["weight"] = json!(0);
    let text = marked(&encode_one(&spec(parse_template("chatml").unwrap()), row));
    assert!(!text.contains("«<tool_call>") && text.contains("«It rains.<|im_end|>»"), "{text}");
}
