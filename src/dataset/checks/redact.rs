//! What the linter finds of secrets and personal data, taken out of a text.

use std::{borrow::Cow, ops::Range};

use finetuned_protocol::preparation::PrivateData;
use regex::Regex;

use super::private::{SECRETS, cards, emails};

/// Replaces private data by a marker of its kind.
pub(crate) struct Redactor {
    kinds: Vec<PrivateData>,
    /// `None` only if the pattern were no pattern.
    secrets: Option<Regex>,
}

impl Redactor {
    pub fn new(kinds: &[PrivateData]) -> Self {
        Self { kinds: kinds.to_vec(), secrets: Regex::new(SECRETS).ok() }
    }

    /// The text without what is private; the same text where there is none.
    pub fn redact<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let mut found: Vec<(Range<usize>, PrivateData)> = Vec::new();
        for kind in &self.kinds {
            match kind {
                PrivateData::Secret => found.extend(self.secrets(text).map(|range| (range, *kind))),
                PrivateData::EmailAddress => found.extend(emails(text).map(|range| (range, *kind))),
                PrivateData::CardNumber => found.extend(cards(text).into_iter().map(|range| (range, *kind))),
            }
        }
        if found.is_empty() {
            return Cow::Borrowed(text);
        }
        found.sort_unstable_by_key(|(range, kind)| (range.start, std::cmp::Reverse(range.end), *kind));
        let (mut redacted, mut at) = (String::with_capacity(text.len()), 0);
        for (range, kind) in found {
            if range.start >= at {
                redacted.push_str(&text[at..range.start]);
                redacted.push_str(&format!("[{kind}]"));
            }
            // What begins within the one before is gone with it, to the end of whichever reaches further.
            at = at.max(range.end);
        }
        redacted.push_str(&text[at..]);
        Cow::Owned(redacted)
    }

    /// Whole secrets: the patterns only tell how one begins.
    fn secrets<'t>(&'t self, text: &'t str) -> impl Iterator<Item = Range<usize>> + 't {
        let found = self.secrets.iter().flat_map(move |pattern| pattern.find_iter(text));
        found.map(move |secret| secret.start()..end_of_secret(text, secret.range()))
    }
}

fn end_of_secret(text: &str, begun: Range<usize>) -> usize {
    const FOOTER: &str = "-----END ";
    const DASHES: &str = "-----";
    let rest = &text[begun.end..];
    if text[begun.clone()].starts_with(DASHES) {
        // Without its last line, the key goes on to the end.
        let footer = rest.find(FOOTER).map(|footer| footer + FOOTER.len());
        let end = footer.and_then(|name| Some(name + rest[name..].find(DASHES)? + DASHES.len()));
        return end.map_or(text.len(), |end| begun.end + end);
    }
    let is_of_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-.".contains(byte);
    let more = rest.bytes().take_while(is_of_token).count();
    // A full stop ends a sentence, not a token.
    begun.end + rest[..more].trim_end_matches('.').len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redact(text: &str) -> String {
        Redactor::new(PrivateData::ALL).redact(text).into_owned()
    }

    #[test]
    fn private_data_becomes_a_marker_of_its_kind() {
        assert_eq!(redact("Ask me@example.org or you@example.com."), "Ask [email_address] or [email_address].");
        assert_eq!(redact("Pay with 4111 1111 1111 1111, please"), "Pay with [card_number], please");
        assert_eq!(redact("nothing to see: 12 of @all"), "nothing to see: 12 of @all");
        let only_cards = Redactor::new(&[PrivateData::CardNumber]);
        assert_eq!(only_cards.redact("me@example.org 4111111111111111"), "me@example.org [card_number]");
    }

    #[test]
    fn a_secret_goes_whole() {
        let long = "x".repeat(60);
        assert_eq!(redact(&format!("key sk-proj_{long}. Done")), "key [secret]. Done");
        assert_eq!(redact(&format!("eyJ{long}.eyJ{long}.{long}-_ end")), "[secret] end");
        let key = "-----BEGIN RSA PRIVATE KEY-----\nMIIE\nabcd\n-----END RSA PRIVATE KEY-----";
        assert_eq!(redact(&format!("a\n{key}\nb")), "a\n[secret]\nb");
        assert_eq!(redact("a -----BEGIN PRIVATE KEY-----\nMIIEabcd"), "a [secret]");
    }

    #[test]
    fn what_overlaps_is_taken_out_together() {
        let token = format!("ghp_{}", "a".repeat(36));
        assert_eq!(redact(&format!("{token}@example.org!")), "[email_address]!");
        // The address begins within the key.
        let key = format!("sk-{}/me@example.org", "a".repeat(20));
        assert_eq!(redact(&key), "[secret]/[email_address]");
    }
}
