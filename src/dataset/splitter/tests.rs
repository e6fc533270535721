#![allow(clippy::unwrap_used, clippy::expect_used)]

use proptest::prelude::*;

use super::*;

/// What was found, as text a test can read: `line:column text`.
fn split_in(portions: &[&[u8]], max_row_bytes: usize) -> Vec<String> {
    let mut found = Vec::new();
    let mut emit = |piece: Piece<'_>| {
        found.push(match piece {
            Piece::Row { place, bytes, terminated } => {
                let text = String::from_utf8_lossy(bytes);
                format!("{}:{} {}{}", place.line, place.column, text.trim(), if terminated { "" } else { " (end)" })
            }
            Piece::TooLong { place } => format!("{}:{} TOO LONG", place.line, place.column),
            Piece::Misplaced { place, what } => format!("{}:{} {}", place.line, place.column, what.to_uppercase()),
            Piece::Unclosed { place } => format!("{}:{} UNCLOSED", place.line, place.column),
            Piece::Trailing { place } => format!("{}:{} TRAILING", place.line, place.column),
            other => panic!("{other:?}"),
        });
    };
    let mut splitter = Splitter::with_max_row_bytes(max_row_bytes);
    portions.iter().for_each(|portion| splitter.feed(portion, &mut emit));
    splitter.finish(&mut emit);
    found
}

fn split(bytes: &[u8]) -> Vec<String> {
    split_in(&[bytes], 100)
}

#[test]
fn lines() {
    assert_eq!(split(b"{\"a\":1}\r\n\n  \n {\"b\":2}\n"), ["1:0 {\"a\":1}", "4:0 {\"b\":2}"]);
    assert_eq!(split(b"\n\n{}\n{}"), ["3:0 {}", "4:0 {} (end)"]);
    assert_eq!(split(b"\xef\xbb\xbf{}\n"), ["1:0 {}"]);
    assert!(split(b"").is_empty() && split(b" \r\n \n").is_empty() && split(b"\xef\xbb\xbf").is_empty());
    assert_eq!(split(b"\xef\xbb").len(), 1, "half a byte order mark is a row, and a bad one");
    assert_eq!(split(b"\xef\xbbx").len(), 1);
}

#[test]
fn arrays() {
    assert_eq!(split(b"[]"), [""; 0]);
    assert_eq!(split(b"[{\"a\":[1,2]},\n {\"b\":\"]},{\\\"\"} ]\n"), ["1:1 {\"a\":[1,2]}", "2:1 {\"b\":\"]},{\\\"\"}"]);
    assert_eq!(split(b"\n[\n  {\n    \"a\": 1\n  },\n  {}\n]"), ["3:2 {\n    \"a\": 1\n  }", "6:2 {}"]);
    assert_eq!(split(b"[1, \"x,]\" ,null,[2]]"), ["1:1 1", "1:4 \"x,]\"", "1:11 null", "1:16 [2]"]);
}

#[test]
fn arrays_with_faults() {
    assert_eq!(split(b"[{},,{}]"), ["1:1 {}", "1:4 A COMMA WITHOUT A ROW BEFORE IT", "1:5 {}"]);
    assert_eq!(split(b"[{},]"), ["1:1 {}", "1:4 A COMMA BEFORE THE CLOSING BRACKET"]);
    assert_eq!(split(b"[{}\n{}]"), ["1:1 {}", "2:0 A COMMA IS MISSING BETWEEN TWO ROWS", "2:0 {}"]);
    assert_eq!(split(b"[{}] x\ny"), ["1:1 {}", "1:5 TRAILING"]);
    assert_eq!(split(b"[{},{\"a\""), ["1:1 {}", "1:4 UNCLOSED"]);
    assert_eq!(split(b"[{}\n"), ["1:1 {}", "2:0 UNCLOSED"]);
    // A missing quote spoils its own row only.
    assert_eq!(split(b"[\n{\"a\":\"x\n},\n{\"b\":1}]"), ["2:0 {\"a\":\"x\n}", "4:0 {\"b\":1}"]);
    assert_eq!(split(b"[\n{\"a\":\"x\\\n},\n{\"b\":1}]"), ["2:0 {\"a\":\"x\\\n}", "4:0 {\"b\":1}"]);
}

#[test]
fn long_rows_are_passed_over() {
    assert_eq!(
        split_in(&[b"{\"a\":12}\n{\"a\":123}\n"], 8),
        ["1:0 {\"a\":12}", "2:0 TOO LONG"],
        "the limit itself is allowed"
    );
    assert_eq!(split_in(&[b"{\"a\":1}\n{\"long\":true}\n{}"], 8), ["1:0 {\"a\":1}", "2:0 TOO LONG", "3:0 {} (end)"]);
    assert_eq!(split_in(&[b"[{\"a\":1},{\"lo", b"ng\":true},{}]"], 8), ["1:1 {\"a\":1}", "1:9 TOO LONG", "1:23 {}"]);
    assert_eq!(split_in(&[b"{\"a\":", b"1234}\n{}\n"], 8), ["1:0 TOO LONG", "2:0 {}"]);
}

/// Texts that hold many of the bytes that matter.
fn dirty_text() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        Just("\n"),
        Just("\r\n"),
        Just(" "),
        Just("{"),
        Just("}"),
        Just("["),
        Just("]"),
        Just(","),
        Just("\""),
        Just("\\"),
        Just("{\"a\":\"b\"}"),
        Just("x"),
        Just("\u{feff}"),
        Just("é"),
        Just("{\"a\":[\"\\\"]\"]},\n"),
    ];
    (prop_oneof![Just(""), Just("["), Just("\u{feff}"), Just("\u{feff}[")], prop::collection::vec(part, 0..40))
        .prop_map(|(head, parts)| [head.as_bytes(), parts.concat().as_bytes()].concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn portions_do_not_matter(
        bytes in dirty_text(),
        cuts in prop::collection::vec(0_usize..200, 0..8),
        max in 5_usize..60,
    ) {
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
        cuts.sort_unstable();
        let mut portions = Vec::new();
        let mut start = 0;
        for cut in cuts {
            portions.push(&bytes[start..cut]);
            start = cut;
        }
        portions.push(&bytes[start..]);
        let whole = split_in(&[&bytes], max);
        prop_assert_eq!(split_in(&portions, max), whole.clone());
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        prop_assert_eq!(split_in(&single, max), whole);
    }

    #[test]
    fn valid_rows_come_back_in_both_layouts(
        texts in prop::collection::vec("[a-z\"\\\\{}\\[\\],\u{e9}\n]{0,12}", 1..12),
    ) {
        let values_of_rows: Vec<_> = texts.iter().map(|text| serde_json::json!({ "a": [text] })).collect();
        let rows: Vec<String> = values_of_rows.iter().map(ToString::to_string).collect();
        let values = |found: Vec<String>| -> Vec<String> {
            found.iter().map(|row| row.split_once(' ').unwrap().1.trim_end_matches(" (end)").to_owned()).collect()
        };
        prop_assert_eq!(values(split_in(&[rows.join("\n").as_bytes()], 1000)), rows.clone());
        let array = serde_json::to_string_pretty(&values_of_rows);
        let found: Vec<serde_json::Value> = values(split_in(&[array.unwrap().as_bytes()], 1000))
            .iter().map(|row| serde_json::from_str(row).unwrap()).collect();
        prop_assert_eq!(found.len(), texts.len());
        for (row, text) in found.iter().zip(&texts) {
            prop_assert_eq!(&row["a"][0], text);
        }
    }
}
