//! Rows with tools and calls.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use serde_json::{Value, json};

use super::tests::{assistant, lint, of_messages, of_row, user};

fn tool(name: &str) -> Value {
    json!({"type": "function", "function": {
        "name": name, "description": "d", "parameters": {"type": "object", "properties": {}},
    }})
}

fn called(id: &str, name: &str) -> Value {
    json!({"id": id, "type": "function", "function": {"name": name, "arguments": "{\"city\": \"Oslo\"}"}})
}

fn calls(calls: Value) -> Value {
    json!({"role": "assistant", "content": null, "tool_calls": calls})
}

fn answer(id: &str) -> Value {
    json!({"role": "tool", "tool_call_id": id, "content": "rain"})
}

#[test]
fn rows_with_calls_as_openai_has_them_have_no_findings() {
    let good = [
        json!({
            "messages": [user("q"), calls(json!([called("c1", "sky"), called("c2", "sea")])), answer("c2"), answer("c1"),
                assistant("Rain.")],
            "tools": [tool("sky"), tool("sea")], "parallel_tool_calls": false,
        }),
        json!({
            "messages": [user("q"), calls(json!([called("c1", "sky")]))],
            "tools": [tool("sky")],
        }),
        // Without tools, and with the content left out.
        json!({"messages": [user("q"), {"role": "assistant", "tool_calls": [called("c1", "sky")]}, answer("c1"),
            assistant("a")]}),
        // The older form.
        json!({
            "messages": [user("q"),
                {"role": "assistant", "content": null, "function_call": {"name": "sky", "arguments": "{}"}},
                {"role": "function", "name": "sky", "content": "rain"}, assistant("Rain.")],
            "functions": [{"name": "sky", "parameters": {"type": "object"}}],
        }),
        // As files of columns have it.
        json!({"messages": [user("q"), assistant("a")], "tools": json!([tool("sky")]).to_string()}),
    ];
    for row in good {
        let (summary, findings) = lint(format!("{row}\n").as_bytes());
        assert!(findings.is_empty() && summary.is_usable(), "{row}: {findings:?}");
    }
}

#[test]
fn calls_that_cannot_be_read_are_named() {
    let of_call = |call: Value| of_messages(json!([user("q"), calls(json!([call]))]));
    let place = |rest: &str| vec![format!("/messages/1/tool_calls/0{rest} tool_call_invalid")];
    let with = |name: &str, value: Value| {
        let mut call = called("c1", "sky");
        call["function"][name] = value;
        of_call(call)
    };
    assert_eq!(with("arguments", json!({"city": "Oslo"})), place("/function/arguments"));
    assert_eq!(with("arguments", json!("Oslo")), place("/function/arguments"));
    assert_eq!(with("arguments", json!("[1]")), place("/function/arguments"));
    assert_eq!(with("arguments", Value::Null), place("/function/arguments"));
    assert_eq!(with("name", json!("")), place("/function/name"));
    assert_eq!(of_call(json!("sky()")), place(""));
    assert_eq!(of_call(json!({"id": "c1", "type": "function"})), place("/function"));
    assert_eq!(
        of_call(json!({"id": "c1", "type": "custom", "function": {"name": "a", "arguments": "{}"}})),
        place("/type")
    );
    assert_eq!(of_call(json!({"function": {"name": "a", "arguments": "{}"}})), place("/id"));
    let no_array = json!({"role": "assistant", "content": "x", "tool_calls": {"id": "c1"}});
    assert_eq!(of_messages(json!([user("q"), no_array])), ["/messages/1/tool_calls field_type"]);
    let of_user = json!([{"role": "user", "content": "q", "tool_calls": [called("c1", "sky")]}, assistant("a")]);
    assert_eq!(of_messages(of_user), ["/messages/0/tool_calls field_unknown"]);
    assert_eq!(of_messages(json!([user("q"), calls(json!([]))])), ["/messages/1/content answer_missing"]);
}

#[test]
fn tools_that_cannot_be_read_are_named() {
    let of_tools = |tools: Value| of_row(&json!({"messages": [user("q"), assistant("a")], "tools": tools}));
    let mut unnamed = tool("sky");
    unnamed["function"]["name"] = json!("a b");
    let mut listed = tool("sky");
    listed["function"]["parameters"] = json!([]);
    for bad in [json!("sky"), json!({"type": "function"}), json!({"type": "web_search"}), unnamed, listed] {
        assert_eq!(of_tools(json!([tool("sea"), bad])), ["/tools/1 tool_invalid"], "{bad}");
    }
    assert_eq!(of_tools(json!([tool("sky"), tool("sky")])), ["/tools tool_invalid"]);
    assert_eq!(of_tools(json!("nonsense")), ["/tools tool_invalid"]);
    assert_eq!(of_tools(json!(5)), ["/tools field_type"]);
}

#[test]
fn a_tool_answers_a_call_that_exists_and_calls_are_answered() {
    let call = |id: &str| calls(json!([called(id, "sky")]));
    let unmatched = |messages: Value, index: usize| {
        assert_eq!(of_messages(messages), [format!("/messages/{index} tool_answer_unmatched")]);
    };
    unmatched(json!([user("q"), answer("c1"), assistant("a")]), 1);
    unmatched(json!([user("q"), call("c1"), answer("c1"), answer("c1"), assistant("a")]), 3);
    let messages = json!([user("q"), call("c1"), answer("c2"), assistant("a")]);
    assert_eq!(of_messages(messages), ["/messages/2 tool_answer_unmatched", "/messages/3 tool_call_unanswered"]);
    // An answer that comes after another message.
    let late = json!([user("q"), call("c1"), assistant("a"), answer("c1"), assistant("b")]);
    let found = of_messages(late);
    assert!(found.contains(&"/messages/3 tool_answer_unmatched".to_owned()), "{found:?}");
    assert!(found.contains(&"/messages/2 tool_call_unanswered".to_owned()), "{found:?}");
    let unknown = json!({"messages": [user("q"), call("c1")], "tools": [tool("sea")]});
    assert_eq!(of_row(&unknown), ["/messages/1/tool_calls/0 tool_unknown"]);
}

#[test]
fn arguments_are_part_of_what_a_row_is() {
    let row = |arguments: &str| {
        let call = json!({"id": "c1", "type": "function", "function": {"name": "sky", "arguments": arguments}});
        format!("{}\n", json!({"messages": [user("q"), calls(json!([call]))]}))
    };
    let file = [row("{\"city\": \"Oslo\"}"), row("{\"city\": \"Rome\"}"), row("{ \"city\":\"Oslo\" }")].concat();
    assert_eq!(lint(file.as_bytes()).1, ["3  duplicate_row"]);
}
