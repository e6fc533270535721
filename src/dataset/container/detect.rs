//! What a file is, by its first bytes.

use finetuned_protocol::lint::FileLayout;

/// A first line longer than this is no line of column names.
const MOST_HEADER_BYTES: usize = 64 << 10;

/// What the first bytes say.
pub(super) enum Guess {
    /// With the sign, where it is not merely that nothing speaks for another.
    Layout(FileLayout, Option<String>),
    /// What the file is, and what to do.
    Foreign(&'static str, &'static str),
    /// Text in an encoding of two bytes a character.
    Utf16,
}

/// Beginnings of files that are often uploaded by mistake.
const FOREIGN: &[(&[u8], &str, &str)] = &[
    (b"PK\x03\x04", "a ZIP archive (or a spreadsheet)", "unpack it, or save the sheet as CSV"),
    (b"%PDF", "a PDF document", "extract its text"),
    (b"BZh", "packed with bzip2", "pack it with gzip or zstd, or not at all"),
    (b"\xfd7zXZ\x00", "packed with xz", "pack it with gzip or zstd, or not at all"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it"),
    (b"SQLite format 3\x00", "an SQLite database", "export its table as CSV"),
    (b"ARROW1", "an Arrow file", "write it as Parquet or JSON lines"),
    (b"\x89HDF", "an HDF5 file", "write it as Parquet or JSON lines"),
    (b"GGUF", "a model", "upload rows"),
    (b"\x89PNG", "an image", "upload rows"),
    // What the packing around it held.
    (b"\x1f\x8b", "packed twice", "unpack it once"),
    (b"\x28\xb5\x2f\xfd", "packed twice", "unpack it once"),
];

/// So many bytes tell UTF-16.
const UTF_16_BYTES: usize = 4;

/// Names of columns that speak for a format.
const KNOWN_COLUMNS: &[&str] = &[
    "messages",
    "conversations",
    "prompt",
    "completion",
    "instruction",
    "output",
    "input_ids",
    "labels",
    "text",
    "chosen",
    "rejected",
    "preferred_output",
    "non_preferred_output",
];

/// `None` where more bytes are needed; never where `at_end`, but for an empty file.
pub(super) fn guess(asked: Option<FileLayout>, first: &[u8], at_end: bool) -> Option<Guess> {
    if asked != Some(FileLayout::Parquet) {
        if first.len() < UTF_16_BYTES && !at_end {
            return None;
        }
        if is_utf_16(first) {
            return Some(Guess::Utf16);
        }
    }
    if let Some(layout) = asked {
        return Some(Guess::Layout(layout, Some(format!("{layout}, as asked for"))));
    }
    if first.starts_with(b"PAR1") {
        return Some(Guess::Layout(FileLayout::Parquet, Some("parquet by its first bytes".to_owned())));
    }
    if let Some((_, what, remedy)) = FOREIGN.iter().find(|(magic, ..)| first.starts_with(magic)) {
        return Some(Guess::Foreign(what, remedy));
    }
    let text = first.strip_prefix(b"\xef\xbb\xbf").unwrap_or(first).trim_ascii_start();
    match text.first() {
        None if at_end && first.is_empty() => return None,
        None if at_end => return Some(Guess::Layout(FileLayout::JsonLines, None)),
        None => return None,
        // The longest magic has 16 bytes; a JSON row tells itself with its first.
        Some(b'{' | b'[') => return Some(Guess::Layout(FileLayout::JsonLines, None)),
        Some(_) => {}
    }
    let end = memchr::memchr2(b'\n', b'\r', text);
    if end.is_none() && !at_end && text.len() < MOST_HEADER_BYTES {
        return None;
    }
    let header = std::str::from_utf8(&text[..end.unwrap_or(text.len())]).unwrap_or_default();
    Some(match delimiter_of(header) {
        Some(named) => Guess::Layout(FileLayout::Csv, Some(format!("csv: its first line names {}", named.join(", ")))),
        None => Guess::Layout(FileLayout::JsonLines, None),
    })
}

/// By its byte order mark, or by every second byte of its first characters.
fn is_utf_16(first: &[u8]) -> bool {
    match first {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => true,
        [a, 0, b, 0, ..] | [0, a, 0, b, ..] => *a != 0 && *b != 0,
        _ => false,
    }
}

/// The known columns that a line of names has.
fn delimiter_of(header: &str) -> Option<Vec<&'static str>> {
    let delimiter = char::from(delimiter(header.as_bytes()));
    let names: Vec<&str> = header.split(delimiter).map(|name| name.trim().trim_matches('"').trim()).collect();
    let known: Vec<&'static str> = KNOWN_COLUMNS.iter().copied().filter(|known| names.contains(known)).collect();
    // A lone word is a line of names only where it is a whole format's.
    let whole = names.len() > 1 || known.iter().any(|name| matches!(*name, "messages" | "conversations" | "text"));
    (!known.is_empty() && whole).then_some(known)
}

/// The most frequent of comma, tab and semicolon in a line of names; a comma where there is none.
pub(super) fn delimiter(header: &[u8]) -> u8 {
    let count = |delimiter: u8| memchr::memchr_iter(delimiter, header).count();
    [b'\t', b';', b','].into_iter().max_by_key(|delimiter| count(*delimiter)).unwrap_or(b',')
}
