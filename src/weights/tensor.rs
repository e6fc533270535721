//! Tensors as they lie in host memory.

use std::{borrow::Cow, collections::HashMap, fs::File, path::Path};

use memmap2::Mmap;

use crate::{config::TensorSpec, error::WeightsError};

/// Element type of a [`HostTensor`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HostDtype {
    F32,
    F16,
    Bf16,
}

impl HostDtype {
    /// Bytes an element.
    pub fn size_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }
}

/// A tensor's bytes: little-endian, row-major, contiguous; borrowed from the mapped file where it holds them so.
/// A borrowed slice need not be aligned to its elements.
#[derive(Debug, Clone)]
pub struct HostTensor<'a> {
    pub dtype: HostDtype,
    /// Outermost dimension first, as in Hugging Face's checkpoints (`[out_features, in_features]` of a linear layer).
    pub shape: Vec<usize>,
    pub bytes: Cow<'a, [u8]>,
}

/// Maps a file for reading.
pub(crate) fn map_file(path: &Path) -> Result<Mmap, WeightsError> {
    let doing = "opening the weights";
    let file = File::open(path).map_err(WeightsError::io(doing, path))?;
    // SAFETY: the map is only read. Model files are written once and not changed while the service runs; one that is cut
    // off meanwhile raises SIGBUS in the engine or the reader, as it would under any memory-mapping loader.
    unsafe { Mmap::map(&file) }.map_err(WeightsError::io(doing, path))
}

/// Compares the tensors that are there with those a config calls for; gives all reasons why they do not agree.
pub(crate) fn check_shapes<'a>(
    wanted: &[TensorSpec],
    found: impl Iterator<Item = (&'a str, &'a [usize])>,
) -> Result<(), String> {
    let mut found: HashMap<&str, &[usize]> = found.collect();
    let (mut missing, mut other) = (Vec::new(), Vec::new());
    for spec in wanted {
        match found.remove(spec.name.as_str()) {
            None => missing.push(spec.name.clone()),
            Some(shape) if shape != spec.shape => {
                other.push(format!("{} (has {shape:?}, the config calls for {:?})", spec.name, spec.shape));
            }
            Some(_) => {}
        }
    }
    let mut extra: Vec<_> = found.into_keys().map(str::to_owned).collect();
    extra.sort();
    let reasons: Vec<String> = [
        ("it lacks the tensors", missing),
        ("tensors have other shapes than its config calls for:", other),
        ("it has tensors that its config does not account for:", extra),
    ]
    .into_iter()
    .filter(|(_, names)| !names.is_empty())
    .map(|(what, names)| format!("{what} {}", names.join(", ")))
    .collect();
    if reasons.is_empty() { Ok(()) } else { Err(reasons.join("; ")) }
}
