//! JSON and code fences.

use super::Judged;
use crate::json::{is_json, wants_json};

pub(super) fn is_broken(row: &Judged<'_>) -> bool {
    (wants_json(row.reference) && !is_json(row.answer)) || has_broken_fence(row.answer)
}

/// A fence that nobody closes, or one marked `json` around what is none.
fn has_broken_fence(text: &str) -> bool {
    let mut inside: Option<(bool, String)> = None;
    for line in text.lines() {
        match (&mut inside, line.trim_start().strip_prefix("```")) {
            (None, Some(mark)) => inside = Some((mark.trim().eq_ignore_ascii_case("json"), String::new())),
            (Some((json, content)), Some(_)) => {
                if *json && !is_json(content) {
                    return true;
                }
                inside = None;
            }
            (Some((_, content)), None) => {
                content.push_str(line);
                content.push('\n');
            }
            (None, None) => {}
        }
    }
    inside.is_some()
}
