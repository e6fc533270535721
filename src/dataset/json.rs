//! A row's JSON as a value that borrows from the text, keeps repeated fields and is limited in size: a row of 16 MB
//! could otherwise take many times that in memory.

use std::{borrow::Cow, cell::Cell, fmt};

use serde::{
    Serialize, Serializer,
    de::{Deserialize, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value};

/// Most values in one row, fields' names not counted.
const MAX_VALUES: u32 = 1 << 19;

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Json<'a> {
    Null,
    Bool(bool),
    Integer(i64),
    /// Any other number.
    Float(f64),
    Text(Cow<'a, str>),
    Array(Vec<Json<'a>>),
    Object(Object<'a>),
}

/// Fields in the order of the text, repeated ones too.
pub(crate) type Object<'a> = Vec<(Cow<'a, str>, Json<'a>)>;

impl Json<'_> {
    /// How a person would call it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "true or false",
            Self::Integer(_) => "a whole number",
            Self::Float(_) => "a number",
            Self::Text(_) => "a string",
            Self::Array(_) => "an array",
            Self::Object(_) => "an object",
        }
    }
}

/// Compact, and the same text for the same value: the fields in their order, a number that JSON does not have as null.
impl Serialize for Json<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Integer(number) => serializer.serialize_i64(*number),
            Self::Float(number) => serializer.serialize_f64(*number),
            Self::Text(text) => serializer.serialize_str(text),
            Self::Array(items) => serializer.collect_seq(items),
            Self::Object(fields) => serializer.collect_map(fields.iter().map(|(name, value)| (name, value))),
        }
    }
}

/// As a value of its own; of fields that are named twice, the first counts.
pub(crate) fn to_value(json: &Json<'_>) -> Value {
    match json {
        Json::Null => Value::Null,
        Json::Bool(value) => (*value).into(),
        Json::Integer(value) => (*value).into(),
        Json::Float(value) => (*value).into(),
        Json::Text(text) => text.as_ref().into(),
        Json::Array(items) => items.iter().map(to_value).collect(),
        Json::Object(fields) => {
            let mut object = Map::new();
            for (name, value) in fields {
                object.entry(name.as_ref()).or_insert_with(|| to_value(value));
            }
            Value::Object(object)
        }
    }
}

/// Why a text is no value.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum JsonFault {
    Syntax {
        message: String,
        /// Within the text, counted from 1.
        line: usize,
        /// In bytes, counted from 1.
        column: usize,
        /// Whether the text ends too early.
        at_end: bool,
    },
    TooManyValues,
}

/// Parses the whole text as one value.
pub(crate) fn parse(text: &str) -> Result<Json<'_>, JsonFault> {
    let left = Cell::new(MAX_VALUES);
    let mut deserializer = serde_json::Deserializer::from_str(text);
    Budgeted { left: &left }
        .deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value))
        .map_err(|error| match error.classify() {
            serde_json::error::Category::Data => JsonFault::TooManyValues,
            category => JsonFault::Syntax {
                message: without_place(&error),
                line: error.line(),
                column: error.column(),
                at_end: category == serde_json::error::Category::Eof,
            },
        })
}

/// serde_json ends its message with a place that is relative to the row.
fn without_place(error: &serde_json::Error) -> String {
    let message = error.to_string();
    message.rfind(" at line ").map_or(message.clone(), |end| message[..end].to_owned())
}

#[derive(Clone, Copy)]
struct Budgeted<'c> {
    left: &'c Cell<u32>,
}

impl Budgeted<'_> {
    fn spend<E: serde::de::Error>(self) -> Result<(), E> {
        match self.left.get().checked_sub(1) {
            Some(left) => {
                self.left.set(left);
                Ok(())
            }
            None => Err(E::custom("too many values")),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Budgeted<'_> {
    type Value = Json<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json<'de>, D::Error> {
        self.spend()?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Budgeted<'_> {
    type Value = Json<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Json<'de>, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json<'de>, E> {
        Ok(Json::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json<'de>, E> {
        Ok(Json::Integer(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json<'de>, E> {
        Ok(i64::try_from(value).map_or(Json::Float(value as f64), Json::Integer))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json<'de>, E> {
        Ok(Json::Float(value))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Json<'de>, E> {
        Ok(Json::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Json<'de>, E> {
        Ok(Json::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json<'de>, A::Error> {
        let mut array = Vec::new();
        while let Some(item) = items.next_element_seed(self)? {
            array.push(item);
        }
        Ok(Json::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Json<'de>, A::Error> {
        let mut object = Vec::new();
        while let Some(Name(name)) = fields.next_key()? {
            let value = fields.next_value_seed(self)?;
            object.push((name, value));
        }
        Ok(Json::Object(object))
    }
}

/// A field's name, borrowed where it has no escapes (serde's `Cow` always copies).
struct Name<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = Name<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a field's name")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    #[test]
    fn values_are_read_and_strings_borrowed() {
        let text = r#"{"a": [1, -2.5, true, null, 18446744073709551615], "b": "plain", "c": "esc\n", "a": {}}"#;
        let Json::Object(fields) = parse(text).unwrap() else { panic!("an object") };
        let names: Vec<&str> = fields.iter().map(|(name, _)| name.as_ref()).collect();
        assert_eq!(names, ["a", "b", "c", "a"]);
        assert!(matches!(&fields[1].1, Json::Text(Cow::Borrowed("plain"))));
        assert!(matches!(&fields[2].1, Json::Text(Cow::Owned(text)) if text == "esc\n"));
        let Json::Array(items) = &fields[0].1 else { panic!("an array") };
        assert_eq!(items[..4], [Json::Integer(1), Json::Float(-2.5), Json::Bool(true), Json::Null]);
        assert_eq!(items[4].kind(), "a number");
    }

    #[test]
    fn faults_have_a_place() {
        let fault = |text| parse(text).unwrap_err();
        let JsonFault::Syntax { message, line, column, at_end } = fault("{\"a\": 1,\n  b}") else { panic!("syntax") };
        assert_eq!((message.as_str(), line, column, at_end), ("key must be a string", 2, 3, false));
        assert!(matches!(fault("{\"a\": "), JsonFault::Syntax { at_end: true, .. }));
        assert!(matches!(fault("{} {}"), JsonFault::Syntax { at_end: false, .. }));
        assert!(matches!(fault("\"\\ud800\""), JsonFault::Syntax { .. }), "half a surrogate pair");
        assert!(matches!(fault(&"[".repeat(1000)), JsonFault::Syntax { .. }), "too deep");
    }

    #[test]
    fn values_are_counted() {
        let ones = |count: usize| format!("[{}]", vec!["1"; count].join(","));
        assert!(parse(&ones(MAX_VALUES as usize - 1)).is_ok());
        assert_eq!(parse(&ones(MAX_VALUES as usize)), Err(JsonFault::TooManyValues));
    }
}
