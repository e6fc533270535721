//! Datasets that tests train on.

use serde_json::json;

const COLOURS: [&str; 8] = ["red", "green", "blue", "white", "black", "pink", "grey", "brown"];

/// `count` different Alpaca rows as JSON lines; row `i` is the same in every call.
pub fn alpaca(count: usize) -> String {
    let row = |i: usize| json!({"instruction": format!("Which colour has number {i}?"), "input": "", "output": COLOURS[i % 8]});
    (0..count).map(|i| row(i).to_string() + "\n").collect()
}

/// `count` different chat rows as JSON lines.
pub fn chat(count: usize) -> String {
    let row = |i: usize| {
        json!({"messages": [
            {"role": "user", "content": format!("Which colour has number {i}?")},
            {"role": "assistant", "content": COLOURS[i % 8]},
        ]})
    };
    (0..count).map(|i| row(i).to_string() + "\n").collect()
}
