//! Weights that are never trained, stored small and made dense a matrix at a time while they are used.

use std::ffi::{CStr, c_char};

use tch::{Kind, TchError, Tensor};
use torch_sys::C_tensor;

use crate::error::TorchError;

/// How a frozen matrix is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrozenFormat {
    /// Rounded to bf16.
    Bf16,
    /// Whole numbers up to 127, by the absolute maximum of each row: the weights' half of LLM.int8 (Dettmers et al. 2022),
    /// without its treatment of outliers, which is one of activations.
    Int8,
    /// 4 bits in blocks of 64, whose absolute maxima are stored in 8 bits in blocks of 256: NF4 with double quantisation
    /// (QLoRA, Dettmers et al. 2023), with the codes that bitsandbytes has on the CPU.
    Nf4,
}

/// A matrix `[out_features, in_features]` in one of the formats.
#[derive(Debug)]
pub struct FrozenMatrix {
    format: FrozenFormat,
    size: [i64; 2],
    /// What the format consists of; see [`Self::parts`].
    parts: Vec<Tensor>,
}

/// `FinetunedFrozen` of the shim.
#[repr(C)]
struct View {
    format: i64,
    rows: i64,
    columns: i64,
    parts: [*const C_tensor; 4],
}

unsafe extern "C" {
    fn finetuned_quantise_nf4(weight: *const C_tensor, parts: *mut *mut C_tensor) -> *mut c_char;
    fn finetuned_quantise_int8(weight: *const C_tensor, parts: *mut *mut C_tensor) -> *mut c_char;
    fn finetuned_frozen_matrix(frozen: *const View, as_bf16: bool, out: *mut *mut C_tensor) -> *mut c_char;
    fn finetuned_frozen_linear(
        x: *const C_tensor,
        frozen: *const View,
        bias: *const C_tensor,
        out: *mut *mut C_tensor,
    ) -> *mut c_char;
}

impl FrozenMatrix {
    /// Stores `weight`, `[out_features, in_features]`, on its device.
    ///
    /// # Errors
    /// A weight that is no matrix or not finite, or too little memory.
    pub fn new(weight: &Tensor, format: FrozenFormat) -> Result<Self, TorchError> {
        let (rows, columns) = weight.size2()?;
        if weight.f_isfinite()?.f_all()?.f_int64_value(&[])? == 0 {
            return Err(TorchError::NotFinite);
        }
        let parts = match format {
            FrozenFormat::Bf16 => vec![weight.f_to_kind(Kind::BFloat16)?.f_contiguous()?],
            FrozenFormat::Int8 => int8(weight)?,
            FrozenFormat::Nf4 => nf4(weight)?,
        };
        Ok(Self { format, size: [rows, columns], parts })
    }

    /// `[out_features, in_features]`
    pub fn size(&self) -> [i64; 2] {
        self.size
    }

    /// What it consists of, by name. Of bf16 the `weight`; of int8 the `codes` and each row's `absmax`, f32; of NF4 the
    /// `codes`, two a byte with the first in the high half, and of the blocks' maxima the `absmax_codes`, the maximum of
    /// each block of those, `absmax_absmax`, and their `offset`.
    pub fn parts(&self) -> impl Iterator<Item = (&'static str, &Tensor)> {
        let names: &[&str] = match self.format {
            FrozenFormat::Bf16 => &["weight"],
            FrozenFormat::Int8 => &["codes", "absmax"],
            FrozenFormat::Nf4 => &["codes", "absmax_codes", "absmax_absmax", "offset"],
        };
        names.iter().copied().zip(&self.parts)
    }

    /// The dense matrix, f32 or bf16: a copy.
    ///
    /// # Errors
    /// Too little memory.
    pub fn matrix(&self, kind: Kind) -> Result<Tensor, TorchError> {
        let as_bf16 = match kind {
            Kind::Float => false,
            Kind::BFloat16 => true,
            kind => return Err(TorchError::FrozenKind { kind }),
        };
        let (view, mut out) = (self.view(), std::ptr::null_mut());
        // SAFETY: the view's tensors outlive the call, and `out` has room for the pointer that is written.
        let told = unsafe { finetuned_frozen_matrix(&raw const view, as_bf16, &raw mut out) };
        take(told, out)
    }

    /// `x W^T + b`, `[tokens, out_features]`, with gradients for `x`, `[tokens, in_features]`. The dense matrix exists while
    /// the product is computed, forward and again backward, and never between.
    ///
    /// # Errors
    /// Shapes that do not fit, or too little memory.
    pub fn linear(&self, x: &Tensor, bias: Option<&Tensor>) -> Result<Tensor, TorchError> {
        let (view, mut out) = (self.view(), std::ptr::null_mut());
        let bias = bias.map_or(std::ptr::null(), Tensor::as_ptr);
        // SAFETY: as in `matrix`; a null bias is none.
        let told = unsafe { finetuned_frozen_linear(x.as_ptr(), &raw const view, bias, &raw mut out) };
        take(told, out)
    }

    /// The matrix as the shim reads it, valid as long as `self`.
    fn view(&self) -> View {
        let mut parts = [std::ptr::null(); 4];
        for (place, part) in parts.iter_mut().zip(&self.parts) {
            *place = part.as_ptr();
        }
        let [rows, columns] = self.size;
        let format = match self.format {
            FrozenFormat::Bf16 => 0,
            FrozenFormat::Int8 => 1,
            FrozenFormat::Nf4 => 2,
        };
        View { format, rows, columns, parts }
    }
}

fn int8(weight: &Tensor) -> Result<Vec<Tensor>, TorchError> {
    let mut made = [std::ptr::null_mut(); 2];
    // SAFETY: the weight outlives the call, and there is room for the two pointers that are written.
    let told = unsafe { finetuned_quantise_int8(weight.as_ptr(), made.as_mut_ptr()) };
    check(told)?;
    owned(&made, weight)
}

fn nf4(weight: &Tensor) -> Result<Vec<Tensor>, TorchError> {
    let mut made = [std::ptr::null_mut(); 4];
    // SAFETY: the weight outlives the call, and there is room for the four pointers that are written.
    let told = unsafe { finetuned_quantise_nf4(weight.as_ptr(), made.as_mut_ptr()) };
    check(told)?;
    owned(&made, weight)
}

/// The tensors that the shim has made, on the device of `like`.
fn owned(made: &[*mut C_tensor], like: &Tensor) -> Result<Vec<Tensor>, TorchError> {
    // SAFETY: without a message from the shim each is a tensor of its own, and is taken once.
    let made: Vec<Tensor> = made.iter().map(|&part| unsafe { Tensor::from_ptr(part) }).collect();
    made.into_iter().map(|part| Ok(part.f_to_device(like.device())?)).collect()
}

fn take(told: *mut c_char, out: *mut C_tensor) -> Result<Tensor, TorchError> {
    check(told)?;
    // SAFETY: without a message the shim has made a tensor, which is ours from here on.
    Ok(unsafe { Tensor::from_ptr(out) })
}

/// The shim's message as an error.
fn check(told: *mut c_char) -> Result<(), TorchError> {
    if told.is_null() {
        return Ok(());
    }
    // SAFETY: the shim gives a C string that it has allocated with malloc and forgotten.
    let message = unsafe {
        let message = CStr::from_ptr(told).to_string_lossy().into_owned();
        libc::free(told.cast());
        message
    };
    Err(TorchError::Operation(TchError::Torch(message)))
}

#[cfg(test)]
#[path = "frozen_tests.rs"]
mod frozen_tests;
