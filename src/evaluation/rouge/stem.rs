//! The Porter stemmer (Porter 1980, "An algorithm for suffix stripping") with the departures that NLTK made from it,
//! which rouge-score uses. Not Snowball's English stemmer.
//!
//! NLTK's departures: a table of irregular forms; `-ies` and `-ied` keep their `e` in words of four letters; `y`
//! becomes `i` after any consonant; `-alli` goes through step 2 twice; `-bli`, `-fulli` and `-logi`; and a stem of
//! vowel and consonant counts as one that ends in consonant, vowel, consonant.

/// Stem of a lower-case ASCII word.
pub(super) fn stem(word: &str) -> String {
    if let Some(stem) = irregular(word) {
        return stem.to_owned();
    }
    if word.len() <= 2 {
        return word.to_owned();
    }
    let steps = [step_1a, step_1b, step_1c, step_2, step_3, step_4, step_5a, step_5b];
    steps.iter().fold(word.to_owned(), |word, step| step(word))
}

fn irregular(word: &str) -> Option<&'static str> {
    Some(match word {
        "sky" | "skies" => "sky",
        "dying" => "die",
        "lying" => "lie",
        "tying" => "tie",
        "news" => "news",
        "inning" | "innings" => "inning",
        "outing" | "outings" => "outing",
        "canning" | "cannings" => "canning",
        "howe" => "howe",
        "proceed" => "proceed",
        "exceed" => "exceed",
        "succeed" => "succeed",
        _ => return None,
    })
}

/// A suffix, what takes its place, and what the rest of the word must be like.
type SuffixRule = (&'static str, &'static str, fn(&str) -> bool);

/// Applies the first rule whose suffix the word has; where its condition fails, the word stays and no other rule is
/// tried.
fn apply(word: String, rules: &[SuffixRule]) -> String {
    for (suffix, replacement, condition) in rules {
        if let Some(rest) = word.strip_suffix(suffix) {
            return if condition(rest) { format!("{rest}{replacement}") } else { word };
        }
    }
    word
}

fn always(_: &str) -> bool {
    true
}

fn some_measure(rest: &str) -> bool {
    measure(rest) > 0
}

fn more_measure(rest: &str) -> bool {
    measure(rest) > 1
}

/// Plurals.
fn step_1a(word: String) -> String {
    if word.len() == 4 && word.ends_with("ies") {
        return word[..3].to_owned();
    }
    apply(word, &[("sses", "ss", always), ("ies", "i", always), ("ss", "ss", always), ("s", "", always)])
}

/// Past tenses and participles.
fn step_1b(word: String) -> String {
    if let Some(rest) = word.strip_suffix("ied") {
        return format!("{rest}{}", if word.len() == 4 { "ie" } else { "i" });
    }
    if word.ends_with("eed") {
        return apply(word, &[("eed", "ee", some_measure)]);
    }
    let has_vowel = |rest: &&str| consonants(rest).contains(&false);
    match ["ed", "ing"].iter().find_map(|suffix| word.strip_suffix(suffix).filter(has_vowel)) {
        Some(rest) => restored(rest),
        None => word,
    }
}

/// What a word was before `-ed` or `-ing`: a lost `e` comes back, a doubled consonant goes.
fn restored(rest: &str) -> String {
    if ["at", "bl", "iz"].iter().any(|end| rest.ends_with(end)) {
        return format!("{rest}e");
    }
    if ends_in_double_consonant(rest) {
        let keeps = rest.ends_with(['l', 's', 'z']);
        return rest[..rest.len() - usize::from(!keeps)].to_owned();
    }
    if measure(rest) == 1 && ends_in_cvc(rest) { format!("{rest}e") } else { rest.to_owned() }
}

fn step_1c(word: String) -> String {
    apply(word, &[("y", "i", |rest| rest.len() > 1 && consonants(rest).last() == Some(&true))])
}

fn step_2(word: String) -> String {
    if let Some(rest) = word.strip_suffix("alli").filter(|rest| some_measure(rest)) {
        return step_2(format!("{rest}al"));
    }
    apply(
        word,
        &[
            ("ational", "ate", some_measure),
            ("tional", "tion", some_measure),
            ("enci", "ence", some_measure),
            ("anci", "ance", some_measure),
            ("izer", "ize", some_measure),
            ("bli", "ble", some_measure),
            ("alli", "al", some_measure),
            ("entli", "ent", some_measure),
            ("eli", "e", some_measure),
            ("ousli", "ous", some_measure),
            ("ization", "ize", some_measure),
            ("ation", "ate", some_measure),
            ("ator", "ate", some_measure),
            ("alism", "al", some_measure),
            ("iveness", "ive", some_measure),
            ("fulness", "ful", some_measure),
            ("ousness", "ous", some_measure),
            ("aliti", "al", some_measure),
            ("iviti", "ive", some_measure),
            ("biliti", "ble", some_measure),
            ("fulli", "ful", some_measure),
            // The `l` counts to the stem, so that `geology` fares like `archaeology`.
            ("logi", "log", |rest| some_measure(&format!("{rest}l"))),
        ],
    )
}

