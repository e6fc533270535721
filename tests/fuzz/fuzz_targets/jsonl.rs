//! Rows of JSON, one a line; the first byte is the size of the portions.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| finetuned_fuzz::lint(None, data));
