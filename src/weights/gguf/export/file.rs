//! The bytes of a GGUF file, version 3, written once from front to back.

use std::{
    fs::File,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

use super::encode::Encoding;
use crate::{error::WeightsError, gguf::MAGIC};

const VERSION: u32 = 3;
const ALIGNMENT: usize = 32;
const DOING: &str = "writing the GGUF file";

/// Metadata and the descriptions of tensors, in the order of writing.
#[derive(Default)]
pub(super) struct Header {
    entries: u64,
    entry_bytes: Vec<u8>,
    tensors: u64,
    tensor_bytes: Vec<u8>,
    /// Bytes of all tensors so far, with what fills them up.
    data: u64,
}

impl Header {
    pub fn new() -> Self {
        Self::default()
    }

    fn entry(&mut self, key: &str, kind: u32, value: impl IntoIterator<Item = u8>) {
        self.entries += 1;
        push_text(&mut self.entry_bytes, key);
        self.entry_bytes.extend(kind.to_le_bytes());
        self.entry_bytes.extend(value);
    }

    pub fn u32(&mut self, key: &str, value: u32) {
        self.entry(key, 4, value.to_le_bytes());
    }

    pub fn f32(&mut self, key: &str, value: f32) {
        self.entry(key, 6, value.to_le_bytes());
    }

    pub fn flag(&mut self, key: &str, value: bool) {
        self.entry(key, 7, [u8::from(value)]);
    }

    pub fn text(&mut self, key: &str, value: &str) {
        let mut bytes = Vec::new();
        push_text(&mut bytes, value);
        self.entry(key, 8, bytes);
    }

    pub fn texts<'a>(&mut self, key: &str, values: impl ExactSizeIterator<Item = &'a str>) {
        let mut bytes = [8_u32.to_le_bytes().as_slice(), &(values.len() as u64).to_le_bytes()].concat();
        values.for_each(|value| push_text(&mut bytes, value));
        self.entry(key, 9, bytes);
    }

    pub fn i32s(&mut self, key: &str, values: &[i32]) {
        let mut bytes = [5_u32.to_le_bytes().as_slice(), &(values.len() as u64).to_le_bytes()].concat();
        bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        self.entry(key, 9, bytes);
    }

    /// Describes the next tensor; `shape` is outermost dimension first.
    ///
    /// # Errors
    /// A size that no file can have.
    pub fn tensor(&mut self, name: &str, shape: &[usize], encoding: Encoding) -> Result<(), WeightsError> {
        let (block, block_bytes) = encoding.kind().block();
        let elements = shape.iter().try_fold(1_usize, |product, &size| product.checked_mul(size));
        let Some(bytes) = elements.and_then(|elements| (elements / block).checked_mul(block_bytes)) else {
            return Err(WeightsError::unsupported("GGUF export of the tensor", name, "tensors that fit into memory"));
        };
        self.tensors += 1;
        push_text(&mut self.tensor_bytes, name);
        self.tensor_bytes.extend((shape.len() as u32).to_le_bytes());
        self.tensor_bytes.extend(shape.iter().rev().flat_map(|&size| (size as u64).to_le_bytes()));
        self.tensor_bytes.extend(encoding.kind().number().to_le_bytes());
        self.tensor_bytes.extend(self.data.to_le_bytes());
        self.data += bytes.next_multiple_of(ALIGNMENT) as u64;
        Ok(())
    }
}

fn push_text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

/// A file whose header is written and whose tensors are to follow, in the order in which they were described.
pub(super) struct GgufWriter {
    path: PathBuf,
    file: BufWriter<File>,
}

impl GgufWriter {
    pub fn create(path: &Path, header: &Header) -> Result<Self, WeightsError> {
        let file = File::create(path).map_err(WeightsError::io(DOING, path))?;
        let mut writer = Self { path: path.to_owned(), file: BufWriter::new(file) };
        let start = [
            MAGIC,
            &VERSION.to_le_bytes(),
            &header.tensors.to_le_bytes(),
            &header.entries.to_le_bytes(),
            &header.entry_bytes,
            &header.tensor_bytes,
        ];
        writer.tensor(&start.concat())?;
        Ok(writer)
    }

    /// Writes the next tensor and fills it up to the alignment.
    pub fn tensor(&mut self, bytes: &[u8]) -> Result<(), WeightsError> {
        let filling = bytes.len().next_multiple_of(ALIGNMENT) - bytes.len();
        let written = self.file.write_all(bytes).and_then(|()| self.file.write_all(&[0; ALIGNMENT][..filling]));
        written.map_err(WeightsError::io(DOING, &self.path))
    }

    pub fn finish(mut self) -> Result<(), WeightsError> {
        self.file.flush().map_err(WeightsError::io(DOING, &self.path))
    }
}
