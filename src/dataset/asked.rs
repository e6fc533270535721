//! What a row teaches, as questions with their answers, whatever its format.

use crate::{
    example::{Example, Role, Turn},
    prepare::{readable, turns_of},
};

/// An answer that is learned, and what stands before it.
#[derive(Debug, Clone, PartialEq)]
pub struct Asked {
    /// Empty for a document.
    pub prompt: Vec<Turn>,
    pub answer: String,
    /// JSON pointer to the answer within the row; to the whole row where it may stand in several places.
    pub pointer: String,
}

impl Asked {
    /// The prompt as a person reads it.
    pub fn prompt_text(&self) -> String {
        readable(&self.prompt)
    }
}

/// The answers of a row that carry loss, the last one first: of a pair the better one, of a document the whole. Rows that
/// came as tokens have none.
pub fn asked(example: &Example) -> Vec<Asked> {
    match example {
        Example::Tokens { .. } => Vec::new(),
        Example::Text(text) => vec![Asked { prompt: Vec::new(), answer: text.clone(), pointer: "/text".to_owned() }],
        Example::Preference { prompt, chosen, .. } => {
            vec![Asked { prompt: prompt.clone(), answer: chosen.clone(), pointer: String::new() }]
        }
        Example::Chat { .. } | Example::PromptCompletion { .. } | Example::Alpaca { .. } => {
            let turns = turns_of(example).unwrap_or_default();
            // What calls a function has no text of its own to look at.
            let is_answer = |turn: &Turn| turn.is_supervised() && turn.calls.is_empty();
            let answers = turns.iter().enumerate().rev().filter(|(_, turn)| is_answer(turn));
            let answers = answers.map(|(index, turn)| Asked {
                prompt: turns[..index].to_vec(),
                answer: turn.content.clone(),
                pointer: pointer(example, index),
            });
            answers.collect()
        }
    }
}

fn pointer(example: &Example, turn: usize) -> String {
    match example {
        Example::PromptCompletion { .. } => "/completion".to_owned(),
        Example::Alpaca { .. } => "/output".to_owned(),
        _ => format!("/messages/{turn}/content"),
    }
}

/// Messages as the wire format has them, such as `[{"role": "user", "content": "…"}]`.
pub fn messages_json(turns: &[Turn]) -> serde_json::Value {
    turns
        .iter()
        .map(|Turn { role, content, .. }| serde_json::json!({"role": role.as_str(), "content": content}))
        .collect()
}

/// A single question of a user.
pub fn question(text: &str) -> Vec<Turn> {
    vec![Turn::new(Role::User, text)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_come_with_what_stands_before_them() {
        let turn = |role, text: &str| Turn::new(role, text);
        let mut silent = turn(Role::Assistant, "hm");
        silent.weight = 0.0;
        let turns = vec![
            turn(Role::System, "be brief"),
            turn(Role::User, "hi"),
            turn(Role::Assistant, "hello"),
            turn(Role::User, "well?"),
            silent,
            turn(Role::User, "say"),
            turn(Role::Assistant, "yes"),
        ];
        let chat = Example::Chat { turns, tools: Vec::new() };
        let found = asked(&chat);
        let places: Vec<_> =
            found.iter().map(|one| (one.answer.as_str(), one.pointer.as_str(), one.prompt.len())).collect();
        assert_eq!(places, [("yes", "/messages/6/content", 6), ("hello", "/messages/2/content", 2)]);
        assert_eq!(found[1].prompt_text(), "system: be brief\n\nuser: hi");
        assert_eq!(messages_json(&found[1].prompt)[1], serde_json::json!({"role": "user", "content": "hi"}));
    }

    #[test]
    fn every_format_says_where_its_answer_stands() {
        let alpaca = Example::Alpaca { instruction: "Add".into(), input: "1 2".into(), output: "3".into() };
        let pair = Example::PromptCompletion { prompt: "a".into(), completion: "b".into() };
        let liked = Example::Preference { prompt: question("q"), chosen: "c".into(), rejected: "d".into() };
        let text = Example::Text("t".into());
        let of = |example: &Example| {
            let found = asked(example).remove(0);
            (found.prompt_text(), found.answer, found.pointer)
        };
        assert_eq!(of(&alpaca), ("Add\n1 2".into(), "3".into(), "/output".into()));
        assert_eq!(of(&pair), ("a".into(), "b".into(), "/completion".into()));
        assert_eq!(of(&liked), ("q".into(), "c".into(), String::new()));
        assert_eq!((of(&text).1, of(&text).2), ("t".into(), "/text".into()));
        assert!(asked(&Example::Tokens { input_ids: vec![1], labels: vec![1] }).is_empty());
    }
}
