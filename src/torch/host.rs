//! Bytes in host memory to tensors and back.

use tch::{Kind, Tensor};

use crate::error::TorchError;

/// A tensor on the CPU that copies `bytes`: little-endian, row-major, contiguous; they need not be aligned.
///
/// # Errors
/// Bytes that do not fill `shape` exactly.
pub fn tensor_from_bytes(bytes: &[u8], shape: &[usize], kind: Kind) -> Result<Tensor, TorchError> {
    let wanted = shape.iter().try_fold(kind.elt_size_in_bytes(), |product, &size| product.checked_mul(size));
    if wanted != Some(bytes.len()) {
        let bytes_an_element = kind.elt_size_in_bytes();
        return Err(TorchError::WrongSize { shape: shape.to_vec(), bytes_an_element, bytes: bytes.len() });
    }
    let shape: Vec<i64> = shape.iter().map(|&size| size as i64).collect();
    Ok(Tensor::f_from_data_size(bytes, &shape, kind)?)
}

/// The elements of a tensor, row-major, whatever its layout and device.
///
/// # Errors
/// No memory for the copy.
pub fn bytes_of(tensor: &Tensor) -> Result<Vec<u8>, TorchError> {
    let tensor = tensor.f_detach()?.f_to_device(tch::Device::Cpu)?.f_contiguous()?;
    let elements = tensor.numel();
    let mut bytes = vec![0_u8; elements * tensor.f_kind()?.elt_size_in_bytes()];
    tensor.f_copy_data_u8(&mut bytes, elements)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn bytes_go_in_and_come_out() {
        let bytes: Vec<u8> = [1.0_f32, 2.0, 3.0, 4.0, 5.0, 6.0].iter().flat_map(|x| x.to_le_bytes()).collect();
        let tensor = tensor_from_bytes(&bytes, &[2, 3], Kind::Float).unwrap();
        assert_eq!(tensor.double_value(&[1, 0]), 4.0);
        assert_eq!(bytes_of(&tensor).unwrap(), bytes);
        let transposed = bytes_of(&tensor.tr()).unwrap();
        assert_eq!(transposed[4..8], 4.0_f32.to_le_bytes());
    }

    #[test]
    fn a_wrong_size_is_refused() {
        let error = tensor_from_bytes(&[0; 10], &[2, 3], Kind::Float).err().unwrap();
        assert!(matches!(error, TorchError::WrongSize { bytes: 10, .. }));
        assert!(tensor_from_bytes(&[0; 8], &[usize::MAX, 3], Kind::Float).is_err());
        assert!(tensor_from_bytes(&[], &[0, 3], Kind::Float).is_ok());
    }
}
