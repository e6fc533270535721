//! Text to the words that ROUGE compares.

use super::stem::stem;

/// Lower-cased runs of ASCII letters and digits; everything else separates. With `stemmer`, words of more than three
/// characters become their stem. (Text in other scripts gives no words: so does the reference implementation.)
pub(super) fn words(text: &str, stemmer: bool) -> Vec<String> {
    text.to_lowercase()
        .split(|c: char| !c.is_ascii_lowercase() && !c.is_ascii_digit())
        .filter(|word| !word.is_empty())
        .map(|word| if stemmer && word.len() > 3 { stem(word) } else { word.to_owned() })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_but_ascii_letters_and_digits_separates() {
        assert_eq!(
            words("The CAT's e-mail, 3.14 naïve!", false),
            ["the", "cat", "s", "e", "mail", "3", "14", "na", "ve"]
        );
        assert!(words(" \n…日本語", false).is_empty());
    }

    #[test]
    fn only_words_of_more_than_three_letters_are_stemmed() {
        assert_eq!(words("was running", true), ["was", "run"]);
    }
}
