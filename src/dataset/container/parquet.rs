//! Parquet: its directory lies at the end, so the bytes go to an unnamed temporary file first. Lines are row numbers.

use std::{
    borrow::Cow,
    fs::File,
    io::{self, Write},
    panic::{AssertUnwindSafe, catch_unwind},
};

use parquet::{
    file::reader::{FileReader, SerializedFileReader},
    record::{Field, Row},
};

use super::Fault;
use crate::{
    json::{Json, Object},
    rules,
    splitter::{Emit, Piece, Place},
};

/// Largest row group, unpacked: its pages are held in memory.
const MOST_ROW_GROUP_BYTES: i64 = 1 << 30;

pub(super) struct ParquetRows {
    spool: io::BufWriter<File>,
}

impl ParquetRows {
    pub fn new() -> Result<Self, Fault> {
        let spool = tempfile::tempfile().map_err(|error| spooled(&error))?;
        Ok(Self { spool: io::BufWriter::new(spool) })
    }

    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.spool.write_all(bytes).map_err(|error| spooled(&error))
    }

    pub fn finish(self, emit: Emit<'_>) -> Result<(), Fault> {
        let file = self.spool.into_inner().map_err(|error| spooled(error.error()))?;
        let mut rows = 0;
        // Some damage shows as a panic of the library.
        let read = catch_unwind(AssertUnwindSafe(|| read(file, &mut rows, emit)));
        match read {
            Ok(Ok(())) => Ok(()),
            Ok(Err(reason)) => Err(damaged(rows + 1, &reason)),
            Err(_) => Err(damaged(rows + 1, "its pages are damaged")),
        }
    }
}

fn read(file: File, rows: &mut u64, emit: Emit<'_>) -> Result<(), String> {
    let reader = SerializedFileReader::new(file).map_err(|error| error.to_string())?;
    let groups = reader.metadata().row_groups();
    if let Some(group) = groups.iter().position(|group| !(0..=MOST_ROW_GROUP_BYTES).contains(&group.total_byte_size()))
    {
        return Err(format!("its row group {group} has more than 1 GB; write smaller ones"));
    }
    for row in reader.into_iter() {
        let row = row.map_err(|error| error.to_string())?;
        *rows += 1;
        emit(Piece::Object { place: Place { line: *rows, column: 0 }, object: object(row) });
    }
    Ok(())
}

/// Null fields are left out: a column that another row fills is none of this one.
fn object(row: Row) -> Object<'static> {
    let filled = row.into_columns().into_iter().filter(|(_, field)| !matches!(field, Field::Null));
    filled.map(|(name, field)| (Cow::Owned(name), value(field))).collect()
}

fn value(field: Field) -> Json<'static> {
    let text = |text: String| Json::Text(Cow::Owned(text));
    match field {
        Field::Null => Json::Null,
        Field::Bool(value) => Json::Bool(value),
        Field::Byte(number) => Json::Integer(number.into()),
        Field::Short(number) => Json::Integer(number.into()),
        Field::Int(number) => Json::Integer(number.into()),
        Field::Long(number) => Json::Integer(number),
        Field::UByte(number) => Json::Integer(number.into()),
        Field::UShort(number) => Json::Integer(number.into()),
        Field::UInt(number) => Json::Integer(number.into()),
        Field::ULong(number) => i64::try_from(number).map_or(Json::Float(number as f64), Json::Integer),
        Field::Float16(number) => Json::Float(number.into()),
        Field::Float(number) => Json::Float(number.into()),
        Field::Double(number) => Json::Float(number),
        Field::Str(words) => text(words),
        // Older writers do not say that their texts are texts.
        Field::Bytes(bytes) => text(String::from_utf8_lossy(bytes.data()).into_owned()),
        Field::Group(row) => Json::Object(object(row)),
        Field::ListInternal(list) => Json::Array(list.elements().iter().cloned().map(value).collect()),
        other => text(other.to_string()),
    }
}

fn damaged(line: u64, reason: &str) -> Fault {
    let reason: String = reason.chars().take(300).collect();
    Fault::new(&rules::PARQUET_INVALID, line, format!("the Parquet file cannot be read ({reason}); write it again"))
}

fn spooled(error: &io::Error) -> Fault {
    let reason = format!("the service cannot keep the Parquet file while it is read ({error}); try again later");
    Fault::new(&rules::PARQUET_INVALID, 1, reason)
}
