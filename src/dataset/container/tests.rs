#![allow(clippy::unwrap_used)]

use std::io::Write;

use finetuned_protocol::lint::{Finding, RowFormat};
use proptest::prelude::*;

use super::*;
use crate::{LintScope, Linter};

/// Pieces of a file, as text a test can read, and what the file was taken for.
fn pieces(reading: &ReadingSpec, bytes: &[u8], portion: usize) -> (Vec<String>, Detected) {
    let mut found = Vec::new();
    let mut emit = |piece: Piece<'_>| {
        found.push(match piece {
            Piece::Row { place, bytes, .. } => format!("{} {}", place.line, String::from_utf8_lossy(bytes).trim()),
            Piece::Object { place, object } => {
                let fields: Vec<String> = object.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
                format!("{} {}", place.line, fields.join(" ").replace("Text(\"", "").replace("\")", ""))
            }
            Piece::Fault { place, rule, .. } => format!("{} {}", place.line, rule.id),
            other => format!("{other:?}"),
        });
    };
    let mut container = Container::new(reading);
    bytes.chunks(portion).for_each(|portion| container.feed(portion, &mut emit));
    let detected = container.finish(&mut emit);
    (found, detected)
}

fn rows(bytes: &[u8]) -> Vec<String> {
    let reading = ReadingSpec::default();
    let whole = pieces(&reading, bytes, bytes.len().max(1)).0;
    assert_eq!(whole, pieces(&reading, bytes, 3).0, "portions make no difference");
    whole
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn as_layout(layout: FileLayout) -> ReadingSpec {
    ReadingSpec { layout: Some(layout), ..ReadingSpec::default() }
}

#[test]
fn packed_files_are_unpacked() {
    let plain = b"{\"a\":1}\n{\"a\":2}\n";
    for (kind, packed) in [
        (Compression::Gzip, gzip(plain)),
        (Compression::Zstd, zstd::encode_all(&plain[..], 3).unwrap()),
        (Compression::Gzip, [gzip(&plain[..8]), gzip(&plain[8..])].concat()),
        (
            Compression::Zstd,
            [zstd::encode_all(&plain[..8], 3).unwrap(), zstd::encode_all(&plain[8..], 3).unwrap()].concat(),
        ),
    ] {
        assert_eq!(rows(&packed), ["1 {\"a\":1}", "2 {\"a\":2}"]);
        let detected = pieces(&ReadingSpec::default(), &packed, 1000).1;
        assert_eq!((detected.compression, detected.layout), (Some(kind), Some(FileLayout::JsonLines)));
        assert_eq!(detected.evidence[0], format!("{kind} by its first bytes"));
        let cut_off = rows(&packed[..packed.len() - 3]);
        assert_eq!(cut_off.last().unwrap(), "1 compression_invalid");
    }
    let mut damaged = gzip(plain);
    damaged[12] ^= 0xff;
    assert!(rows(&damaged).contains(&"1 compression_invalid".to_owned()));
}

#[test]
fn a_small_file_may_not_become_a_huge_one() {
    let bomb = zstd::encode_all(io_repeat(200 << 20), 3).unwrap();
    assert!(bomb.len() < 100_000);
    let (found, _) = pieces(&as_layout(FileLayout::Text), &bomb, 1 << 16);
    assert_eq!(found.last().unwrap(), "1 compression_invalid");
}

fn io_repeat(bytes: u64) -> impl std::io::Read {
    std::io::Read::take(std::io::repeat(b'a'), bytes)
}

#[test]
fn separated_values() {
    let text = "prompt,completion\n\"say \"\"hi\"\"\nnow\",hi\n\nq,a\n";
    assert_eq!(rows(text.as_bytes()), ["2 prompt=say \\\"hi\\\"\\nnow completion=hi", "5 prompt=q completion=a"]);
    assert_eq!(rows(b"\xef\xbb\xbfprompt;completion\r\nq;a\r\n"), ["2 prompt=q completion=a"]);
    assert_eq!(rows(b"prompt\tcompletion\nq, or not\ta"), ["2 prompt=q, or not completion=a"]);
    assert_eq!(rows(b"prompt,completion\nq\nq,a"), ["2 csv_cells", "3 prompt=q completion=a"]);
    assert_eq!(rows(b"prompt,completion\nq,\xff\nq,a"), ["2 not_utf8", "3 prompt=q completion=a"]);
    let nested = "messages,weight\n\"[{\"\"role\"\":\"\"user\"\"}]\",0.5\n";
    assert_eq!(rows(nested.as_bytes()), ["2 messages=Array([Object([(\"role\", user)])]) weight=Float(0.5)"]);
    assert_eq!(rows(b"instruction,input,output\nq,,a\n"), ["2 instruction=q input=Null output=a"]);
    let detected = pieces(&ReadingSpec::default(), b"prompt,completion\nq,a\n", 99).1;
    assert_eq!(detected.evidence, ["csv: its first line names prompt, completion"]);
}

/// Quotes that open or close at the end of a portion have brought neither text nor a cell yet.
#[test]
fn portions_of_separated_values_may_be_cut_within_empty_quotes() {
    let found = rows_in_any_portions(b"prompt,completion\r\n\"\n\nq\",a\n\"\r\n\",\"\"\n\n\"r\",b\n");
    assert_eq!(found, ["2 prompt=\\n\\nq completion=a", "5 prompt=\\r\\n completion=Null", "8 prompt=r completion=b"]);
    assert_eq!(rows_in_any_portions(b"prompt,completion\n\"\"\nq,a\n"), ["2 csv_cells", "3 prompt=q completion=a"]);
    let fuzzed = b"prom\0\0,pt,cnmpletion,\xff\xffweight\r\n\"a \"\r\r\r\"\nc\",d,1\n\r\n\r\r\ne,f\n\"";
    assert_eq!(rows_in_any_portions(fuzzed).len(), 4);
    // A byte order mark stands at the beginning of the file, or it is text.
    for marked in [&b"\n\xef\xbb\xbfprompt,completion\nq,a\n"[..], b"\xef\xbb\xbf\xef\xbb\xbfprompt,completion\nq,a\n"]
    {
        assert!(rows_in_any_portions(marked)[0].contains("\u{feff}prompt=q"), "{marked:?}");
    }
}

fn rows_in_any_portions(bytes: &[u8]) -> Vec<String> {
    let whole = pieces(&as_layout(FileLayout::Csv), bytes, bytes.len()).0;
    for portion in 1..bytes.len() {
        assert_eq!(whole, pieces(&as_layout(FileLayout::Csv), bytes, portion).0, "in portions of {portion}");
    }
    whole
}

#[test]
fn texts_are_ended_by_blank_lines() {
    let (found, detected) = pieces(&as_layout(FileLayout::Text), b"one\ntwo\n\n  \nthree\x00\n\n\xff\n", 4);
    assert_eq!(found, ["1 text=one\\ntwo", "5 text=three\\0", "7 not_utf8"]);
    assert_eq!(detected.evidence, ["text, as asked for"]);
}

#[test]
fn files_that_are_none_of_these_are_refused_by_name() {
    for bytes in [&b"PK\x03\x04rest"[..], b"%PDF-1.7 ...", b"BZh91AY&SY", b"SQLite format 3\x00...."] {
        assert_eq!(rows(bytes), ["1 container_unknown"]);
    }
    // Neither JSON nor a line of known names: said row by row, as JSON.
    assert_eq!(rows(b"hello, world\n"), ["1 hello, world"]);
    assert!(rows(b"").is_empty());
}

#[test]
fn columns_of_other_names_are_mapped() {
    let columns = [("prompt", "question"), ("completion", "reply")];
    let columns = columns.map(|(field, column)| (field.to_owned(), column.to_owned())).into();
    let reading = ReadingSpec { layout: Some(FileLayout::Csv), columns, ..ReadingSpec::default() };
    let mut findings = Vec::new();
    let mut linter = Linter::new(&reading, LintScope::Structure, |finding: Finding| findings.push(finding));
    linter.feed(b"question,reply\nq,a\nr,b\n");
    let summary = linter.finish();
    assert_eq!((summary.format, summary.rows, findings.len()), (Some(RowFormat::PromptCompletion), 2, 0));
}

/// Parquet of two rows, with a list of messages in each, as pyarrow writes it.
#[test]
fn parquet() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/rows/chat.parquet");
    let bytes = std::fs::read(path).unwrap();
    let found = rows(&bytes);
    assert_eq!(found.len(), 2);
    assert!(
        found[0].starts_with("1 messages=Array([Object([(\"content\", What is 1 + 1?), (\"role\", user)])"),
        "{found:?}"
    );
    assert_eq!(rows(&bytes[..bytes.len() - 20]), ["1 parquet_invalid"]);
    let packed = zstd::encode_all(&bytes[..], 1).unwrap();
    assert_eq!(rows(&packed), found);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_bring_a_reader_down(
        kind in 0..4_usize,
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        layout in prop::sample::select(vec![None, Some(FileLayout::Csv), Some(FileLayout::Text), Some(FileLayout::Parquet)]),
    ) {
        let bytes = match kind {
            0 => bytes,
            1 => gzip(&bytes),
            2 => zstd::encode_all(&bytes[..], 1).unwrap(),
            _ => [b"prompt,completion\n".to_vec(), bytes].concat(),
        };
        let reading = ReadingSpec { layout, ..ReadingSpec::default() };
        prop_assert_eq!(pieces(&reading, &bytes, 1000).0, pieces(&reading, &bytes, 5).0);
    }
}

