//! Tools and calls that a template passes over in silence: it would train the model on other rows than these.

use finetuned_protocol::lint::Finding;
use finetuned_weights::{ChatMessage, Conversation, WeightsError};
use serde_json::Value;

use super::turns::messages;
use crate::{example::Turn, rules};

/// Renders a conversation without a generation prompt.
pub(super) type RenderAll<'r> = &'r dyn Fn(Conversation<'_>) -> Result<String, WeightsError>;

const REMEDY: &str = "use a template that knows tools, such as `chatml`, or Jinja of your own";

/// What of the row makes no difference to `text`, its rendering.
///
/// # Errors
/// Any failure but a template that refuses the row without the part in question, which shows that it looks at it.
pub(super) fn unwritten(
    line: u64,
    turns: &[Turn],
    tools: &[Value],
    text: &str,
    render: RenderAll<'_>,
) -> Result<Option<Finding>, WeightsError> {
    let written = messages(turns);
    let makes_no_difference = |messages: &[ChatMessage], tools: &[Value]| match render(Conversation { messages, tools })
    {
        Ok(without) => Ok(without == text),
        Err(WeightsError::Template { .. }) => Ok(false),
        Err(error) => Err(error),
    };
    if !tools.is_empty() && makes_no_difference(&written, &[])? {
        let reason = format!("the template does not write the row's tools, so the model would not see them; {REMEDY}");
        return Ok(Some(rules::TEMPLATE_MISMATCH.at(line, "/tools", reason)));
    }
    for index in (0..turns.len()).filter(|index| !turns[*index].calls.is_empty()) {
        let mut fewer = written.clone();
        fewer[index].tool_calls.pop();
        if makes_no_difference(&fewer, tools)? {
            let reason =
                format!("the template does not write the calls of tools, which could not be learned; {REMEDY}");
            return Ok(Some(rules::TEMPLATE_MISMATCH.at(line, format!("/messages/{index}/tool_calls"), reason)));
        }
    }
    Ok(None)
}
