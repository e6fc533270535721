//! Answers that decline to answer.

use std::sync::LazyLock;

use regex::Regex;

use super::text::own;

/// Only the beginning counts: an answer that closes with what it cannot do has answered.
const BEGINNING: usize = 220;

pub(super) fn is_refusal(text: &str) -> bool {
    static REFUSAL: LazyLock<Regex> = LazyLock::new(|| {
        let deed = "(?:help|assist|answer|provide|comply|fulfil|fulfill|complete|write|give|share|generate|create|discuss|\
                    do (?:that|this|it)|continue|respond|support|offer|engage|recommend|access|browse|perform|produce|\
                    process|tell you|advise|proceed|accommodate|participate|open|view|see the|offer|translate|make)";
        let unable = "(?:i|we)(?:'m| am|'re| are)? ?(?:can't|cannot|can not|could not|couldn't|won't|will not|unable to|\
                      not able to|not allowed to|not permitted to|not going to|not comfortable|must decline|have to decline|\
                      must refuse|do not have the ability|don't have the ability|do not have access|don't have access)";
        own(&format!(
            r"(?x)^\W*(?:
                (?:i(?:'m|\ am)?\ (?:so\ |very\ |really\ |truly\ )?(?:sorry|afraid)|sorry|apologies|my\ apologies|i\ apologi[sz]e|unfortunately|regrettably)\b
                    .{{0,90}}?\b{unable}\b.{{0,30}}?(?:\b{deed}|\z|\.)
              | (?:as\ an?\ (?:ai|artificial|language|large\ language)\b[^.]{{0,60}}?,?\ )?(?:{unable}\b.{{0,25}}?\b{deed}|i\ (?:must|have\ to)\ (?:respectfully\ |politely\ )?(?:decline|refuse))
              | as\ an?\ (?:ai|artificial|language|large\ language)[^.]{{0,60}}?\bi\ (?:do\ not|don't|cannot|can't|am\ not|am\ unable)
              | (?:this|that|your)\ request\ (?:cannot|can't|violates|goes\ against)
              | it\ (?:is|would\ be)\ (?:not\ appropriate|inappropriate|unethical)\ (?:for\ me\ )?to\b
            )",
            unable = unable.replace(' ', r"\ "),
            deed = deed.replace(' ', r"\ "),
        ))
    });
    let beginning: String = text.replace('’', "'").to_lowercase().chars().take(BEGINNING).collect();
    REFUSAL.is_match(&beginning.split_whitespace().collect::<Vec<_>>().join(" "))
}
