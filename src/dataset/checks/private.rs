//! Secrets and personal data. What is found is never repeated whole in a report.

use regex::Regex;

use super::Found;
use crate::{rules, texts::TextOf};

/// Keys by the forms that their issuers publish, and private keys in PEM.
pub(super) const SECRETS: &str = concat!(
    r"AKIA[0-9A-Z]{16}|",
    r"AIza[0-9A-Za-z_\-]{35}|",
    r"gh[pousr]_[0-9A-Za-z]{36}|github_pat_[0-9A-Za-z_]{22}|",
    r"glpat-[0-9A-Za-z_\-]{20}|",
    r"hf_[A-Za-z]{34}|",
    r"sk-[0-9A-Za-z_\-]{20}|sk_live_[0-9A-Za-z]{20}|",
    r"xox[abprs]-[0-9A-Za-z\-]{10}|",
    r"eyJ[0-9A-Za-z_\-]{10,400}\.eyJ[0-9A-Za-z_\-]{10,400}\.|",
    r"-----BEGIN [A-Z ]{0,20}PRIVATE KEY-----",
);
/// Digits of a payment card's number (ISO/IEC 7812).
const CARD_DIGITS: std::ops::RangeInclusive<usize> = 13..=19;

pub(super) struct Secrets {
    /// `None` only if the pattern above were no pattern.
    pattern: Option<Regex>,
}

impl Secrets {
    pub fn new() -> Self {
        Self { pattern: Regex::new(SECRETS).ok() }
    }

    pub fn look(&self, text: &TextOf<'_>, found: &mut Found<'_>) {
        let secret = self.pattern.as_ref().and_then(|pattern| pattern.find(text.text));
        if let Some(secret) = secret {
            let start: String = secret.as_str().chars().take(6).collect();
            let reason = format!("`{start}…` looks like a key or token; a model can give away what it learned");
            found.add(&rules::SECRET, text, reason);
        }
    }
}

pub(super) fn look(text: &TextOf<'_>, found: &mut Found<'_>) {
    if let Some(domain) = email_domain(text.text) {
        let reason = format!("an e-mail address (…@{domain}); remove it unless the model shall know it");
        found.add(&rules::EMAIL_ADDRESS, text, reason);
    }
    if let Some(last) = card_number(text.text) {
        let reason = format!("a number that passes for a payment card's (…{last}); remove it");
        found.add(&rules::CARD_NUMBER, text, reason);
    }
}

/// Where e-mail addresses lie: bytes of each.
pub(crate) fn emails(text: &str) -> impl Iterator<Item = std::ops::Range<usize>> {
    let bytes = text.as_bytes();
    memchr::memchr_iter(b'@', bytes).filter_map(move |at| {
        let is_local = |byte: &u8| byte.is_ascii_alphanumeric() || b"._%+-".contains(byte);
        let is_domain = |byte: &u8| byte.is_ascii_alphanumeric() || b".-".contains(byte);
        let start = at - bytes[..at].iter().rev().take_while(|byte| is_local(byte)).count();
        let end = at + 1 + bytes[at + 1..].iter().take_while(|byte| is_domain(byte)).count();
        let domain = text[at + 1..end].trim_end_matches(['.', '-']);
        let top = domain.rsplit_once('.').map_or("", |(_, top)| top);
        let is_address = start < at && top.len() >= 2 && top.bytes().all(|byte| byte.is_ascii_alphabetic());
        is_address.then_some(start..at + 1 + domain.len())
    })
}

fn email_domain(text: &str) -> Option<&str> {
    let range = emails(text).next()?;
    text[range].rsplit_once('@').map(|(_, domain)| domain)
}

/// Where numbers lie that pass for those of payment cards: groups of digits with single spaces or hyphens between.
pub(crate) fn cards(text: &str) -> Vec<std::ops::Range<usize>> {
    let bytes = text.as_bytes();
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(start) = bytes[at..].iter().position(u8::is_ascii_digit).map(|offset| at + offset) {
        let mut digits = Vec::new();
        let mut end = start;
        while let Some(byte) = bytes.get(end) {
            match byte {
                b'0'..=b'9' => digits.push(byte - b'0'),
                b' ' | b'-' if bytes.get(end + 1).is_some_and(u8::is_ascii_digit) => {}
                _ => break,
            }
            end += 1;
        }
        let is_within_word =
            start > 0 && (bytes[start - 1].is_ascii_alphabetic() || b".,_".contains(&bytes[start - 1]));
        // Cards begin with 2 to 6; the rest of the numbers are other things.
        let is_card = CARD_DIGITS.contains(&digits.len()) && (2..=6).contains(&digits[0]) && passes_luhn(&digits);
        if is_card && !is_within_word && digits.iter().any(|digit| *digit != digits[0]) {
            found.push(start..end);
        }
        at = end;
    }
    found
}

fn card_number(text: &str) -> Option<&str> {
    let range = cards(text).into_iter().next()?;
    Some(&text[range.end - 2..range.end])
}

/// Luhn's check (ISO/IEC 7812-1, annex B): every second digit from the right is doubled, and the sum is a multiple of 10.
fn passes_luhn(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(place, digit)| {
            let value = u32::from(*digit) << (place % 2);
            if value > 9 { value - 9 } else { value }
        })
        .sum();
    sum.is_multiple_of(10)
}
