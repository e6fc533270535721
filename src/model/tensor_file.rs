//! Named tensors in safetensors files, as peft writes them.

use std::{borrow::Cow, cell::RefCell, collections::HashMap, path::Path};

use finetuned_torch::{Kind, Tensor, TorchError, bytes_of, tensor_from_bytes};
use safetensors::{Dtype, SafeTensors, View};

use crate::error::ModelError;

/// The bytes of a file that holds these tensors, each in its own type: f64, f32, f16, bf16, i64 or u8. Equal tensors give equal
/// bytes.
///
/// # Errors
/// A type that is none of these, or two tensors of one name.
pub fn to_bytes(tensors: &[(String, Tensor)]) -> Result<Vec<u8>, ModelError> {
    let fault = |reason: String| ModelError::TensorFile { path: "(in memory)".into(), reason };
    let failed = RefCell::new(None);
    let mut views = Vec::with_capacity(tensors.len());
    for (name, tensor) in tensors {
        let dtype = dtype_of(tensor.f_kind()?).ok_or_else(|| fault(format!("`{name}` has a type that is not kept")))?;
        let shape = tensor.size().iter().map(|&size| size as usize).collect();
        views.push((name.as_str(), Written { tensor, dtype, shape, failed: &failed }));
    }
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let bytes = safetensors::serialize(views, Some(metadata)).map_err(|error| fault(error.to_string()))?;
    match failed.into_inner() {
        Some(error) => Err(error.into()),
        None => Ok(bytes),
    }
}

/// A tensor whose bytes are copied to the host when their turn comes, so that no two tensors' copies exist at once.
struct Written<'a> {
    tensor: &'a Tensor,
    dtype: Dtype,
    shape: Vec<usize>,
    /// Takes up a failure, for which the trait has no room.
    failed: &'a RefCell<Option<TorchError>>,
}

impl View for Written<'_> {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        bytes_of(self.tensor).map(Cow::Owned).unwrap_or_else(|error| {
            *self.failed.borrow_mut() = Some(error);
            Cow::Owned(vec![0; self.data_len()])
        })
    }

    fn data_len(&self) -> usize {
        self.shape.iter().product::<usize>() * self.tensor.kind().elt_size_in_bytes()
    }
}

/// Writes [`to_bytes`] into a file. Whoever needs it to outlive a crash syncs it.
///
/// # Errors
/// As [`to_bytes`], or a file that cannot be written.
pub fn save(path: &Path, tensors: &[(String, Tensor)]) -> Result<(), ModelError> {
    let bytes = to_bytes(tensors)?;
    std::fs::write(path, bytes).map_err(|source| ModelError::Io { doing: "writing", path: path.to_owned(), source })
}

/// All tensors of a file, on the CPU, in the order of their names.
///
/// # Errors
/// A file that cannot be read, is malformed, or holds a type that is not kept.
pub fn load(path: &Path) -> Result<Vec<(String, Tensor)>, ModelError> {
    let fault = |reason: String| ModelError::TensorFile { path: path.to_owned(), reason };
    let bytes =
        std::fs::read(path).map_err(|source| ModelError::Io { doing: "reading", path: path.to_owned(), source })?;
    let file = SafeTensors::deserialize(&bytes).map_err(|error| fault(error.to_string()))?;
    let mut tensors = Vec::with_capacity(file.len());
    for (name, view) in file.tensors() {
        let kind = kind_of(view.dtype()).ok_or_else(|| fault(format!("`{name}` has type {:?}", view.dtype())))?;
        tensors.push((name, tensor_from_bytes(view.data(), view.shape(), kind)?));
    }
    tensors.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(tensors)
}

fn dtype_of(kind: Kind) -> Option<Dtype> {
    match kind {
        Kind::Float => Some(Dtype::F32),
        Kind::Half => Some(Dtype::F16),
        Kind::BFloat16 => Some(Dtype::BF16),
        Kind::Double => Some(Dtype::F64),
        Kind::Int64 => Some(Dtype::I64),
        Kind::Uint8 => Some(Dtype::U8),
        _ => None,
    }
}

fn kind_of(dtype: Dtype) -> Option<Kind> {
    match dtype {
        Dtype::F32 => Some(Kind::Float),
        Dtype::F16 => Some(Kind::Half),
        Dtype::BF16 => Some(Kind::BFloat16),
        Dtype::F64 => Some(Kind::Double),
        Dtype::I64 => Some(Kind::Int64),
        Dtype::U8 => Some(Kind::Uint8),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn tensors_come_back_as_they_went() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        let half = Tensor::from_slice(&[1.5_f32, -2.0]).to_kind(Kind::BFloat16);
        let tensors = [("b".to_owned(), Tensor::from_slice(&[1_i64, 2, 3])), ("a".to_owned(), half)];
        save(&path, &tensors).unwrap();
        let loaded = load(&path).unwrap();
        assert_eq!(loaded.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert!(loaded[0].1.equal(&tensors[1].1) && loaded[1].1.equal(&tensors[0].1));
        let header = std::fs::read(&path).unwrap();
        assert!(String::from_utf8_lossy(&header).contains(r#""__metadata__":{"format":"pt"}"#));
    }

    #[test]
    fn a_cut_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        let bytes = to_bytes(&[("a".to_owned(), Tensor::from_slice(&[1.0_f32; 64]))]).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 8]).unwrap();
        assert!(matches!(load(&path), Err(ModelError::TensorFile { .. })));
        assert!(matches!(load(&folder.path().join("none")), Err(ModelError::Io { .. })));
    }
}
