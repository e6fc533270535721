//! Reading fields, and refusing those that change what an adapter computes and are not implemented.

use serde_json::{Map, Value};

use super::NO_BEARING;
use crate::error::WeightsError;

/// The fields of a config.
pub(super) struct Fields<'a>(pub &'a Map<String, Value>);

impl<'a> Fields<'a> {
    /// The field's value; null is as good as none.
    pub fn get(&self, field: &str) -> Option<&'a Value> {
        self.0.get(field).filter(|value| !value.is_null())
    }

    pub fn flag(&self, field: &str) -> Result<bool, WeightsError> {
        match self.get(field) {
            None => Ok(false),
            Some(value) => value.as_bool().ok_or_else(|| refused(field, "must be true or false")),
        }
    }

    pub fn number(&self, field: &str, default: f64) -> Result<f64, WeightsError> {
        match self.get(field) {
            None => Ok(default),
            Some(value) => value.as_f64().filter(|n| n.is_finite()).ok_or_else(|| refused(field, "must be a number")),
        }
    }

    /// A whole number of at least 1.
    pub fn count(&self, field: &str) -> Result<u32, WeightsError> {
        let count = self.get(field).and_then(whole).filter(|count| *count > 0);
        count.ok_or_else(|| refused(field, "must be a whole number of at least 1"))
    }

    /// Whole numbers, or one of them; `None` where the field is absent.
    pub fn indices(&self, field: &str) -> Result<Option<Vec<u32>>, WeightsError> {
        let read = |value: &Value| match value {
            Value::Array(items) => items.iter().map(whole).collect(),
            one => whole(one).map(|index| vec![index]),
        };
        match self.get(field) {
            None => Ok(None),
            Some(value) => {
                let mut indices =
                    read(value).ok_or_else(|| refused(field, format!("is {value}; it must be a list of indices")))?;
                indices.sort_unstable();
                indices.dedup();
                Ok(Some(indices))
            }
        }
    }

    /// Plain names of modules, sorted; empty where the field is absent.
    pub fn names(&self, field: &str) -> Result<Vec<String>, WeightsError> {
        let names = self.paths(field)?;
        match names.iter().any(|name| name.contains('.')) {
            true => Err(refused(field, "must hold plain module names such as `q_proj`")),
            false => Ok(names),
        }
    }

    /// Last parts of modules' paths, or whole paths, sorted; empty where the field is absent.
    pub fn paths(&self, field: &str) -> Result<Vec<String>, WeightsError> {
        let items = match self.get(field) {
            None => return Ok(Vec::new()),
            Some(Value::Array(items)) => items,
            Some(_) => return Err(refused(field, "must be a list of module names; a pattern is not supported")),
        };
        let path = |item: &Value| item.as_str().filter(|path| !path.is_empty()).map(str::to_owned);
        let names: Option<Vec<_>> = items.iter().map(path).collect();
        let mut names = names.ok_or_else(|| refused(field, "must hold module names such as `q_proj`"))?;
        names.sort();
        names.dedup();
        Ok(names)
    }

    /// As [`Self::paths`], of at least one module.
    pub fn some_paths(&self, field: &str) -> Result<Vec<String>, WeightsError> {
        let names = self.paths(field)?;
        if names.is_empty() { Err(refused(field, "must name at least one module")) } else { Ok(names) }
    }

    /// Refuses every field that is neither read nor known to have no bearing, unless it is off.
    pub fn refuse_others(&self, read: &[&str], is_off: impl Fn(&str, &Value) -> bool) -> Result<(), WeightsError> {
        for (field, value) in self.0 {
            let known = NO_BEARING.contains(&field.as_str()) || read.contains(&field.as_str());
            let off = match value {
                Value::Null | Value::Bool(false) => true,
                Value::Array(items) => items.is_empty(),
                Value::Object(items) => items.is_empty(),
                _ => false,
            };
            if !known && !off && !is_off(field, value) {
                return Err(refused(field, format!("is {value}, which is not supported")));
            }
        }
        Ok(())
    }
}

fn whole(value: &Value) -> Option<u32> {
    value.as_u64().and_then(|number| u32::try_from(number).ok())
}

pub(super) fn refused(field: impl Into<String>, reason: impl Into<String>) -> WeightsError {
    WeightsError::AdapterConfig { field: field.into(), reason: reason.into() }
}
