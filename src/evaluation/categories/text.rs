//! Words of an answer, and what of it is prose.

use std::sync::LazyLock;

use regex::Regex;
use unicode_segmentation::UnicodeSegmentation;

/// A pattern of our own, which the tests compile.
#[allow(clippy::expect_used)]
pub(super) fn own(pattern: &str) -> Regex {
    Regex::new(pattern).expect("a pattern of this crate compiles")
}

/// Lower-cased words by the rules of Unicode (UAX #29).
pub(super) fn words(text: &str) -> Vec<String> {
    text.replace('’', "'").unicode_words().map(str::to_lowercase).collect()
}

/// The text with code, addresses and file names replaced by a full stop.
pub(super) fn prose(text: &str) -> String {
    static CODE: LazyLock<Regex> = LazyLock::new(|| {
        own(
            r"(?s)```.*?(?:```|\z)|`[^`\n]*`|(?:https?://|www\.)\S+|\S+@\S+\.\S+|\b[\w/-]*\w\.[a-z]{2,4}\b|\S*[\\/_<>{}=#|]\S*|\w+\(\)",
        )
    });
    CODE.replace_all(&text.replace('’', "'"), " . ").into_owned()
}
