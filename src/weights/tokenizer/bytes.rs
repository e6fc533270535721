//! Bytes that a token of a vocabulary stands for.

/// The bytes of `token` in a tokenizer whose decoder, as JSON, is `decoder`.
pub(super) fn of(token: &str, decoder: &str) -> Vec<u8> {
    if decoder.contains("\"ByteLevel\"") {
        return token.chars().flat_map(byte_level).collect();
    }
    let byte = token.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
    match byte.filter(|_| decoder.contains("\"ByteFallback\"")).and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
        Some(byte) => vec![byte],
        // SentencePiece writes a blank so.
        None if decoder.contains('▁') => token.replace('▁', " ").into_bytes(),
        None => token.as_bytes().to_vec(),
    }
}

/// GPT-2's alphabet of bytes: those that print stand for themselves, the others for what comes after U+0100 in their order.
fn byte_level(letter: char) -> Vec<u8> {
    let prints = |byte: &u8| matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    let code = u32::from(letter);
    if let Some(byte) = u8::try_from(code).ok().filter(prints) {
        return vec![byte];
    }
    let hidden =
        code.checked_sub(0x100).and_then(|place| (0..=255_u8).filter(|byte| !prints(byte)).nth(place as usize));
    match hidden {
        Some(byte) => vec![byte],
        None => letter.to_string().into_bytes(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_read_as_each_kind_of_tokenizer_writes_them() {
        let level = r#"{"type":"ByteLevel"}"#;
        assert_eq!(of("Ġthe", level), b" the");
        assert_eq!(of("Ċ", level), b"\n");
        assert_eq!(of("Ã©", level), "é".as_bytes());
        let pieces = r#"{"decoders":[{"type":"Replace","pattern":{"String":"▁"}},{"type":"ByteFallback"}]}"#;
        assert_eq!(of("▁the", pieces), b" the");
        assert_eq!(of("<0xE2>", pieces), [0xe2]);
        assert_eq!(of("<0xE2>", "null"), b"<0xE2>");
    }
}
