//! Typed look-ups in a JSON object whose errors name the field.

use std::{cell::RefCell, collections::BTreeSet};

use serde_json::{Map, Value};

use super::neutral;
use crate::error::WeightsError;

/// The fields of one JSON object; `prefix` is its own name with a dot, or nothing. It remembers what was asked for, so
/// that what nobody understood can be refused.
pub(crate) struct Fields<'a> {
    prefix: &'static str,
    map: &'a Map<String, Value>,
    read: RefCell<BTreeSet<String>>,
}

impl<'a> Fields<'a> {
    pub(crate) fn new(prefix: &'static str, map: &'a Map<String, Value>) -> Self {
        Self { prefix, map, read: RefCell::default() }
    }

    pub(crate) fn name(&self, field: &str) -> String {
        format!("{}{field}", self.prefix)
    }

    /// The field's value; null counts as absent.
    pub(crate) fn get(&self, field: &str) -> Option<&'a Value> {
        self.read.borrow_mut().insert(field.to_owned());
        self.map.get(field).filter(|value| !value.is_null())
    }

    /// Whether the field is there, be it as null.
    pub(crate) fn has(&self, field: &str) -> bool {
        self.map.contains_key(field)
    }

    /// Whether a field has a value.
    pub(crate) fn is_set(&self, field: &str) -> bool {
        self.map.get(field).is_some_and(|value| !value.is_null())
    }

    /// Refuses the first field that nobody asked for, is on, and is not known to have no bearing on the mathematics.
    /// `what` is the thing it would change.
    pub(crate) fn refuse_unread(&self, what: &str) -> Result<(), WeightsError> {
        let read = self.read.borrow();
        match self.map.iter().find(|(name, value)| !read.contains(*name) && !neutral::has_no_bearing(name, value)) {
            Some((name, value)) => Err(self.not_implemented(name, value, what)),
            None => Ok(()),
        }
    }

    pub(crate) fn not_implemented(&self, field: &str, value: &Value, what: &str) -> WeightsError {
        let reason = format!(
            "has the value {}, which may change what the model computes and is not implemented for {what}",
            brief(value)
        );
        WeightsError::config(self.name(field), reason)
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

    pub(crate) fn u32_or(&self, field: &str, default: u32) -> Result<u32, WeightsError> {
        Ok(self.maybe_u32(field)?.unwrap_or(default))
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

    pub(crate) fn bool_or(&self, field: &str, default: bool) -> Result<bool, WeightsError> {
        Ok(self.maybe_bool(field)?.unwrap_or(default))
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

    pub(crate) fn maybe_list(&self, field: &str) -> Result<Option<&'a Vec<Value>>, WeightsError> {
        self.typed(field, "a list", Value::as_array)
    }

    /// A list of numbers.
    pub(crate) fn numbers(&self, field: &str) -> Result<Vec<f64>, WeightsError> {
        let read = |value: &Value| value.as_array()?.iter().map(Value::as_f64).collect();
        self.typed(field, "a list of numbers", read)?.ok_or_else(|| self.absent(field))
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
