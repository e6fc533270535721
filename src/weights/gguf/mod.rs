//! GGUF, versions 2 and 3: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.
//!
//! The file is mapped and walked once. Every count and offset is checked against the bytes that are left before anything
//! is allocated for it.

mod blocks;
mod cursor;
pub(crate) mod export;
mod kinds;
mod llama;
mod metadata;
mod names;
mod rope_factors;
mod tokenizer;

use std::{
    borrow::Cow,
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use memmap2::Mmap;

use crate::{
    config::ModelConfig,
    error::WeightsError,
    tensor::{HostDtype, HostTensor},
    tokenizer::TextTokenizer,
};
use cursor::Cursor;
use kinds::Kind;
use metadata::Metadata;

pub(crate) const MAGIC: &[u8] = b"GGUF";

/// Where one tensor lies.
struct Info {
    kind: Kind,
    /// Outermost dimension first.
    shape: Vec<usize>,
    /// First byte, from the start of the file.
    start: usize,
    bytes: usize,
}

/// An opened GGUF file.
pub(crate) struct GgufFile {
    path: PathBuf,
    map: Mmap,
    metadata: Metadata,
    /// By Hugging Face name.
    tensors: BTreeMap<String, Info>,
    config: ModelConfig,
}

impl GgufFile {
    pub(crate) fn open(path: &Path) -> Result<Self, WeightsError> {
        let map = crate::tensor::map_file(path)?;
        let (metadata, tensors, config) = read(&map).map_err(|error| error.into_weights_error(path))?;
        Ok(Self { path: path.to_owned(), map, metadata, tensors, config })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn config(&self) -> &ModelConfig {
        &self.config
    }

    pub(crate) fn tensor_names(&self) -> Vec<String> {
        self.tensors.keys().cloned().collect()
    }

    pub(crate) fn has_chat_template(&self) -> bool {
        self.metadata.text("tokenizer.chat_template").is_ok_and(|template| template.is_some())
            && self.metadata.contains("tokenizer.ggml.tokens")
    }

    pub(crate) fn tokenizer(&self) -> Result<TextTokenizer, WeightsError> {
        tokenizer::build(&self.metadata, &self.map, &self.config).map_err(|error| error.into_weights_error(&self.path))
    }

    /// A tensor in Hugging Face's layout. Quantised ones are dequantised to f32 and rounded to bf16.
    pub(crate) fn tensor(&self, name: &str) -> Result<HostTensor<'_>, WeightsError> {
        let info = self.tensors.get(name).ok_or_else(|| WeightsError::NoSuchTensor { name: name.to_owned() })?;
        let stored = self.map.get(info.start..info.start + info.bytes).unwrap_or_default();
        let (dtype, bytes) = match info.kind.plain() {
            Some(dtype) => (dtype, Cow::Borrowed(stored)),
            None => (HostDtype::Bf16, Cow::Owned(blocks::to_bf16(info.kind, stored))),
        };
        let bytes = match names::rotary_heads(name, &self.config) {
            Some(heads) => Cow::Owned(names::undo_permutation(&bytes, heads, self.config.common.head_dim as usize)),
            None => bytes,
        };
        Ok(HostTensor { dtype, shape: info.shape.clone(), bytes })
    }
}

/// What can be wrong inside the file; the path is added by the caller.
pub(crate) enum GgufError {
    Malformed(String),
    Other(WeightsError),
}

impl GgufError {
    fn into_weights_error(self, path: &Path) -> WeightsError {
        match self {
            Self::Malformed(reason) => WeightsError::malformed(path, reason),
            Self::Other(error) => error,
        }
    }
}

impl From<WeightsError> for GgufError {
    fn from(error: WeightsError) -> Self {
        Self::Other(error)
    }
}

pub(crate) fn malformed<T>(reason: impl Into<String>) -> Result<T, GgufError> {
    Err(GgufError::Malformed(reason.into()))
}

type Parsed = (Metadata, BTreeMap<String, Info>, ModelConfig);

fn read(bytes: &[u8]) -> Result<Parsed, GgufError> {
    let mut cursor = Cursor::new(bytes);
    if cursor.take(4, "the magic number")? != MAGIC {
        return malformed("it does not begin with `GGUF`");
    }
    match cursor.u32("the version")? {
        2 | 3 => {}
        version if version.swap_bytes() < 0x1_0000 && version >= 0x1_0000 => {
            return Err(WeightsError::unsupported("GGUF byte order", "big-endian", "little-endian").into());
        }
        version => return Err(WeightsError::unsupported("GGUF version", version.to_string(), "2, 3").into()),
    }
    let tensor_count = cursor.u64("the number of tensors")?;
    let metadata_count = cursor.u64("the number of metadata entries")?;
    let metadata = Metadata::read(&mut cursor, metadata_count)?;
    if metadata.u32("split.count")?.is_some_and(|parts| parts > 1) {
        let remedy = "one file (llama.cpp's `llama-gguf-split --merge` joins the parts)";
        return Err(WeightsError::unsupported("GGUF layout", "split over several files", remedy).into());
    }
    let architecture = metadata.required_text("general.architecture")?;
    if architecture != "llama" {
        return Err(WeightsError::unsupported("GGUF model architecture", architecture, "llama").into());
    }
    let tensors = read_infos(&mut cursor, tensor_count, &metadata)?;
    let (tensors, config) = llama::assemble(&metadata, tensors, bytes)?;
    Ok((metadata, tensors, config))
}

/// Tensor descriptions by their GGUF name.
fn read_infos(cursor: &mut Cursor<'_>, count: u64, metadata: &Metadata) -> Result<BTreeMap<String, Info>, GgufError> {
    let alignment = match metadata.u32("general.alignment")?.unwrap_or(32) {
        alignment if alignment.is_power_of_two() && alignment <= 1 << 20 => alignment as usize,
        other => return malformed(format!("the alignment {other} is not a power of two of at most 1 MiB")),
    };
    let mut infos = BTreeMap::new();
    let mut unsupported = Vec::new();
    // A count that lies runs into the end of the file; nothing is reserved for it.
    for _ in 0..count {
        let name = cursor.text("a tensor's name")?.to_owned();
        let dimensions = cursor.u32("a tensor's number of dimensions")?;
        if !(1..=4).contains(&dimensions) {
            return malformed(format!("tensor `{name}` has {dimensions} dimensions; 1 to 4 are possible"));
        }
        let mut shape = Vec::with_capacity(4);
        for _ in 0..dimensions {
            shape.push(cursor.size("a tensor's size")?);
        }
        let kind = cursor.u32("a tensor's type")?;
        let offset = cursor.size("a tensor's offset")?;
        match Kind::parse(kind) {
            Ok(kind) => {
                let info = place(&name, kind, shape, offset)?;
                if infos.insert(name.clone(), info).is_some() {
                    return malformed(format!("tensor `{name}` is described twice"));
                }
            }
            Err(type_name) => unsupported.push(format!("{type_name} (of {name})")),
        }
    }
    if let Some(first) = unsupported.first() {
        let more = match unsupported.len() - 1 {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        return Err(WeightsError::unsupported("GGUF tensor type", format!("{first}{more}"), kinds::names()).into());
    }
    settle(infos, cursor, alignment)
}

/// Sizes of a tensor whose first dimension, in GGUF's order, is the innermost one.
fn place(name: &str, kind: Kind, mut shape: Vec<usize>, offset: usize) -> Result<Info, GgufError> {
    let elements = shape.iter().try_fold(1_usize, |product, &size| product.checked_mul(size));
    let (block, block_bytes) = kind.block();
    if shape.first().is_none_or(|inner| !inner.is_multiple_of(block)) {
        return malformed(format!("tensor `{name}` has rows that are no whole number of {block}-element blocks"));
    }
    let Some(bytes) = elements.and_then(|elements| (elements / block).checked_mul(block_bytes)) else {
        return malformed(format!("tensor `{name}` is larger than memory can be"));
    };
    shape.reverse();
    Ok(Info { kind, shape, start: offset, bytes })
}

/// Turns offsets from the start of the data into offsets from the start of the file, and checks that the file has them.
fn settle(
    mut infos: BTreeMap<String, Info>,
    cursor: &Cursor<'_>,
    alignment: usize,
) -> Result<BTreeMap<String, Info>, GgufError> {
    let data_start = cursor.position().next_multiple_of(alignment);
    for (name, info) in &mut infos {
        if !info.start.is_multiple_of(alignment) {
            return malformed(format!("tensor `{name}` is not aligned to {alignment} bytes"));
        }
        let start = data_start.checked_add(info.start);
        let end = start.and_then(|start| start.checked_add(info.bytes));
        match (start, end) {
            (Some(start), Some(end)) if end <= cursor.len() => info.start = start,
            _ => {
                return malformed(format!(
                    "tensor `{name}` lies beyond the end of the file, which was cut off or made wrongly"
                ));
            }
        }
    }
    Ok(infos)
}

#[cfg(test)]
mod gguf_tests;
#[cfg(test)]
pub(crate) mod writer;
