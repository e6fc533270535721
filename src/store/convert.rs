//! Between the numbers and texts of rows and those of Rust.

use std::{fmt::Display, str::FromStr};

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::StoreError;

/// For `bigint` columns; counts beyond 2^63 do not occur.
pub(crate) fn big(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// For columns whose check forbids negative numbers.
pub(crate) fn count(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

/// For columns whose check forbids negative numbers.
pub(crate) fn small(value: i32) -> u32 {
    u32::try_from(value).unwrap_or(0)
}

/// For `integer` columns.
pub(crate) fn int(value: u32) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}

/// A state spelled as text.
pub(crate) fn named<T: FromStr>(what: &'static str, text: &str) -> Result<T, StoreError>
where
    T::Err: Display,
{
    text.parse().map_err(|error: T::Err| StoreError::Unreadable { what, reason: error.to_string() })
}

/// A value kept as `jsonb`.
pub(crate) fn from_json<T: DeserializeOwned>(what: &'static str, value: Value) -> Result<T, StoreError> {
    serde_json::from_value(value).map_err(|error| StoreError::Unreadable { what, reason: error.to_string() })
}

/// An optional value kept as `jsonb`.
pub(crate) fn maybe_json<T: DeserializeOwned>(
    what: &'static str,
    value: Option<Value>,
) -> Result<Option<T>, StoreError> {
    value.map(|value| from_json(what, value)).transpose()
}

/// A value for a `jsonb` column.
pub(crate) fn to_json<T: Serialize>(what: &'static str, value: &T) -> Result<Value, StoreError> {
    let value = serde_json::to_value(value);
    value.map(storable).map_err(|error| StoreError::Unreadable { what, reason: error.to_string() })
}

/// Postgres' text cannot hold a zero byte, which a log line or a model's answer may; it becomes U+FFFD.
pub(crate) fn storable_text(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// The same for all texts of a `jsonb` value.
pub(crate) fn storable(value: Value) -> Value {
    match value {
        Value::String(text) if text.contains('\0') => Value::String(storable_text(&text)),
        Value::Array(items) => Value::Array(items.into_iter().map(storable).collect()),
        Value::Object(fields) => {
            Value::Object(fields.into_iter().map(|(key, value)| (storable_text(&key), storable(value))).collect())
        }
        other => other,
    }
}
