//! The prompt published with Stanford Alpaca (Taori et al. 2023), in its two forms: with an input and without.

use finetuned_protocol::lint::Finding;

use super::turns::up_to_last_answer;
use crate::{
    example::{Example, Role},
    rules,
};

/// The parts of a row that the Alpaca prompt has room for.
pub(super) struct AlpacaParts<'e> {
    pub instruction: &'e str,
    pub input: &'e str,
    pub output: &'e str,
    /// Weight of the output.
    pub weight: f32,
}

/// A chat fits where it is one question and its answer; a prompt is an instruction without input. Tokens never fit.
pub(super) fn parts(example: &Example, line: u64) -> Result<AlpacaParts<'_>, Finding> {
    match example {
        Example::Alpaca { instruction, input, output } => Ok(AlpacaParts { instruction, input, output, weight: 1.0 }),
        Example::PromptCompletion { prompt, completion } => {
            Ok(AlpacaParts { instruction: prompt, input: "", output: completion, weight: 1.0 })
        }
        Example::Chat { turns, tools } => match up_to_last_answer(turns) {
            [question, answer] if question.role == Role::User && answer.calls.is_empty() && tools.is_empty() => {
                let (instruction, output) = (&question.content, &answer.content);
                Ok(AlpacaParts { instruction, input: "", output, weight: answer.weight })
            }
            _ => {
                let reason = "the template `alpaca` has room for one question and its answer, not for a system message, \
                              several turns or tools; use the template `chat`";
                Err(rules::TEMPLATE_MISMATCH.at(line, "/messages", reason))
            }
        },
        Example::Tokens { .. } | Example::Text(_) | Example::Preference { .. } => {
            Err(rules::TEMPLATE_MISMATCH.at(line, "", "rows of this format are used without a template"))
        }
    }
}

/// The text before the answer, which follows it at once.
pub(super) fn prompt(instruction: &str, input: &str) -> String {
    let task = "Below is an instruction that describes a task";
    let ask = "Write a response that appropriately completes the request.";
    if input.is_empty() {
        format!("{task}. {ask}\n\n### Instruction:\n{instruction}\n\n### Response:")
    } else {
        format!(
            "{task}, paired with an input that provides further context. {ask}\n\n\
             ### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:"
        )
    }
}
