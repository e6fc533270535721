//! Whether a text is JSON.

use serde::de::IgnoredAny;

pub(crate) fn is_json(text: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(text).is_ok()
}

/// Whether a reference asks for JSON. Many a plain answer is a JSON number or word by accident, so only objects and
/// arrays do.
pub(crate) fn wants_json(reference: &str) -> bool {
    reference.trim_start().starts_with(['{', '[']) && is_json(reference)
}
