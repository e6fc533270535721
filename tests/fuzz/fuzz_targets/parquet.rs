//! Parquet; the first byte is the size of the portions.
#![no_main]

use finetuned_protocol::lint::FileLayout;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    // The library panics on some damage, which the reader catches.
    finetuned_fuzz::allow_caught_panics();
    finetuned_fuzz::lint(Some(FileLayout::Parquet), data);
});
