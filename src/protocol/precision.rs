//! How the weights that are not trained lie in memory.

use crate::{error::FieldError, request::CreateJobRequest, status::named_enum};

named_enum!(
    /// How the frozen matrices of the base model are stored. Those in fewer bits than are computed with are made dense one
    /// at a time, where they are used, and again in the backward pass. Embeddings, norms and the output head are never
    /// quantised.
    BasePrecision, "base_precision" {
        /// bf16 on CUDA, f32 on the CPU.
        Auto = "auto",
        F32 = "f32",
        Bf16 = "bf16",
        /// Whole numbers up to 127, by the absolute maximum of each row (the weights' half of LLM.int8, Dettmers et al.
        /// 2022).
        Int8 = "int8",
        /// 4 bits in blocks of 64, with double quantisation (QLoRA, Dettmers et al. 2023).
        Nf4 = "nf4",
    }
);

/// What is serialized of settings that were made before there was a choice.
impl Default for BasePrecision {
    fn default() -> Self {
        Self::Auto
    }
}

impl BasePrecision {
    /// Bytes of `count` stored numbers whose rows have `columns`, where they are computed with in f32.
    pub fn bytes(self, count: u64, columns: u64) -> u64 {
        match self {
            Self::Auto | Self::F32 => count.saturating_mul(4),
            Self::Bf16 => count.saturating_mul(2),
            // A maximum for each row.
            Self::Int8 => count.saturating_add((count / columns.max(1)).saturating_mul(4)),
            // Half a byte, a byte for each block of 64, and 4 for each 256 of those.
            Self::Nf4 => (count / 2).saturating_add(count / 64).saturating_add(count / 4096),
        }
    }

    /// Whether a dense copy of a matrix is made while it is used in f32.
    pub fn is_smaller_than_f32(self) -> bool {
        matches!(self, Self::Bf16 | Self::Int8 | Self::Nf4)
    }
}

impl CreateJobRequest {
    /// Weights that are trained themselves stay f32: the small changes of a step would vanish in fewer bits.
    pub(crate) fn check_base_precision(&self) -> Result<(), FieldError> {
        match self.base_precision {
            Some(precision) if precision.is_smaller_than_f32() && self.full.is_some() => {
                let message = format!(
                    "`base_precision` must be `auto` or `f32` where `full` trains the model's own weights; it is \
                     `{precision}`"
                );
                Err(FieldError::new("base_precision", message))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fewer_bits_take_fewer_bytes() {
        let bytes = |precision: BasePrecision| precision.bytes(4096 * 64, 64);
        let all = [BasePrecision::F32, BasePrecision::Bf16, BasePrecision::Int8, BasePrecision::Nf4].map(bytes);
        assert_eq!(all, [1_048_576, 524_288, 278_528, 135_232]);
        assert_eq!(BasePrecision::Int8.bytes(u64::MAX, 0), u64::MAX);
    }
}
