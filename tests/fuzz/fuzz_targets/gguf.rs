//! The header of a GGUF file.
#![no_main]

use std::{fs, sync::LazyLock};

use finetuned_weights::ModelSource;
use libfuzzer_sys::fuzz_target;

static PATH: LazyLock<std::path::PathBuf> =
    LazyLock::new(|| std::env::temp_dir().join(format!("finetuned-fuzz-{}.gguf", std::process::id())));

fuzz_target!(|data: &[u8]| {
    fs::write(&*PATH, [b"GGUF", data].concat()).expect("room for a file");
    if let Ok(model) = ModelSource::open(&PATH) {
        let _facts = model.facts();
        let _tokenizer = model.tokenizer();
    }
});
