//! A user's template, up to the first NUL, and what it writes: a chat of the rest, with tools and calls.
#![no_main]

use std::sync::LazyLock;

use finetuned_weights::{ChatCall, ChatMessage, Conversation, TextTokenizer, check_user_template};
use libfuzzer_sys::fuzz_target;
use serde_json::json;

static TOKENIZER: LazyLock<TextTokenizer> = LazyLock::new(finetuned_fuzz::tokenizer);

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (source, said) = text.split_once('\0').unwrap_or((text, "hi"));
    let compiles = check_user_template(source).is_ok();
    let mut answer = ChatMessage::new("assistant", said);
    answer.tool_calls =
        vec![ChatCall { id: Some("c1".into()), name: "f".into(), arguments: json!({"x": [said, 1, null]}) }];
    let messages = [ChatMessage::new("system", "s"), ChatMessage::new("user", said), answer];
    let tools = [json!({"type": "function", "function": {"name": "f", "description": said}})];
    let rendered = TOKENIZER.render_jinja(source, Conversation { messages: &messages, tools: &tools }, true);
    assert!(compiles || rendered.is_err(), "what cannot be used is refused before it runs");
});
