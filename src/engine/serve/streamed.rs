//! An answer's text, told piece by piece: whole characters, and nothing that may turn out to be a stop string.

use finetuned_weights::{TextTokenizer, WeightsError};

/// Stands for bytes that are no whole character.
const BROKEN: char = '\u{fffd}';

/// The text of the tokens so far.
#[derive(Debug)]
pub struct StreamedText {
    tokenizer: TextTokenizer,
    stops: Vec<String>,
    ids: Vec<u32>,
    /// Tokens that are decoded again with each new one: some join with what is before them.
    context: usize,
    /// Tokens whose text is in `text`.
    read: usize,
    text: String,
    /// Bytes of `text` that were told.
    told: usize,
    stopped: bool,
}

impl StreamedText {
    pub fn new(tokenizer: TextTokenizer, stops: Vec<String>) -> Self {
        Self { tokenizer, stops, ids: Vec::new(), context: 0, read: 0, text: String::new(), told: 0, stopped: false }
    }

    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// Whether a stop string ended it.
    pub fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// One more token; gives what can be told now.
    ///
    /// # Errors
    /// Ids that the tokenizer refuses.
    pub fn push(&mut self, id: u32) -> Result<String, WeightsError> {
        self.ids.push(id);
        self.take_in(false)?;
        Ok(self.tell(false))
    }

    /// The rest, at the end.
    ///
    /// # Errors
    /// As [`Self::push`].
    pub fn finish(&mut self) -> Result<String, WeightsError> {
        self.take_in(true)?;
        Ok(self.tell(true))
    }

    fn take_in(&mut self, all: bool) -> Result<(), WeightsError> {
        if self.stopped || self.read == self.ids.len() {
            return Ok(());
        }
        let before = self.tokenizer.decode(&self.ids[self.context..self.read], true)?;
        let now = self.tokenizer.decode(&self.ids[self.context..], true)?;
        // A character may come in several tokens.
        let Some(new) = now.strip_prefix(before.as_str()).filter(|_| all || !now.ends_with(BROKEN)) else {
            return Ok(());
        };
        let look_from = self.text.len().saturating_sub(self.stops.iter().map(String::len).max().unwrap_or(0));
        self.text.push_str(new);
        (self.context, self.read) = (self.read, self.ids.len());
        let look_from = floor_char(&self.text, look_from);
        let found = self.stops.iter().filter_map(|stop| self.text[look_from..].find(stop.as_str())).min();
        if let Some(end) = found {
            self.text.truncate(look_from + end);
            self.stopped = true;
        }
        Ok(())
    }

    fn tell(&mut self, all: bool) -> String {
        let hold = if all || self.stopped { 0 } else { self.held_back() };
        let end = self.text.len() - hold;
        let piece = self.text.get(self.told..end).unwrap_or_default().to_owned();
        self.told = self.told.max(end);
        piece
    }

    /// Bytes at the end that a stop string may begin with.
    fn held_back(&self) -> usize {
        let begins = |stop: &String| {
            (1..=stop.len().min(self.text.len()))
                .rev()
                .filter(|&length| stop.is_char_boundary(length))
                .find(|&length| self.text.ends_with(&stop[..length]))
        };
        self.stops.iter().filter_map(begins).max().unwrap_or(0)
    }
}

fn floor_char(text: &str, mut index: usize) -> usize {
    while !text.is_char_boundary(index) {
        index -= 1;
    }
    index
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::path::Path;

    use finetuned_weights::ModelSource;

    use super::*;

    fn tokenizer() -> TextTokenizer {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/tiny-chat");
        ModelSource::open(&folder).unwrap().tokenizer().unwrap()
    }

    fn pieces(text: &str, stops: &[&str]) -> (Vec<String>, bool) {
        let tokenizer = tokenizer();
        let ids = tokenizer.encode_ordinary(text).unwrap();
        let mut streamed = StreamedText::new(tokenizer, stops.iter().map(|&stop| stop.to_owned()).collect());
        let mut pieces = Vec::new();
        for id in ids {
            pieces.push(streamed.push(id).unwrap());
            if streamed.is_stopped() {
                break;
            }
        }
        pieces.push(streamed.finish().unwrap());
        (pieces, streamed.is_stopped())
    }

    #[test]
    fn pieces_are_whole_characters_and_together_the_text() {
        let text = "Grüße aus Köln, 東京 and 😀 — done.";
        let (told, stopped) = pieces(text, &["never"]);
        assert_eq!((told.concat(), stopped), (text.to_owned(), false));
        assert!(told.len() > 5 && told.iter().all(|piece| !piece.contains(BROKEN)), "{told:?}");
    }

    #[test]
    fn a_stop_string_is_not_told_even_in_part() {
        let (told, stopped) = pieces("one two three four", &["three f", "zzz"]);
        assert_eq!((told.concat().as_str(), stopped), ("one two ", true));
        // What only begins like one is told once that is sure.
        let (told, stopped) = pieces("one two thre", &["three f"]);
        assert_eq!((told.concat().as_str(), stopped), ("one two thre", false));
        // The first in the text ends it, whatever their order.
        let (told, _) = pieces("abc", &["c", "b"]);
        assert_eq!(told.concat(), "a");
    }
}
