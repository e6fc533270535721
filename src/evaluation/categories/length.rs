//! Too long and too short, against the reference.

use super::{Judged, text::words};

/// An answer may be so many words longer, whatever the ratio.
const WORDS_MORE: usize = 10;
/// And so many shorter.
const WORDS_FEWER: usize = 5;

pub(super) fn too_long(row: &Judged<'_>, ratio: f64) -> bool {
    let (answer, reference) = (words(row.answer).len(), words(row.reference).len());
    !row.ended || (answer as f64 > ratio * reference as f64 && answer >= reference + WORDS_MORE)
}

pub(super) fn too_short(row: &Judged<'_>, ratio: f64) -> bool {
    let (answer, reference) = (words(row.answer).len(), words(row.reference).len());
    row.ended && (answer as f64) < ratio * reference as f64 && answer + WORDS_FEWER <= reference
}
