//! Which languages the answers are in.

use std::collections::BTreeMap;

use finetuned_protocol::lint::{Finding, LanguageShare};

use crate::rules;

/// Every row is looked at up to here, and one in sixteen beyond: a mix shows as well in a sample.
const FIRST_ROWS: u64 = 2000;
const STEP: u64 = 16;
/// A start of the answer is enough.
const MOST_BYTES: usize = 300;
/// Fewer characters tell nothing.
const FEWEST_BYTES: usize = 40;
const MOST_LANGUAGES: usize = 10;
const UNTOLD: &str = "und";
/// Share of the main language below which the answers count as mixed.
const MAIN_SHARE: f64 = 0.95;
/// Answers that must be told before a mix is spoken of.
const FEWEST_ROWS: u64 = 20;

#[derive(Default)]
pub(super) struct Languages {
    rows: BTreeMap<&'static str, u64>,
}

impl Languages {
    pub fn look(&mut self, row: u64, answer: &str) {
        if row > FIRST_ROWS && !row.is_multiple_of(STEP) {
            return;
        }
        *self.rows.entry(language_of(answer)).or_default() += 1;
    }

    pub fn finish(self) -> (Vec<LanguageShare>, Option<Finding>) {
        let mut shares: Vec<LanguageShare> = self
            .rows
            .into_iter()
            .map(|(language, rows)| LanguageShare { language: language.to_owned(), rows })
            .collect();
        shares.sort_by(|a, b| b.rows.cmp(&a.rows).then_with(|| a.language.cmp(&b.language)));
        let told: Vec<&LanguageShare> = shares.iter().filter(|share| share.language != UNTOLD).collect();
        let rows: u64 = told.iter().map(|share| share.rows).sum();
        let is_mixed =
            rows >= FEWEST_ROWS && told.first().is_some_and(|main| (main.rows as f64) < MAIN_SHARE * rows as f64);
        let finding = is_mixed.then(|| {
            let named: Vec<String> =
                told.iter().take(3).map(|share| format!("{} {}", share.language, percent(share.rows, rows))).collect();
            let reason = format!("the answers are in several languages: {}", named.join(", "));
            rules::LANGUAGES_MIXED.at(1, "", reason)
        });
        shares.truncate(MOST_LANGUAGES);
        (shares, finding)
    }
}

fn percent(part: u64, all: u64) -> String {
    format!("{:.0} %", 100.0 * part as f64 / all as f64)
}

/// ISO 639-3 code, `und` where it cannot be told with confidence.
fn language_of(text: &str) -> &'static str {
    if text.len() < FEWEST_BYTES {
        return UNTOLD;
    }
    let start = &text[..text.floor_char_boundary(MOST_BYTES)];
    match whatlang::detect(start) {
        Some(info) if info.is_reliable() => info.lang().code(),
        _ => UNTOLD,
    }
}
