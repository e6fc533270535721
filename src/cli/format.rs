//! Figures and tables as a person reads them.

use std::time::Duration;

use time::{OffsetDateTime, macros::format_description};

/// `1.4 MB`; decimal units, as disks and networks are sold.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 || value >= 99.95 {
        format!("{value:.0} {}", UNITS[unit])
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

/// `42 s`, `3 min 05 s`, `2 h 10 min`.
pub fn duration(span: Duration) -> String {
    let seconds = (span.as_secs_f64().round()) as u64;
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        _ => format!("{} h {:02} min", seconds / 3600, seconds / 60 % 60),
    }
}

/// `2026-07-19 14:05 UTC`.
pub fn minute(time: OffsetDateTime) -> String {
    let layout = format_description!("[year]-[month]-[day] [hour]:[minute] UTC");
    time.to_offset(time::UtcOffset::UTC).format(&layout).unwrap_or_else(|_| time.to_string())
}

/// `1 row`, `2 rows`.
pub fn count(number: u64, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

/// `text` on one line, cut to at most `width` characters.
pub fn one_line(text: &str, width: usize) -> String {
    let joined = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if joined.chars().count() <= width {
        return joined;
    }
    let kept: String = joined.chars().take(width.saturating_sub(1)).collect();
    format!("{}…", kept.trim_end())
}

/// `text` broken at spaces into lines of at most `width` characters; a longer word is cut.
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let width = width.max(1);
    let mut lines = Vec::new();
    let mut line = String::new();
    let mut length = 0;
    for word in text.split_whitespace() {
        let letters: Vec<char> = word.chars().collect();
        for piece in letters.chunks(width) {
            let gap = usize::from(length > 0);
            if length + gap + piece.len() > width {
                lines.push(std::mem::take(&mut line));
                length = 0;
            }
            if length > 0 {
                line.push(' ');
                length += 1;
            }
            line.extend(piece);
            length += piece.len();
        }
    }
    if !line.is_empty() {
        lines.push(line);
    }
    lines
}

/// Two texts under two headings, line by line beside each other.
pub fn side_by_side(left: (&str, &str), right: (&str, &str), width: usize) -> Vec<String> {
    let column = width.saturating_sub(3) / 2;
    let cells = |(heading, text): (&str, &str), most: usize| {
        let mut lines = vec![heading.to_owned()];
        let wrapped = wrap(if text.trim().is_empty() { "(nothing)" } else { text }, column);
        let cut = wrapped.len() > most;
        lines.extend(wrapped.into_iter().take(most));
        if cut {
            lines.push("…".to_owned());
        }
        lines
    };
    let (left, right) = (cells(left, 6), cells(right, 6));
    (0..left.len().max(right.len()))
        .map(|row| {
            let cell = |lines: &[String]| lines.get(row).cloned().unwrap_or_default();
            let (left, right) = (cell(&left), cell(&right));
            let gap = " ".repeat(column.saturating_sub(left.chars().count()));
            format!("{left}{gap} | {right}").trim_end().to_owned()
        })
        .collect()
}

/// Rows of cells with each column as wide as its widest cell; the first column to the left, the others to the right.
pub fn table(rows: &[Vec<String>]) -> Vec<String> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().enumerate().map(|(column, cell)| {
            let gap = " ".repeat(widths[column].saturating_sub(cell.chars().count()));
            if column == 0 { format!("{cell}{gap}") } else { format!("{gap}{cell}") }
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_carry_their_units() {
        for (value, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (1_449_000, "1.4 MB"),
            (99_960_000, "100 MB"),
            (2_000_000_000, "2.0 GB"),
        ] {
            assert_eq!(bytes(value), text);
        }
        for (seconds, text) in [(0.4, "0 s"), (59.6, "1 min 00 s"), (185.0, "3 min 05 s"), (7800.0, "2 h 10 min")] {
            assert_eq!(duration(Duration::from_secs_f64(seconds)), text);
        }
        assert_eq!((count(1, "row"), count(0, "row")), ("1 row".to_owned(), "0 rows".to_owned()));
    }

    #[test]
    fn text_is_wrapped_and_cut_by_characters() {
        assert_eq!(wrap("who wrote the élégie", 9), ["who wrote", "the", "élégie"]);
        assert_eq!(wrap("abcdefgh", 3), ["abc", "def", "gh"]);
        assert_eq!(wrap("", 3), Vec::<String>::new());
        assert_eq!(one_line("a\n b  c", 10), "a b c");
        assert_eq!(one_line("abcdef", 4), "abc…");
    }

    #[test]
    fn columns_line_up() {
        let lines = side_by_side(("base", "one two three"), ("tuned", ""), 21);
        assert_eq!(lines, ["base      | tuned", "one two   | (nothing)", "three     |"]);
        let rows = [vec!["loss".to_owned(), "4.5".to_owned()], vec!["perplexity".to_owned(), "90.0".to_owned()]];
        assert_eq!(table(&rows), ["loss         4.5", "perplexity  90.0"]);
    }
}
