//! Text to the words that ROUGE compares.

use std::collections::HashMap;

use finetuned_protocol::text_metric::RougeWords;
use unicode_normalization::UnicodeNormalization;
use unicode_segmentation::UnicodeSegmentation;

use super::stem::stem;

/// Words as numbers: the same word is the same number, whichever text it came from.
#[derive(Debug, Default)]
pub(super) struct Vocabulary(HashMap<String, u32>);

impl Vocabulary {
    /// The words of each line that is not empty.
    pub(super) fn lines(&mut self, text: &str, words: RougeWords) -> Vec<Vec<u32>> {
        text.split('\n').filter(|line| !line.is_empty()).map(|line| self.words(line, words)).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    fn words(&mut self, line: &str, words: RougeWords) -> Vec<u32> {
        match words {
            RougeWords::Ascii => ascii_words(&line.to_lowercase()).map(|word| self.number(word)).collect(),
            RougeWords::Stemmed => ascii_words(&line.to_lowercase())
                .map(|word| if word.len() > 3 { self.number(&stem(word)) } else { self.number(word) })
                .collect(),
            RougeWords::Unicode => {
                let line: String = line.nfkc().collect::<String>().to_lowercase();
                line.unicode_words().map(|word| self.number(word)).collect()
            }
        }
    }

    fn number(&mut self, word: &str) -> u32 {
        if let Some(number) = self.0.get(word) {
            return *number;
        }
        let number = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        self.0.insert(word.to_owned(), number);
        number
    }
}

/// Runs of ASCII letters and digits; everything else separates.
fn ascii_words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_lowercase() && !c.is_ascii_digit()).filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str, words: RougeWords) -> Vec<String> {
        let mut vocabulary = Vocabulary::default();
        let numbers = vocabulary.lines(text, words).concat();
        let word = |number| vocabulary.0.iter().find(|(_, found)| **found == number).map(|(word, _)| word.clone());
        numbers.into_iter().filter_map(word).collect()
    }

    #[test]
    fn everything_but_ascii_letters_and_digits_separates() {
        assert_eq!(
            words("The CAT's e-mail, 3.14 naïve!", RougeWords::Ascii),
            ["the", "cat", "s", "e", "mail", "3", "14", "na", "ve"]
        );
        assert!(words(" \n…日本語", RougeWords::Ascii).is_empty());
    }

    #[test]
    fn only_words_of_more_than_three_letters_are_stemmed() {
        assert_eq!(words("was running", RougeWords::Stemmed), ["was", "run"]);
    }

    #[test]
    fn words_of_every_script_are_found_in_unicode() {
        assert_eq!(words("Die NAÏVE Größe, 3.14!", RougeWords::Unicode), ["die", "naïve", "größe", "3.14"]);
        assert_eq!(words("日本 кот", RougeWords::Unicode), ["日", "本", "кот"]);
        // One letter or a letter and its accent: the same word.
        assert_eq!(words("e\u{301}te\u{301}", RougeWords::Unicode), ["été"]);
    }
}
