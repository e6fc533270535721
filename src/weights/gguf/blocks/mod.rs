//! Dequantisation. Layouts from ggml's `ggml-quants.h`; each element is computed in f32 in the order ggml does it, then
//! rounded to the nearest bf16.

use half::{bf16, f16};

use super::kinds::Kind;

/// Little-endian bf16 of all whole blocks in `bytes`.
pub(crate) fn to_bf16(kind: Kind, bytes: &[u8]) -> Vec<u8> {
    let (elements, block_bytes) = kind.block();
    let decode: fn(&[u8], &mut [f32]) = match kind {
        Kind::Q4_0 => q4_0,
        Kind::Q4_1 => q4_1,
        Kind::Q5_0 => q5_0,
        Kind::Q5_1 => q5_1,
        Kind::Q8_0 => q8_0,
        Kind::Q4K => q4_k,
        Kind::Q5K => q5_k,
        Kind::Q6K => q6_k,
        Kind::F32 | Kind::F16 | Kind::Bf16 => plain(kind),
    };
    let mut values = [0.0_f32; 256];
    let values = &mut values[..elements];
    let mut out = Vec::with_capacity(bytes.len() / block_bytes * elements * 2);
    for block in bytes.chunks_exact(block_bytes) {
        decode(block, values);
        out.extend(values.iter().flat_map(|&value| bf16::from_f32(value).to_le_bytes()));
    }
    out
}

fn plain(kind: Kind) -> fn(&[u8], &mut [f32]) {
    match kind {
        Kind::F16 => |block, out| out[0] = half_at(block, 0),
        Kind::Bf16 => |block, out| out[0] = bf16::from_le_bytes([block[0], block[1]]).to_f32(),
        _ => |block, out| out[0] = f32::from_le_bytes([block[0], block[1], block[2], block[3]]),
    }
}

fn half_at(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// Splits 16 bytes into 32 nibbles: the low ones are the first half of the block.
fn nibbles(quants: &[u8], mut each: impl FnMut(usize, u8)) {
    for (index, byte) in quants.iter().enumerate() {
        each(index, byte & 0xF);
        each(index + quants.len(), byte >> 4);
    }
}

/// Scale, 32 nibbles: `d * (q - 8)`.
fn q4_0(block: &[u8], out: &mut [f32]) {
    let d = half_at(block, 0);
    nibbles(&block[2..18], |index, q| out[index] = (f32::from(q) - 8.0) * d);
}

/// Scale, minimum, 32 nibbles: `d * q + m`.
fn q4_1(block: &[u8], out: &mut [f32]) {
    let (d, m) = (half_at(block, 0), half_at(block, 2));
    nibbles(&block[4..20], |index, q| out[index] = f32::from(q) * d + m);
}

/// The fifth bits of 32 quants, one word.
fn fifth_bits(block: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]])
}

/// Scale, fifth bits, 32 nibbles: `d * (q - 16)`.
fn q5_0(block: &[u8], out: &mut [f32]) {
    let (d, high) = (half_at(block, 0), fifth_bits(block, 2));
    nibbles(&block[6..22], |index, q| {
        let q = q | ((high >> index & 1) << 4) as u8;
        out[index] = (f32::from(q) - 16.0) * d;
    });
}

/// Scale, minimum, fifth bits, 32 nibbles: `d * q + m`.
fn q5_1(block: &[u8], out: &mut [f32]) {
    let (d, m, high) = (half_at(block, 0), half_at(block, 2), fifth_bits(block, 4));
    nibbles(&block[8..24], |index, q| {
        let q = q | ((high >> index & 1) << 4) as u8;
        out[index] = f32::from(q) * d + m;
    });
}

/// Scale, 32 signed bytes.
fn q8_0(block: &[u8], out: &mut [f32]) {
    let d = half_at(block, 0);
    for (value, &q) in out.iter_mut().zip(&block[2..34]) {
        *value = f32::from(q.cast_signed()) * d;
    }
}

/// The six-bit scale and minimum of sub-block `index` of 8, out of 12 packed bytes.
fn scale_and_minimum(packed: &[u8], index: usize) -> (f32, f32) {
    let (scale, minimum) = if index < 4 {
        (packed[index] & 63, packed[index + 4] & 63)
    } else {
        let low = packed[index + 4];
        (low & 0xF | (packed[index - 4] >> 6) << 4, low >> 4 | (packed[index] >> 6) << 4)
    };
    (f32::from(scale), f32::from(minimum))
}

/// Super-block of 8 sub-blocks of 32: `d * scale * q - dmin * minimum`.
fn q4_k(block: &[u8], out: &mut [f32]) {
    let (d, dmin) = (half_at(block, 0), half_at(block, 2));
    let (packed, quants) = (&block[4..16], &block[16..144]);
    for (index, part) in out.chunks_exact_mut(32).enumerate() {
        let (scale, minimum) = scale_and_minimum(packed, index);
        let (factor, offset) = (d * scale, dmin * minimum);
        // Each 32 bytes hold two sub-blocks: low nibbles, then high ones.
        let shift = 4 * (index % 2);
        for (value, byte) in part.iter_mut().zip(&quants[index / 2 * 32..]) {
            *value = factor * f32::from(byte >> shift & 0xF) - offset;
        }
    }
}

/// As [`q4_k`] with a fifth bit: bit `index` of 32 bytes.
fn q5_k(block: &[u8], out: &mut [f32]) {
    let (d, dmin) = (half_at(block, 0), half_at(block, 2));
    let (packed, high, quants) = (&block[4..16], &block[16..48], &block[48..176]);
    for (index, part) in out.chunks_exact_mut(32).enumerate() {
        let (scale, minimum) = scale_and_minimum(packed, index);
        let (factor, offset) = (d * scale, dmin * minimum);
        let shift = 4 * (index % 2);
        for ((value, byte), bits) in part.iter_mut().zip(&quants[index / 2 * 32..]).zip(high) {
            *value = factor * f32::from((byte >> shift & 0xF) | (bits >> index & 1) << 4) - offset;
        }
    }
}

/// Super-block of 16 sub-blocks of 16: `d * scale * (q - 32)`; four low bits and two high bits apart.
fn q6_k(block: &[u8], out: &mut [f32]) {
    let (low, high, scales) = (&block[..128], &block[128..192], &block[192..208]);
    let d = half_at(block, 208);
    for (index, value) in out.iter_mut().enumerate() {
        // Halves of 128 elements; in each, four runs of 32 share their bytes.
        let (half, run, lane) = (index / 128, index % 128 / 32, index % 32);
        let four = low[half * 64 + run % 2 * 32 + lane] >> (4 * (run / 2)) & 0xF;
        let two = high[half * 32 + lane] >> (2 * run) & 3;
        let scale = f32::from(scales[index / 16].cast_signed());
        *value = d * scale * (f32::from(four | two << 4) - 32.0);
    }
}

#[cfg(test)]
mod blocks_tests;
