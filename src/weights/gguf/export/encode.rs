//! f32 numbers as GGUF stores them.

use half::f16;

use crate::{error::WeightsError, gguf::kinds::Kind};

/// How the matrices of a model are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GgufPrecision {
    F16,
    /// Blocks of 32 numbers with a scale of their own and eight bits each.
    Q8_0,
}

/// How one tensor is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    F32,
    F16,
    Q8_0,
}

const BLOCK: usize = 32;

impl GgufPrecision {
    /// `general.file_type`, llama.cpp's `llama_ftype`.
    pub(super) fn file_type(self) -> u32 {
        match self {
            Self::F16 => 1,
            Self::Q8_0 => 7,
        }
    }

    /// Vectors stay in f32, and rows that are no whole number of blocks in f16.
    pub(super) fn of(self, shape: &[usize]) -> Encoding {
        match (self, shape) {
            (_, [] | [_]) => Encoding::F32,
            (Self::Q8_0, [.., columns]) if columns.is_multiple_of(BLOCK) => Encoding::Q8_0,
            _ => Encoding::F16,
        }
    }
}

impl Encoding {
    pub(super) fn kind(self) -> Kind {
        match self {
            Self::F32 => Kind::F32,
            Self::F16 => Kind::F16,
            Self::Q8_0 => Kind::Q8_0,
        }
    }
}

/// # Errors
/// A number that f16 cannot hold.
pub(super) fn encode(name: &str, values: &[f32], encoding: Encoding) -> Result<Vec<u8>, WeightsError> {
    Ok(match encoding {
        Encoding::F32 => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        Encoding::F16 => {
            let mut out = Vec::with_capacity(2 * values.len());
            for &value in values {
                out.extend(half(name, value)?.to_le_bytes());
            }
            out
        }
        Encoding::Q8_0 => {
            let mut out = Vec::with_capacity(values.len() / BLOCK * (BLOCK + 2));
            for block in values.chunks_exact(BLOCK) {
                q8_0(name, block, &mut out)?;
            }
            out
        }
    })
}

fn half(name: &str, value: f32) -> Result<f16, WeightsError> {
    let half = f16::from_f32(value);
    if half.is_finite() {
        return Ok(half);
    }
    Err(WeightsError::unsupported(
        "GGUF export of a value",
        format!("{value} (in {name})"),
        "what f16 can hold, up to 65504",
    ))
}

/// ggml's `quantize_row_q8_0_ref`: the largest magnitude becomes 127.
fn q8_0(name: &str, block: &[f32], out: &mut Vec<u8>) -> Result<(), WeightsError> {
    let largest = block.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
    if let Some(value) = block.iter().find(|value| !value.is_finite()) {
        half(name, *value)?;
    }
    let scale = largest / 127.0;
    let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
    out.extend(half(name, scale)?.to_le_bytes());
    out.extend(block.iter().map(|value| ((value * inverse).round() as i8).cast_unsigned()));
    Ok(())
}
