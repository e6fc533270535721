//! What a row means, whatever its spelling.

use finetuned_protocol::lint::RowFormat;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// Who speaks in a chat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    System,
    /// OpenAI's newer name of the system role; templates see it as `system`, which they know.
    Developer,
    User,
    Assistant,
    Tool,
    /// The deprecated name of the tool role.
    Function,
}

impl Role {
    pub const NAMES: [&'static str; 6] = ["system", "developer", "user", "assistant", "tool", "function"];

    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "system" => Self::System,
            "developer" => Self::Developer,
            "user" => Self::User,
            "assistant" => Self::Assistant,
            "tool" => Self::Tool,
            "function" => Self::Function,
            _ => return None,
        })
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Developer => "developer",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
            Self::Function => "function",
        }
    }

    /// The name that a template sees.
    pub fn template_name(self) -> &'static str {
        if self == Self::Developer { "system" } else { self.as_str() }
    }
}

/// One message of a chat.
#[derive(Debug, Clone, PartialEq)]
pub struct Turn {
    pub role: Role,
    /// Text parts, where there were several, one after the other.
    pub content: String,
    /// What an answer's loss is multiplied by: 1 unless the row says otherwise, 0 for none. Of no meaning for others than
    /// assistants.
    pub weight: f32,
    /// What an assistant calls; its content may then be empty.
    pub calls: Vec<ToolCall>,
    /// Id of the call that a tool answers.
    pub call_id: Option<String>,
    /// The function that a tool is.
    pub name: Option<String>,
}

/// A call of a function.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolCall {
    /// None in the older form, which has one call at most.
    pub id: Option<String>,
    pub name: String,
    /// A JSON object without white space, its fields in the order of the row.
    pub arguments: String,
}

impl Turn {
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        Self { role, content: content.into(), weight: 1.0, calls: Vec::new(), call_id: None, name: None }
    }

    /// Bytes of what it says and calls.
    fn text_bytes(&self) -> usize {
        let calls = self.calls.iter().map(|call| call.name.len() + call.arguments.len());
        self.content.len() + calls.sum::<usize>()
    }

    /// An answer to be learned.
    pub fn is_supervised(&self) -> bool {
        self.role == Role::Assistant && self.weight > 0.0
    }
}

/// A row that can be trained on.
#[derive(Debug, Clone, PartialEq)]
pub enum Example {
    Chat {
        turns: Vec<Turn>,
        /// Functions that may be called, as OpenAI's `tools` has them.
        tools: Vec<Value>,
    },
    PromptCompletion {
        prompt: String,
        completion: String,
    },
    /// `input` is empty where the row has none.
    Alpaca {
        instruction: String,
        input: String,
        output: String,
    },
    /// Tokenised elsewhere; `labels` are -100 or equal to the id at their place, as many as `input_ids`.
    Tokens {
        input_ids: Vec<u32>,
        labels: Vec<i64>,
    },
    /// A document, every token of which is learned.
    Text(String),
    /// Two answers to one question.
    Preference {
        /// Up to the question; none of these turns carries loss.
        prompt: Vec<Turn>,
        chosen: String,
        rejected: String,
    },
}

impl Example {
    pub fn format(&self) -> RowFormat {
        match self {
            Self::Chat { .. } => RowFormat::Chat,
            Self::PromptCompletion { .. } => RowFormat::PromptCompletion,
            Self::Alpaca { .. } => RowFormat::Alpaca,
            Self::Tokens { .. } => RowFormat::Tokens,
            Self::Text(_) => RowFormat::Text,
            Self::Preference { .. } => RowFormat::Preference,
        }
    }

    /// Bytes of its texts, or of its ids.
    pub(crate) fn text_bytes(&self) -> usize {
        match self {
            Self::Chat { turns, tools } => {
                let tools = tools.iter().map(|tool| tool.to_string().len());
                turns.iter().map(Turn::text_bytes).sum::<usize>() + tools.sum::<usize>()
            }
            Self::PromptCompletion { prompt, completion } => prompt.len() + completion.len(),
            Self::Alpaca { instruction, input, output } => instruction.len() + input.len() + output.len(),
            Self::Tokens { input_ids, .. } => size_of_val(input_ids.as_slice()),
            Self::Text(text) => text.len(),
            Self::Preference { prompt, chosen, rejected } => {
                prompt.iter().map(Turn::text_bytes).sum::<usize>() + chosen.len() + rejected.len()
            }
        }
    }