#[test]
fn a_row_of_nothing_but_commas_does_not_grow_without_a_bound() {
    let mut file = b"prompt,completion\n".to_vec();
    file.resize(file.len() + 4_000_000, b',');
    let found = pieces(&as_layout(FileLayout::Csv), &file, 4096).0;
    assert_eq!(found, ["2 row_too_long"]);
}

#[test]
fn utf_16_is_told_once_whatever_the_layout() {
    let text = "{\"prompt\": \"q\"}\n{\"prompt\": \"r\"}\n";
    let little: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let big: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
    let marked = [b"\xff\xfe".as_slice(), &little].concat();
    for file in [&little, &big, &marked] {
        assert_eq!(rows(file), ["1 not_utf8"]);
        assert_eq!(rows(&gzip(file)), ["1 not_utf8"]);
        assert_eq!(pieces(&as_layout(FileLayout::Csv), file, 1).0, ["1 not_utf8"]);
    }
}

#[test]
fn what_is_packed_twice_is_told_so_and_a_cut_file_keeps_its_layout() {
    let plain = b"{\"a\":1}\n".repeat(1000);
    assert_eq!(rows(&gzip(&gzip(&plain))), ["1 container_unknown"]);
    let packed = gzip(&plain);
    let (found, detected) = pieces(&ReadingSpec::default(), &packed[..packed.len() - 4], 64);
    assert_eq!(found.last().map(String::as_str), Some("1 compression_invalid"));
    assert_eq!(detected.layout, Some(FileLayout::JsonLines));
}
