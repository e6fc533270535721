//! The texts of a row, whatever its format, each with its place.

use finetuned_protocol::lint::RowFormat;

use crate::example::{Example, Role, ToolCall, Turn};

/// Who says a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Speaker {
    /// What stands before the question: alike in many rows.
    System,
    Asker,
    /// What is learned.
    Answerer,
    /// Arguments of a call, as JSON: learned too, but no language.
    Caller,
}

/// One text of a row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TextOf<'e> {
    place: TextPlace,
    pub speaker: Speaker,
    pub text: &'e str,
}

#[derive(Debug, Clone, Copy)]
enum TextPlace {
    Field(&'static str),
    Message(usize),
    Call { message: usize, call: usize },
}

impl TextOf<'_> {
    /// JSON pointer into a row of `format`. Made only where it is needed: most rows have no findings.
    pub fn pointer(&self, format: RowFormat) -> String {
        match (self.place, format) {
            (TextPlace::Field(name), _) => format!("/{name}"),
            (TextPlace::Message(index), RowFormat::Chat) => format!("/messages/{index}/content"),
            (TextPlace::Call { message, call }, RowFormat::Chat) => {
                format!("/messages/{message}/tool_calls/{call}/function/arguments")
            }
            // Earlier questions, which stand before the row's own in one of many spellings.
            (TextPlace::Message(_) | TextPlace::Call { .. }, _) => String::new(),
        }
    }
}

/// Gives the texts in the order in which they are said.
pub(crate) fn each_text<'e>(example: &'e Example, each: &mut dyn FnMut(TextOf<'e>)) {
    let field = |each: &mut dyn FnMut(TextOf<'e>), name, speaker, text: &'e String| {
        each(TextOf { place: TextPlace::Field(name), speaker, text });
    };
    match example {
        Example::Chat { turns, .. } => each_turn(turns, each),
        Example::PromptCompletion { prompt, completion } => {
            field(each, "prompt", Speaker::Asker, prompt);
            field(each, "completion", Speaker::Answerer, completion);
        }
        Example::Alpaca { instruction, input, output } => {
            field(each, "instruction", Speaker::Asker, instruction);
            field(each, "input", Speaker::Asker, input);
            field(each, "output", Speaker::Answerer, output);
        }
        Example::Text(text) => field(each, "text", Speaker::Answerer, text),
        Example::Preference { prompt, chosen, rejected } => {
            each_turn(prompt, each);
            each(TextOf { place: TextPlace::Field("chosen"), speaker: Speaker::Answerer, text: chosen });
            // Not learned, but a secret in it is one.
            each(TextOf { place: TextPlace::Field("rejected"), speaker: Speaker::System, text: rejected });
        }
        Example::Tokens { .. } => {}
    }
}

fn each_turn<'e>(turns: &'e [Turn], each: &mut dyn FnMut(TextOf<'e>)) {
    for (index, turn) in turns.iter().enumerate() {
        let speaker = match turn.role {
            Role::System | Role::Developer => Speaker::System,
            Role::Assistant => Speaker::Answerer,
            Role::User | Role::Tool | Role::Function => Speaker::Asker,
        };
        each(TextOf { place: TextPlace::Message(index), speaker, text: &turn.content });
        for (call, ToolCall { arguments, .. }) in turn.calls.iter().enumerate() {
            let place = TextPlace::Call { message: index, call };
            each(TextOf { place, speaker: Speaker::Caller, text: arguments });
        }
    }
}
