//! Packed files; the first byte is the size of the portions. What does not begin as gzip or zstd gets a beginning.
#![no_main]

use libfuzzer_sys::fuzz_target;

const GZIP: &[u8] = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03";
const ZSTD: &[u8] = b"\x28\xb5\x2f\xfd";

fuzz_target!(|data: &[u8]| {
    let Some((size, rest)) = data.split_first() else { return };
    if rest.starts_with(&GZIP[..2]) || rest.starts_with(ZSTD) {
        finetuned_fuzz::lint(None, data);
    } else {
        for beginning in [GZIP, ZSTD] {
            finetuned_fuzz::lint(None, &[&[*size], beginning, rest].concat());
        }
    }
});
