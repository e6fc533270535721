//! The language of an answer, by whatlang's scripts and trigrams (Cavnar & Trenkle 1994).

use whatlang::{Detector, Info, Lang, Script, detect};

use super::{Judged, text::prose};

/// Letters that a text must have to be judged in an alphabet that many languages share.
const LEAST_LETTERS: usize = 30;
/// Signs that suffice in a script that tells its language by itself.
const LEAST_SIGNS: usize = 4;

pub(super) fn is_wrong(row: &Judged<'_>, confidence: f64) -> bool {
    let prose = prose(row.answer);
    let Some(found) = detect(&prose).filter(|found| is_long_enough(&prose, found)) else { return false };
    if has_another_script(row.reference, &found) {
        return true;
    }
    let both = || format!("{}\n{}", row.prompt, row.reference);
    let Some(wanted) = language(row.reference, confidence).or_else(|| language(&both(), confidence)) else {
        return false;
    };
    // Whether it is Spanish or Portuguese does not matter where English was wanted: two languages stand to choice.
    let either = Detector::with_allowlist(vec![wanted, found.lang()]).detect(&prose);
    either.is_some_and(|either| either.lang() != wanted && either.confidence() >= confidence)
}

/// Whether a reference that is long enough is written in another script. Japanese mixes three, one of them Chinese.
fn has_another_script(reference: &str, found: &Info) -> bool {
    let family = |script| match script {
        Script::Hiragana | Script::Katakana => Script::Mandarin,
        other => other,
    };
    detect(reference)
        .filter(|wanted| is_long_enough(reference, wanted))
        .is_some_and(|wanted| family(wanted.script()) != family(found.script()))
}

/// Whether the text is English, as far as can be told; short texts get the benefit of the doubt.
pub(super) fn may_be_english(text: &str, confidence: f64) -> bool {
    language(text, confidence).is_none_or(|language| language == Lang::Eng)
}

/// The language of the prose in a text, where it is long and clear enough.
fn language(text: &str, confidence: f64) -> Option<Lang> {
    let prose = prose(text);
    let found = detect(&prose)?;
    (is_long_enough(&prose, &found) && found.confidence() >= confidence).then(|| found.lang())
}

fn is_long_enough(prose: &str, found: &Info) -> bool {
    let shared = matches!(found.script(), Script::Latin | Script::Cyrillic | Script::Arabic | Script::Devanagari);
    let least = if shared { LEAST_LETTERS } else { LEAST_SIGNS };
    prose.chars().filter(|c| c.is_alphabetic()).count() >= least
}
