//! Separated values; the first byte is the size of the portions.
#![no_main]

use finetuned_protocol::lint::FileLayout;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| finetuned_fuzz::lint(Some(FileLayout::Csv), data));
