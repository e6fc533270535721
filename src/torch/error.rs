//! What libtorch can refuse.

use tch::TchError;

/// A failure of libtorch or of the device beneath it.
#[derive(Debug, thiserror::Error)]
pub enum TorchError {
    /// CUDA was asked for and cannot be used.
    #[error(
        "a CUDA device was asked for, but {reason}; install NVIDIA's driver and the CUDA libraries, or ask for `cpu`"
    )]
    NoCuda { reason: String },
    /// The bytes of a tensor do not fill its shape.
    #[error("a tensor of shape {shape:?} and {bytes_an_element} bytes an element does not take {bytes} bytes")]
    WrongSize { shape: Vec<usize>, bytes_an_element: usize, bytes: usize },
    /// A thread count that no pool can have.
    #[error("{threads} is not a number of threads; it must be between 1 and 1024")]
    Threads { threads: usize },
    /// Weights that no scale fits.
    #[error("a weight that is not finite cannot be quantised")]
    NotFinite,
    /// A type of numbers that no frozen weight is made dense in.
    #[error("a frozen weight can be made f32 or bf16, not {kind:?}")]
    FrozenKind { kind: tch::Kind },
    /// An operation failed inside libtorch.
    #[error("while libtorch computed: {}", first_line(.0))]
    Operation(#[from] TchError),
}

impl TorchError {
    /// Whether the cause is too little memory, on the host or on the device.
    pub fn is_out_of_memory(&self) -> bool {
        matches!(self, Self::Operation(error) if mentions_memory(&error.to_string()))
    }
}

/// libtorch says so in prose alone: its C interface has no codes.
fn mentions_memory(text: &str) -> bool {
    ["out of memory", "can't allocate memory", "not enough memory", "bad_alloc"]
        .iter()
        .any(|phrase| text.contains(phrase))
}

/// The message without the C++ stack that libtorch appends.
fn first_line(error: &TchError) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use tch::{Device, Kind, Tensor};

    #[test]
    fn too_large_an_allocation_is_told_from_other_faults() {
        let memory = TorchError::from(Tensor::f_zeros([1_i64 << 46], (Kind::Float, Device::Cpu)).err().unwrap());
        assert!(memory.is_out_of_memory(), "{memory}");
        let a = Tensor::zeros([2, 3], (Kind::Float, Device::Cpu));
        let shape = TorchError::from(a.f_matmul(&a).err().unwrap());
        assert!(!shape.is_out_of_memory());
        assert_eq!(shape.to_string().lines().count(), 1);
    }
}
