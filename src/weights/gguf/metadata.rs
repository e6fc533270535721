//! Key-value metadata. Arrays stay in the file and are read when asked for.

use std::collections::BTreeMap;

use super::{GgufError, cursor::Cursor, malformed};
use crate::error::WeightsError;

/// A scalar, or the place of an array.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    Whole(i128),
    Real(f64),
    Flag(bool),
    Text(String),
    Array(Array),
}

/// An array of `count` elements of the type numbered `kind`, from byte `start` of the file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Array {
    kind: u32,
    pub(crate) count: usize,
    start: usize,
}

const FLAG: u32 = 7;
const TEXT: u32 = 8;
const ARRAY: u32 = 9;
/// Arrays within arrays within arrays: none are known in practice.
const DEEPEST: u32 = 3;

pub(crate) struct Metadata {
    entries: BTreeMap<String, Value>,
}

impl Metadata {
    pub(crate) fn read(cursor: &mut Cursor<'_>, count: u64) -> Result<Self, GgufError> {
        let mut entries = BTreeMap::new();
        for _ in 0..count {
            let key = cursor.text("a metadata key")?.to_owned();
            let kind = cursor.u32("a metadata type")?;
            let value = read_value(cursor, kind, &key)?;
            if entries.insert(key.clone(), value).is_some() {
                return malformed(format!("metadata `{key}` is given twice"));
            }
        }
        Ok(Self { entries })
    }

    pub(crate) fn contains(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &String> {
        self.entries.keys()
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Value> {
        self.entries.get(key)
    }

    pub(crate) fn text(&self, key: &str) -> Result<Option<String>, GgufError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text.clone())),
            Some(_) => wrong(key, "a text"),
        }
    }

    pub(crate) fn required_text(&self, key: &str) -> Result<String, GgufError> {
        self.text(key)?.map_or_else(|| missing(key), Ok)
    }

    pub(crate) fn u32(&self, key: &str) -> Result<Option<u32>, GgufError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Whole(number)) => {
                u32::try_from(*number).map(Some).or_else(|_| wrong(key, "a whole number below 2^32"))
            }
            Some(_) => wrong(key, "a whole number below 2^32"),
        }
    }

    pub(crate) fn required_u32(&self, key: &str) -> Result<u32, GgufError> {
        self.u32(key)?.map_or_else(|| missing(key), Ok)
    }

    pub(crate) fn f64(&self, key: &str) -> Result<Option<f64>, GgufError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Real(number)) => Ok(Some(*number)),
            Some(_) => wrong(key, "a floating-point number"),
        }
    }

    pub(crate) fn flag(&self, key: &str) -> Result<Option<bool>, GgufError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Flag(flag)) => Ok(Some(*flag)),
            Some(_) => wrong(key, "true or false"),
        }
    }

    /// An array of texts; `bytes` is the whole file.
    pub(crate) fn texts<'a>(&self, key: &str, bytes: &'a [u8]) -> Result<Option<Vec<&'a str>>, GgufError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Array(array)) if array.kind == TEXT => {
                let mut cursor = Cursor::at(bytes, array.start);
                (0..array.count).map(|_| cursor.text(key)).collect::<Result<_, _>>().map(Some)
            }
            Some(_) => wrong(key, "a list of texts"),
        }
    }

    /// An array of whole numbers; `bytes` is the whole file.
    pub(crate) fn wholes(&self, key: &str, bytes: &[u8]) -> Result<Option<Vec<i128>>, GgufError> {
        let Some(Value::Array(array)) = self.get(key) else {
            return if self.contains(key) { wrong(key, "a list of whole numbers") } else { Ok(None) };
        };
        let mut cursor = Cursor::at(bytes, array.start);
        let read = |_| match read_value(&mut cursor, array.kind, key)? {
            Value::Whole(number) => Ok(number),
            _ => wrong(key, "a list of whole numbers"),
        };
        (0..array.count).map(read).collect::<Result<_, _>>().map(Some)
    }
}

pub(crate) fn missing<T>(key: &str) -> Result<T, GgufError> {
    Err(WeightsError::config(key, "is missing from the GGUF metadata").into())
}

pub(crate) fn wrong<T>(key: &str, wanted: &str) -> Result<T, GgufError> {
    Err(WeightsError::config(key, format!("must be {wanted}")).into())
}

fn read_value(cursor: &mut Cursor<'_>, kind: u32, key: &str) -> Result<Value, GgufError> {
    Ok(match kind {
        0 => Value::Whole(cursor.u8(key)?.into()),
        1 => Value::Whole(cursor.u8(key)?.cast_signed().into()),
        2 => Value::Whole(cursor.u16(key)?.into()),
        3 => Value::Whole(cursor.u16(key)?.cast_signed().into()),
        4 => Value::Whole(cursor.u32(key)?.into()),
        5 => Value::Whole(cursor.u32(key)?.cast_signed().into()),
        6 => Value::Real(decimal(f32::from_bits(cursor.u32(key)?))),
        FLAG => match cursor.u8(key)? {
            0 => Value::Flag(false),
            1 => Value::Flag(true),
            other => return malformed(format!("metadata `{key}` is a flag with the value {other}")),
        },
        TEXT => Value::Text(cursor.text(key)?.to_owned()),
        ARRAY => Value::Array(skip_array(cursor, key, 0)?),
        10 => Value::Whole(cursor.u64(key)?.into()),
        11 => Value::Whole(cursor.u64(key)?.cast_signed().into()),
        12 => Value::Real(f64::from_bits(cursor.u64(key)?)),
        other => return malformed(format!("metadata `{key}` has the unknown type {other}")),
    })
}

/// The f64 with the shortest decimal text of an f32, so that 1e-5 stays 1e-5 as in the config it came from.
fn decimal(single: f32) -> f64 {
    single.to_string().parse().unwrap_or_else(|_| f64::from(single))
}

/// Bytes of a scalar of that type.
fn scalar_bytes(kind: u32) -> Option<usize> {
    match kind {
        0 | 1 | FLAG => Some(1),
        2 | 3 => Some(2),
        4..=6 => Some(4),
        10..=12 => Some(8),
        _ => None,
    }
}

/// Walks over an array without keeping it; every count is checked against what is left of the file.
fn skip_array(cursor: &mut Cursor<'_>, key: &str, depth: u32) -> Result<Array, GgufError> {
    let kind = cursor.u32(key)?;
    let count = cursor.size(key)?;
    let start = cursor.position();
    let least = match kind {
        TEXT => 8,
        ARRAY => 12,
        _ => match scalar_bytes(kind) {
            Some(bytes) => bytes,
            None => return malformed(format!("metadata `{key}` is a list of the unknown type {kind}")),
        },
    };
    if count > cursor.left() / least {
        return malformed(format!("metadata `{key}` claims {count} elements, more than the file has bytes for"));
    }
    match kind {
        TEXT => {
            for _ in 0..count {
                cursor.text(key)?;
            }
        }
        ARRAY if depth + 1 >= DEEPEST => return malformed(format!("metadata `{key}` nests lists too deeply")),
        ARRAY => {
            for _ in 0..count {
                skip_array(cursor, key, depth + 1)?;
            }
        }
        _ => {
            cursor.take(count * least, key)?;
        }
    }
    Ok(Array { kind, count, start })
}
