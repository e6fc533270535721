//! Texts that are a JSON object, or may become one (RFC 8259): a machine that reads one byte after the other.

/// Deepest nesting; a bit each says whether it is an object.
const DEEPEST: u32 = 64;
/// Longest run of blanks between tokens, so that no answer consists of them.
const MOST_BLANKS: u8 = 12;

/// A text so far. Copies are cheap: a token is tried on one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JsonText {
    /// The lowest bit is the innermost container; set for objects.
    containers: u64,
    depth: u32,
    expects: Expects,
    blanks: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expects {
    /// `{`: the whole is an object.
    Start,
    Value,
    /// A value or `]`.
    ValueOrEnd,
    /// `"` or `}`.
    KeyOrEnd,
    Key,
    Colon,
    /// `,` or the end of the container.
    Next,
    Text {
        key: bool,
        within: Within,
    },
    Number(Number),
    /// The rest of `true`, `false` or `null`.
    Word(&'static [u8]),
    /// Nothing more.
    Nothing,
}

/// Where in a text in quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Within {
    Plain,
    Escape,
    /// Digits of `\u` so far, and whether they begin a surrogate, which we do not let begin.
    Hex {
        digits: u8,
        surrogate: bool,
    },
    /// Bytes that a character still needs, the next of them within these bounds (Unicode, table 3-7).
    Character {
        left: u8,
        low: u8,
        high: u8,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Number {
    Minus,
    Zero,
    Integer,
    Point,
    Fraction,
    Exponent,
    ExponentSign,
    ExponentDigits,
}

impl Default for JsonText {
    fn default() -> Self {
        Self { containers: 0, depth: 0, expects: Expects::Start, blanks: 0 }
    }
}

impl JsonText {
    /// Whether it is whole, so that nothing can follow.
    pub fn is_whole(&self) -> bool {
        self.expects == Expects::Nothing
    }

    /// The text with more bytes; `None` where no object can come of it.
    pub fn with(mut self, bytes: &[u8]) -> Option<Self> {
        bytes.iter().all(|&byte| self.take(byte)).then_some(self)
    }

    fn take(&mut self, byte: u8) -> bool {
        if let Expects::Text { key, within } = self.expects {
            return self.within_text(key, within, byte);
        }
        if matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
            return self.blank();
        }
        self.blanks = 0;
        match self.expects {
            Expects::Start => byte == b'{' && self.open(true),
            Expects::Value => self.value(byte),
            Expects::ValueOrEnd => {
                if byte == b']' {
                    self.close(false)
                } else {
                    self.value(byte)
                }
            }
            Expects::KeyOrEnd => {
                if byte == b'}' {
                    self.close(true)
                } else {
                    self.key(byte)
                }
            }
            Expects::Key => self.key(byte),
            Expects::Colon => byte == b':' && self.now(Expects::Value),
            Expects::Next => self.next(byte),
            Expects::Number(number) => self.number(number, byte),
            Expects::Word(rest) => match rest {
                [first] if *first == byte => self.now(Expects::Next),
                [first, rest @ ..] if *first == byte => self.now(Expects::Word(rest)),
                _ => false,
            },
            Expects::Text { .. } | Expects::Nothing => false,
        }
    }

    fn now(&mut self, expects: Expects) -> bool {
        self.expects = expects;
        true
    }

    /// A blank between tokens; it ends a number.
    fn blank(&mut self) -> bool {
        match self.expects {
            Expects::Number(number) if !number.may_end() => return false,
            Expects::Number(_) => self.expects = Expects::Next,
            Expects::Word(_) | Expects::Nothing => return false,
            _ => {}
        }
        self.blanks += 1;
        self.blanks <= MOST_BLANKS
    }

    fn open(&mut self, object: bool) -> bool {
        if self.depth == DEEPEST {
            return false;
        }
        self.containers = (self.containers << 1) | u64::from(object);
        self.depth += 1;
        self.now(if object { Expects::KeyOrEnd } else { Expects::ValueOrEnd })
    }

    fn close(&mut self, object: bool) -> bool {
        if (self.containers & 1 == 1) != object {
            return false;
        }
        self.containers >>= 1;
        self.depth -= 1;
        self.now(if self.depth == 0 { Expects::Nothing } else { Expects::Next })
    }

    fn key(&mut self, byte: u8) -> bool {
        byte == b'"' && self.now(Expects::Text { key: true, within: Within::Plain })
    }

    fn value(&mut self, byte: u8) -> bool {
        match byte {
            b'{' => self.open(true),
            b'[' => self.open(false),
            b'"' => self.now(Expects::Text { key: false, within: Within::Plain }),
            b'-' => self.now(Expects::Number(Number::Minus)),
            b'0' => self.now(Expects::Number(Number::Zero)),
            b'1'..=b'9' => self.now(Expects::Number(Number::Integer)),
            b't' => self.now(Expects::Word(b"rue")),
            b'f' => self.now(Expects::Word(b"alse")),
            b'n' => self.now(Expects::Word(b"ull")),
            _ => false,
        }
    }

    fn next(&mut self, byte: u8) -> bool {
        match byte {
            b',' if self.containers & 1 == 1 => self.now(Expects::Key),
            b',' => self.now(Expects::Value),
            b'}' => self.close(true),
            b']' => self.close(false),
            _ => false,
        }
    }

    fn number(&mut self, number: Number, byte: u8) -> bool {
        use Number::{Exponent, ExponentDigits, ExponentSign, Fraction, Integer, Minus, Point, Zero};
        let next = match (number, byte) {
            (Minus, b'0') => Zero,
            (Minus, b'1'..=b'9') | (Integer, b'0'..=b'9') => Integer,
            (Zero | Integer, b'.') => Point,
            (Point | Fraction, b'0'..=b'9') => Fraction,
            (Zero | Integer | Fraction, b'e' | b'E') => Exponent,
            (Exponent, b'+' | b'-') => ExponentSign,
            (Exponent | ExponentSign | ExponentDigits, b'0'..=b'9') => ExponentDigits,
            _ => return number.may_end() && self.next(byte),
        };
        self.now(Expects::Number(next))
    }

    fn within_text(&mut self, key: bool, within: Within, byte: u8) -> bool {
        let next = match within {
            Within::Plain => match byte {
                b'"' => return self.now(if key { Expects::Colon } else { Expects::Next }),
                b'\\' => Within::Escape,
                0x20..=0x7f => Within::Plain,
                0xc2..=0xdf => Within::Character { left: 1, low: 0x80, high: 0xbf },
                0xe0 => Within::Character { left: 2, low: 0xa0, high: 0xbf },
                0xed => Within::Character { left: 2, low: 0x80, high: 0x9f },
                0xe1..=0xef => Within::Character { left: 2, low: 0x80, high: 0xbf },
                0xf0 => Within::Character { left: 3, low: 0x90, high: 0xbf },
                0xf1..=0xf3 => Within::Character { left: 3, low: 0x80, high: 0xbf },
                0xf4 => Within::Character { left: 3, low: 0x80, high: 0x8f },
                _ => return false,
            },
            Within::Escape => match byte {
                b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Within::Plain,
                b'u' => Within::Hex { digits: 0, surrogate: false },
                _ => return false,
            },
            Within::Hex { digits, surrogate } => {
                let begins = digits == 1 && surrogate && !matches!(byte, b'0'..=b'7');
                if !byte.is_ascii_hexdigit() || begins {
                    return false;
                }
                let surrogate = digits == 0 && byte.eq_ignore_ascii_case(&b'd');
                if digits == 3 { Within::Plain } else { Within::Hex { digits: digits + 1, surrogate } }
            }
            Within::Character { left, low, high } => {
                if !(low..=high).contains(&byte) {
                    return false;
                }
                if left == 1 { Within::Plain } else { Within::Character { left: left - 1, low: 0x80, high: 0xbf } }
            }
        };
        self.now(Expects::Text { key, within: next })
    }
}

impl Number {
    fn may_end(self) -> bool {
        matches!(self, Self::Zero | Self::Integer | Self::Fraction | Self::ExponentDigits)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn read(text: &[u8]) -> Option<JsonText> {
        JsonText::default().with(text)
    }

    #[test]
    fn objects_are_whole_and_their_beginnings_may_become_so() {
        for text in [
            r#"{}"#,
            r#" { "a" : [ 1 , -0.5e+3, 10E2, true,false , null, {} , [] ] , "b\n\u00e9" : "\"\\\/" } "#.trim_end(),
            r#"{"ä€😀":{"x":{"y":[[["z"]]]}}}"#,
            r#"{"n":0,"m":[0.25,-1e-9]}"#,
        ] {
            assert!(serde_json::from_str::<serde_json::Value>(text).is_ok(), "{text}");
            assert!(read(text.as_bytes()).unwrap().is_whole(), "{text}");
            for end in 0..text.len() {
                assert!(!read(&text.as_bytes()[..end]).unwrap().is_whole(), "{text} to {end}");
            }
        }
    }

    #[test]
    fn what_can_be_no_object_is_refused_at_once() {
        for text in [
            "[",
            "\"",
            "{a",
            "{,",
            r#"{"a""b"#,
            r#"{"a":}"#,
            r#"{"a":01"#,
            r#"{"a":1.}"#,
            r#"{"a":-]"#,
            r#"{"a":1,}"#,
            r#"{"a":[1,]"#,
            r#"{"a":[1}"#,
            r#"{"a":tru}"#,
            r#"{"a":nulll"#,
            "{\"a\":\"\n",
            r#"{"a":"\x"#,
            r#"{"a":"\u12g"#,
            r#"{"a":"\ud800"#,
            r#"{"a":1}}"#,
            r#"{"a":1} "#,
            r#"{"a":1e}"#,
            r#"{"a":1 2"#,
            r#"{"a":+1"#,
        ] {
            assert_eq!(read(text.as_bytes()), None, "{text}");
        }
        for bytes in [&b"{\"\xff"[..], b"{\"\xc3\"", b"{\"\xed\xa0", b"{\"\xc0\x80", b"{\"\x80"] {
            assert_eq!(read(bytes), None, "{bytes:?}");
        }
        assert_eq!(read(format!("{{{}", " ".repeat(200)).as_bytes()), None, "blanks without end");
        assert_eq!(read(format!("{{\"a\":{}", "[".repeat(64)).as_bytes()), None, "nesting without end");
    }
}