    /// SHA-256 of what the row means: equal for two spellings (order of keys, escapes, white space) of one example.
    pub fn digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        match self {
            Self::Chat { turns, tools } => {
                hash.update(b"chat");
                turns.iter().for_each(|turn| hash_turn(&mut hash, turn));
                for tool in tools {
                    hash.update(b"tool");
                    hash_text(&mut hash, &tool.to_string());
                }
            }
            Self::PromptCompletion { prompt, completion } => {
                hash.update(b"pair");
                hash_text(&mut hash, prompt);
                hash_text(&mut hash, completion);
            }
            Self::Alpaca { instruction, input, output } => {
                hash.update(b"alpa");
                for text in [instruction, input, output] {
                    hash_text(&mut hash, text);
                }
            }
            Self::Tokens { input_ids, labels } => {
                hash.update(b"toks");
                hash.update((input_ids.len() as u64).to_le_bytes());
                input_ids.iter().for_each(|id| hash.update(id.to_le_bytes()));
                labels.iter().for_each(|label| hash.update(label.to_le_bytes()));
            }
            Self::Text(text) => {
                hash.update(b"text");
                hash_text(&mut hash, text);
            }
            Self::Preference { prompt, chosen, rejected } => {
                hash.update(b"pref");
                prompt.iter().for_each(|turn| hash_turn(&mut hash, turn));
                hash_text(&mut hash, chosen);
                hash_text(&mut hash, rejected);
            }
        }
        hash.finalize().into()
    }
}

/// An answer counts by whether it carries loss, however much: what is otherwise equal is one example.
fn hash_turn(hash: &mut Sha256, turn: &Turn) {
    hash_text(hash, turn.role.as_str());
    hash_text(hash, &turn.content);
    hash.update([u8::from(turn.is_supervised())]);
    for call in &turn.calls {
        hash.update(b"call");
        hash_text(hash, &call.name);
        hash_text(hash, &call.arguments);
    }
}

/// Length first, so that two texts never hash as another two.
fn hash_text(hash: &mut Sha256, text: &str) {
    hash.update((text.len() as u64).to_le_bytes());
    hash.update(text.as_bytes());
}

/// A good row and where it was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Line where the row starts, counted from 1.
    pub line: u64,
    pub example: Example,
    /// What the loss of the whole row is multiplied by, beside the weights of its answers.
    pub weight: f32,
    /// [`Example::digest`].
    pub digest: [u8; 32],
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(prompt: &str, completion: &str) -> Example {
        Example::PromptCompletion { prompt: prompt.into(), completion: completion.into() }
    }

    #[test]
    fn digests_follow_the_meaning_and_nothing_else() {
        assert_eq!(pair("a", "b").digest(), pair("a", "b").digest());
        assert_ne!(pair("a", "b").digest(), pair("ab", "").digest());
        let alpaca = Example::Alpaca { instruction: "a".into(), input: String::new(), output: "b".into() };
        assert_ne!(alpaca.digest(), pair("a", "b").digest());
    }

    #[test]
    fn a_weight_counts_only_by_whether_there_is_loss() {
        let chat = |weight| {
            Example::Chat { turns: vec![Turn { weight, ..Turn::new(Role::Assistant, "x") }], tools: Vec::new() }
                .digest()
        };
        assert_eq!(chat(1.0), chat(0.25));
        assert_ne!(chat(1.0), chat(0.0));
    }

    #[test]
    fn role_names_are_parsed_back() {
        for name in Role::NAMES {
            assert_eq!(Role::parse(name).map(Role::as_str), Some(name));
        }
        assert_eq!(Role::parse("robot"), None);
    }
}