fn step_3(word: String) -> String {
    apply(
        word,
        &[
            ("icate", "ic", some_measure),
            ("ative", "", some_measure),
            ("alize", "al", some_measure),
            ("iciti", "ic", some_measure),
            ("ical", "ic", some_measure),
            ("ful", "", some_measure),
            ("ness", "", some_measure),
        ],
    )
}

fn step_4(word: String) -> String {
    apply(
        word,
        &[
            ("al", "", more_measure),
            ("ance", "", more_measure),
            ("ence", "", more_measure),
            ("er", "", more_measure),
            ("ic", "", more_measure),
            ("able", "", more_measure),
            ("ible", "", more_measure),
            ("ant", "", more_measure),
            ("ement", "", more_measure),
            ("ment", "", more_measure),
            ("ent", "", more_measure),
            ("ion", "", |rest| more_measure(rest) && rest.ends_with(['s', 't'])),
            ("ou", "", more_measure),
            ("ism", "", more_measure),
            ("ate", "", more_measure),
            ("iti", "", more_measure),
            ("ous", "", more_measure),
            ("ive", "", more_measure),
            ("ize", "", more_measure),
        ],
    )
}

fn step_5a(word: String) -> String {
    apply(word, &[("e", "", |rest| measure(rest) > 1 || (measure(rest) == 1 && !ends_in_cvc(rest)))])
}

fn step_5b(word: String) -> String {
    apply(word, &[("ll", "l", |rest| measure(&format!("{rest}l")) > 1)])
}

/// For each letter whether it is a consonant: not a, e, i, o, u, and a `y` only at the start or after a vowel.
fn consonants(word: &str) -> Vec<bool> {
    let mut found: Vec<bool> = Vec::with_capacity(word.len());
    for letter in word.bytes() {
        found.push(match letter {
            b'a' | b'e' | b'i' | b'o' | b'u' => false,
            b'y' => !found.last().copied().unwrap_or(false),
            _ => true,
        });
    }
    found
}

/// Porter's m: how often a vowel is followed by a consonant.
fn measure(word: &str) -> usize {
    consonants(word).windows(2).filter(|pair| *pair == [false, true]).count()
}

fn ends_in_double_consonant(word: &str) -> bool {
    let bytes = word.as_bytes();
    bytes.len() >= 2 && bytes[bytes.len() - 1] == bytes[bytes.len() - 2] && consonants(word).last() == Some(&true)
}

/// Consonant, vowel, consonant other than w, x and y; or a word of just vowel and consonant.
fn ends_in_cvc(word: &str) -> bool {
    match consonants(word).as_slice() {
        [.., true, false, true] => !word.ends_with(['w', 'x', 'y']),
        [false, true] => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Words from the paper, each through the whole algorithm, and words that only the departures stem so.
    #[test]
    fn words_of_the_paper_and_of_the_departures() {
        for (word, expected) in [
            ("caresses", "caress"),
            ("ponies", "poni"),
            ("cats", "cat"),
            ("feed", "feed"),
            ("agreed", "agre"),
            ("plastered", "plaster"),
            ("bled", "bled"),
            ("motoring", "motor"),
            ("sing", "sing"),
            ("conflated", "conflat"),
            ("troubling", "troubl"),
            ("sized", "size"),
            ("hopping", "hop"),
            ("tanned", "tan"),
            ("falling", "fall"),
            ("hissing", "hiss"),
            ("fizzed", "fizz"),
            ("failing", "fail"),
            ("filing", "file"),
            ("happy", "happi"),
            ("relational", "relat"),
            ("conditional", "condit"),
            ("digitizer", "digit"),
            ("vietnamization", "vietnam"),
            ("predication", "predic"),
            ("operator", "oper"),
            ("hopefulness", "hope"),
            ("sensibiliti", "sensibl"),
            ("triplicate", "triplic"),
            ("electrical", "electr"),
            ("goodness", "good"),
            ("adjustment", "adjust"),
            ("adoption", "adopt"),
            ("effective", "effect"),
            ("probate", "probat"),
            ("rate", "rate"),
            ("cease", "ceas"),
            ("controll", "control"),
            ("roll", "roll"),
            // NLTK's own.
            ("dies", "die"),
            ("died", "die"),
            ("spied", "spi"),
            ("dying", "die"),
            ("innings", "inning"),
            ("enjoy", "enjoy"),
            ("flying", "fli"),
            ("geology", "geolog"),
            ("possibly", "possibl"),
            ("skies", "sky"),
        ] {
            assert_eq!(stem(word), expected, "{word}");
        }
    }

    #[test]
    fn y_is_a_vowel_after_a_consonant() {
        assert_eq!(consonants("syzygy"), [true, false, true, false, true, false]);
        assert_eq!(consonants("toy"), [true, false, true]);
        assert_eq!([measure("tree"), measure("trouble"), measure("oaten"), measure("syzygy")], [0, 1, 2, 2]);
    }
}
