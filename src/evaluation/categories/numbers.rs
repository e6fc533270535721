//! Numbers that an answer has from nowhere.

use std::{collections::BTreeSet, sync::LazyLock};

use regex::Regex;

use super::{Judged, text::own};

const WORDS: [(&str, &str); 30] = [
    ("zero", "0"),
    ("one", "1"),
    ("two", "2"),
    ("three", "3"),
    ("four", "4"),
    ("five", "5"),
    ("six", "6"),
    ("seven", "7"),
    ("eight", "8"),
    ("nine", "9"),
    ("ten", "10"),
    ("eleven", "11"),
    ("twelve", "12"),
    ("thirteen", "13"),
    ("fourteen", "14"),
    ("fifteen", "15"),
    ("sixteen", "16"),
    ("seventeen", "17"),
    ("eighteen", "18"),
    ("nineteen", "19"),
    ("twenty", "20"),
    ("thirty", "30"),
    ("forty", "40"),
    ("fifty", "50"),
    ("sixty", "60"),
    ("seventy", "70"),
    ("eighty", "80"),
    ("ninety", "90"),
    ("hundred", "100"),
    ("thousand", "1000"),
];

/// Numbers of the answer that are in neither prompt nor reference.
pub(super) fn unsupported(row: &Judged<'_>) -> BTreeSet<String> {
    let mut supported = numbers(row.prompt);
    supported.extend(numbers(row.reference));
    for text in [row.prompt, row.reference] {
        let words = super::text::words(text);
        let named = words.iter().filter_map(|word| WORDS.iter().find(|(name, _)| name == word));
        supported.extend(named.map(|(_, digits)| (*digits).to_owned()));
    }
    numbers(row.answer).difference(&supported).cloned().collect()
}

/// Numbers as digits: thousands joined, no zeros that mean nothing. Those that count a list's items are none.
fn numbers(text: &str) -> BTreeSet<String> {
    static ITEMS: LazyLock<Regex> = LazyLock::new(|| own(r"(?m)^\s*(?:[#*-]+\s*)?(?:step\s+|Step\s+)?\d{1,3}[.):]\s"));
    static NUMBER: LazyLock<Regex> = LazyLock::new(|| own(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?"));
    let text = ITEMS.replace_all(text, " ");
    NUMBER.find_iter(&text).map(|number| plain(number.as_str())).collect()
}

fn plain(number: &str) -> String {
    let digits = number.replace(',', "");
    let digits = match digits.split_once('.') {
        Some((whole, part)) => format!("{whole}.{part}").trim_end_matches('0').trim_end_matches('.').to_owned(),
        None => digits,
    };
    let stripped = digits.trim_start_matches('0');
    if stripped.is_empty() || stripped.starts_with('.') { format!("0{stripped}") } else { stripped.to_owned() }
}
