//! Typed look-ups in a JSON object whose errors name the field.

use serde_json::{Map, Value};

use crate::error::WeightsError;

/// The fields of one JSON object; `prefix` is its own name with a dot, or nothing.
pub(crate) struct Fields<'a> {
    prefix: &'static str,
    map: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    pub(crate) fn new(prefix: &'static str, map: &'a Map<String, Value>) -> Self {
        Self { prefix, map }
    }

    pub(crate) fn name(&self, field: &str) -> String {
        format!("{}{field}", self.prefix)
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &'a String> {
        self.map.keys()
    }

    /// The field's value; null counts as absent.
    pub(crate) fn get(&self, field: &str) -> Option<&'a Value> {
        self.map.get(field).filter(|value| !value.is_null())
    }

    fn typed<T>(
        &self,
        field: &str,
        wanted: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, WeightsError> {
        let Some(value) = self.get(field) else { return Ok(None) };
        read(value)
            .map(Some)
            .ok_or_else(|| WeightsError::config(self.name(field), format!("must be {wanted}; it is {}", brief(value))))
    }

    pub(crate) fn maybe_u32(&self, field: &str) -> Result<Option<u32>, WeightsError> {
        self.typed(field, "a whole number below 2^32", as_u32)
    }

    pub(crate) fn u32(&self, field: &str) -> Result<u32, WeightsError> {
        self.maybe_u32(field)?.ok_or_else(|| self.absent(field))
    }

    pub(crate) fn maybe_f64(&self, field: &str) -> Result<Option<f64>, WeightsError> {
        self.typed(field, "a number", Value::as_f64)
    }

    pub(crate) fn f64(&self, field: &str) -> Result<f64, WeightsError> {
        self.maybe_f64(field)?.ok_or_else(|| self.absent(field))
    }

    pub(crate) fn maybe_bool(&self, field: &str) -> Result<Option<bool>, WeightsError> {
        self.typed(field, "true or false", Value::as_bool)
    }

    pub(crate) fn maybe_text(&self, field: &str) -> Result<Option<String>, WeightsError> {
        self.typed(field, "a text", |value| value.as_str().map(str::to_owned))
    }

    pub(crate) fn text(&self, field: &str) -> Result<String, WeightsError> {
        self.maybe_text(field)?.ok_or_else(|| self.absent(field))
    }

    pub(crate) fn maybe_map(&self, field: &str) -> Result<Option<&'a Map<String, Value>>, WeightsError> {
        self.typed(field, "an object", Value::as_object)
    }

    /// One id or a list of them.
    pub(crate) fn ids(&self, field: &str) -> Result<Vec<u32>, WeightsError> {
        let read = |value: &Value| match value {
            Value::Array(items) => items.iter().map(as_u32).collect(),
            one => as_u32(one).map(|id| vec![id]),
        };
        Ok(self.typed(field, "a token id or a list of them", read)?.unwrap_or_default())
    }

    fn absent(&self, field: &str) -> WeightsError {
        WeightsError::config(self.name(field), "is missing")
    }
}

fn as_u32(value: &Value) -> Option<u32> {
    value.as_u64().and_then(|number| u32::try_from(number).ok())
}

/// A value as an error shows it: the beginning of a long one.
pub(crate) fn brief(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}
