//! Which layers see all earlier tokens, and which a window of them.

use serde_json::Value;

use super::fields::Fields;
use crate::error::WeightsError;

/// What a layer attends to: so many tokens, itself included, or all.
pub type Window = Option<u32>;

/// One window for each layer, by `layer_types` where it is given and else by `slides`, which says of a layer's index
/// whether it has the window of `sliding_window`.
pub(super) fn read(
    fields: &Fields<'_>,
    layers: u32,
    window: Window,
    slides: impl Fn(u32) -> bool,
) -> Result<Vec<Window>, WeightsError> {
    let Some(kinds) = fields.maybe_list("layer_types")? else {
        return (0..layers).map(|layer| choose(fields, window, slides(layer))).collect();
    };
    if kinds.len() != layers as usize {
        let reason = format!("must have one entry for each of the {layers} layers; it has {}", kinds.len());
        return Err(WeightsError::config(fields.name("layer_types"), reason));
    }
    let kind = |value: &Value| match value.as_str() {
        Some("full_attention") => Ok(None),
        Some("sliding_attention") => choose(fields, window, true),
        _ => Err(fields.not_implemented("layer_types", value, "any family")),
    };
    kinds.iter().map(kind).collect()
}

fn choose(fields: &Fields<'_>, window: Window, slides: bool) -> Result<Window, WeightsError> {
    match (slides, window) {
        (false, _) => Ok(None),
        (true, Some(window)) => Ok(Some(window)),
        (true, None) => Err(WeightsError::config(fields.name("sliding_window"), "is missing, and some layers slide")),
    }
}

/// `sliding_window`, which must be above zero where it is given.
pub(super) fn window(fields: &Fields<'_>) -> Result<Window, WeightsError> {
    match fields.maybe_u32("sliding_window")? {
        Some(0) => Err(WeightsError::config(fields.name("sliding_window"), "must be at least 1; it is 0")),
        other => Ok(other),
    }
}

/// `sliding_window`, or `default` where the field is absent; an explicit null means none.
pub(super) fn window_or(fields: &Fields<'_>, default: u32) -> Result<Window, WeightsError> {
    if fields.has("sliding_window") { window(fields) } else { Ok(Some(default)) }
}
