#![allow(clippy::unwrap_used, clippy::expect_used)]
//! Blocks whose values are known in closed form: small whole quants and scales that are powers of two, so that neither f32
//! nor bf16 rounds.

use super::*;

const HALF: [u8; 2] = [0x00, 0x38];
const ONE: [u8; 2] = [0x00, 0x3C];
const MINUS_EIGHT: [u8; 2] = [0x00, 0xC8];

fn values(kind: Kind, block: &[u8]) -> Vec<f32> {
    assert_eq!(block.len(), kind.block().1);
    let out = to_bf16(kind, block);
    assert_eq!(out.len(), kind.block().0 * 2);
    out.chunks_exact(2).map(|two| bf16::from_le_bytes([two[0], two[1]]).to_f32()).collect()
}

/// Byte `i` holds the nibbles `i` (low) and `15 - i` (high).
fn ramp() -> Vec<u8> {
    (0..16).map(|index| index | (15 - index) << 4).collect()
}

fn ramp_quant(index: usize) -> f32 {
    if index < 16 { index as f32 } else { (31 - index) as f32 }
}

fn assert_each(found: &[f32], expected: impl Fn(usize) -> f32) {
    for (index, value) in found.iter().enumerate() {
        assert_eq!(*value, expected(index), "element {index}");
    }
}

#[test]
fn q4_0_is_a_scaled_nibble_less_eight() {
    assert_each(&values(Kind::Q4_0, &[HALF.to_vec(), ramp()].concat()), |i| 0.5 * (ramp_quant(i) - 8.0));
}

#[test]
fn q4_1_is_a_scaled_nibble_and_a_minimum() {
    let block = [HALF.to_vec(), MINUS_EIGHT.to_vec(), ramp()].concat();
    assert_each(&values(Kind::Q4_1, &block), |i| 0.5 * ramp_quant(i) - 8.0);
}

/// The fifth bit is set for every third element.
fn fifth() -> Vec<u8> {
    (0..32).filter(|bit| bit % 3 == 0).fold(0_u32, |word, bit| word | 1 << bit).to_le_bytes().to_vec()
}

fn fifth_quant(index: usize) -> f32 {
    ramp_quant(index) + if index.is_multiple_of(3) { 16.0 } else { 0.0 }
}

#[test]
fn q5_has_a_fifth_bit_apart() {
    let block = [HALF.to_vec(), fifth(), ramp()].concat();
    assert_each(&values(Kind::Q5_0, &block), |i| 0.5 * (fifth_quant(i) - 16.0));
    let block = [HALF.to_vec(), ONE.to_vec(), fifth(), ramp()].concat();
    assert_each(&values(Kind::Q5_1, &block), |i| 0.5 * fifth_quant(i) + 1.0);
}

#[test]
fn q8_0_is_a_scaled_signed_byte() {
    let block = [HALF.to_vec(), (0..32).map(|i: u8| (i * 4).wrapping_sub(64)).collect()].concat();
    assert_each(&values(Kind::Q8_0, &block), |i| 0.5 * (4.0 * i as f32 - 64.0));
}

/// Packs eight six-bit scales and minima as ggml does.
fn packed(scales: [u8; 8], minima: [u8; 8]) -> Vec<u8> {
    let mut out = vec![0; 12];
    for index in 0..4 {
        out[index] = scales[index] | (scales[index + 4] >> 4) << 6;
        out[index + 4] = minima[index] | (minima[index + 4] >> 4) << 6;
        out[index + 8] = scales[index + 4] & 0xF | (minima[index + 4] & 0xF) << 4;
    }
    out
}

const SCALES: [u8; 8] = [1, 2, 3, 32, 4, 16, 33, 63];
const MINIMA: [u8; 8] = [0, 1, 32, 63, 2, 17, 48, 5];

/// Nibble of element `index` of a 256-element block.
fn super_quant(index: usize) -> u8 {
    ((index / 32 + index % 32) % 16) as u8
}

fn super_nibbles() -> Vec<u8> {
    let byte = |at: usize| {
        let (pair, lane) = (at / 32, at % 32);
        super_quant(pair * 64 + lane) | super_quant(pair * 64 + 32 + lane) << 4
    };
    (0..128).map(byte).collect()
}

fn bf16_of(value: f32) -> f32 {
    bf16::from_f32(value).to_f32()
}

#[test]
fn q4_k_scales_each_32_elements_apart() {
    let block = [HALF.to_vec(), ONE.to_vec(), packed(SCALES, MINIMA), super_nibbles()].concat();
    assert_each(&values(Kind::Q4K, &block), |i| {
        let part = i / 32;
        bf16_of(0.5 * f32::from(SCALES[part]) * f32::from(super_quant(i)) - f32::from(MINIMA[part]))
    });
}

#[test]
fn q5_k_has_its_fifth_bits_in_columns() {
    let high =
        |lane: usize| (0..8).filter(|part| (part + lane).is_multiple_of(3)).fold(0_u8, |bits, part| bits | 1 << part);
    let columns: Vec<u8> = (0..32).map(high).collect();
    let block = [HALF.to_vec(), ONE.to_vec(), packed(SCALES, MINIMA), columns, super_nibbles()].concat();
    assert_each(&values(Kind::Q5K, &block), |i| {
        let (part, lane) = (i / 32, i % 32);
        let quant = super_quant(i) + if (part + lane).is_multiple_of(3) { 16 } else { 0 };
        bf16_of(0.5 * f32::from(SCALES[part]) * f32::from(quant) - f32::from(MINIMA[part]))
    });
}

#[test]
fn q6_k_splits_four_and_two_bits() {
    let quant = |index: usize| (index * 7 % 64) as u8;
    let (mut low, mut high) = (vec![0_u8; 128], vec![0_u8; 64]);
    for half in 0..2 {
        for lane in 0..32 {
            let at = |run: usize| quant(half * 128 + run * 32 + lane);
            low[half * 64 + lane] = at(0) & 0xF | (at(2) & 0xF) << 4;
            low[half * 64 + 32 + lane] = at(1) & 0xF | (at(3) & 0xF) << 4;
            high[half * 32 + lane] = at(0) >> 4 | (at(1) >> 4) << 2 | (at(2) >> 4) << 4 | (at(3) >> 4) << 6;
        }
    }
    let scales: Vec<u8> = (0..16_i8).map(|index| (index - 8).cast_unsigned()).collect();
    let block = [low, high, scales, HALF.to_vec()].concat();
    assert_each(&values(Kind::Q6K, &block), |i| {
        bf16_of(0.5 * (i as f32 / 16.0).floor().mul_add(1.0, -8.0) * (f32::from(quant(i)) - 32.0))
    });
}

#[test]
fn rounding_is_to_nearest_even_and_blocks_follow_each_other() {
    // 1/3 in f16 is 0.33325195, which bf16 rounds to 0.33398438.
    let block = [vec![0x55, 0x35], vec![1; 32]].concat();
    let twice = [block.clone(), block].concat();
    let out = to_bf16(Kind::Q8_0, &twice);
    assert_eq!(out.len(), 128);
    assert_eq!(bf16::from_le_bytes([out[126], out[127]]).to_f32(), 0.333_984_38);
}
