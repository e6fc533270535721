#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::PathBuf;

use half::f16;

use super::*;
use crate::{HostDtype, ModelSource};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures").join(name)
}

fn floats(source: &ModelSource, name: &str) -> Vec<f32> {
    let tensor = source.tensor(name).unwrap();
    match tensor.dtype {
        HostDtype::F32 => tensor.bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect(),
        HostDtype::F16 => tensor.bytes.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
        HostDtype::Bf16 => {
            tensor.bytes.chunks_exact(2).map(|b| half::bf16::from_le_bytes([b[0], b[1]]).to_f32()).collect()
        }
    }
}

fn write(source: &ModelSource, precision: GgufPrecision, out: &Path) -> Result<(), WeightsError> {
    let tokenizer = source.tokenizer().ok();
    let eos_ids = source.generation_eos_ids();
    let model = GgufModel { name: "tiny", config: source.config(), tokenizer: tokenizer.as_ref(), eos_ids: &eos_ids };
    write_gguf_model(out, &model, precision, |name| Ok(floats(source, name)))
}

#[test]
fn a_written_llama_is_read_as_what_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("model.gguf");
    for case in ["llama", "llama-tied-bias", "llama-rope-linear", "llama-rope-yarn"] {
        let source = ModelSource::open(&fixture("parity").join(case).join("base")).unwrap();
        for precision in [GgufPrecision::F16, GgufPrecision::Q8_0] {
            write(&source, precision, &out).unwrap();
            let again = ModelSource::open(&out).unwrap();
            assert_eq!(again.tensor_names(), source.tensor_names(), "{case}");
            let (found, expected) = (again.config(), source.config());
            assert_eq!(found.common.head_dim, expected.common.head_dim);
            let text = |config: &ModelConfig| format!("{:?}", config.family);
            assert!(case.contains("yarn") || text(found) == text(expected), "{} {}", text(found), text(expected));
            for spec in source.config().tensors() {
                let (found, expected) = (floats(&again, &spec.name), floats(&source, &spec.name));
                check(precision.of(&spec.shape), &found, &expected, &format!("{case} {}", spec.name));
            }
        }
    }
}

/// Numbers that were stored and read are the nearest that could be stored.
fn check(encoding: Encoding, found: &[f32], expected: &[f32], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (block, stored) in expected.chunks(32).zip(found.chunks(32)) {
        let scale = block.iter().fold(0.0_f32, |most, value| most.max(value.abs())) / 127.0;
        for (&value, &stored) in block.iter().zip(stored) {
            match encoding {
                Encoding::F32 => assert_eq!(stored, value, "{what}"),
                Encoding::F16 => assert_eq!(stored, f16::from_f32(value).to_f32(), "{what}"),
                // Half a step, the scale's rounding to f16 of up to 127 steps, and our reader's rounding to bf16.
                Encoding::Q8_0 => {
                    let allowed = scale * (0.5 + 127.0 / 2048.0) + value.abs() / 256.0;
                    assert!((stored - value).abs() <= allowed, "{what}: {stored} {value} {scale}");
                }
            }
        }
    }
}

#[test]
fn a_tokenizer_comes_back_with_its_template_and_its_ends() {
    let source = ModelSource::open(&fixture("tiny-chat")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("model.gguf");
    write(&source, GgufPrecision::F16, &out).unwrap();
    let again = ModelSource::open(&out).unwrap();
    let (ours, theirs) = (again.tokenizer().unwrap(), source.tokenizer().unwrap());
    for text in ["Say something, won't you?", "  two  spaces\n\nand 1234 digits", "<|im_start|>user\nörtlich<|im_end|>"]
    {
        assert_eq!(ours.encode(text).unwrap(), theirs.encode(text).unwrap(), "{text}");
    }
    assert_eq!((ours.chat_template(), ours.eos(), ours.bos()), (theirs.chat_template(), theirs.eos(), theirs.bos()));
    let ends = |source: &ModelSource| {
        let mut ids = source.generation_eos_ids();
        ids.sort_unstable();
        ids
    };
    assert_eq!(ends(&again), ends(&source));
}

#[test]
fn what_llama_cpp_computes_otherwise_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |case: &str| {
        let source = ModelSource::open(&fixture("parity").join(case).join("base")).unwrap();
        write(&source, GgufPrecision::F16, &folder.path().join("model.gguf")).unwrap_err().to_string()
    };
    for case in ["gemma2", "gpt2", "mixtral", "olmo2", "phi3", "smollm3"] {
        assert!(refused(case).contains(&format!("`{case}`")), "{case}: {}", refused(case));
    }
    assert!(refused("mistral-window").contains("sliding window"));
    assert!(encode("w", &[1e6], Encoding::F16).unwrap_err().to_string().contains("1000000"));
    assert!(encode("w", &[f32::NAN; 32], Encoding::Q8_0).is_err());
}

#[test]
fn an_adapter_is_scaled_by_what_llama_cpp_does_not() {
    let source = ModelSource::open(&fixture("parity/qwen2/base")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("adapter.gguf");
    let path = "model.layers.0.mlp.up_proj".to_owned();
    let module = GgufLora { path, rank: 2, a: vec![1.0, 2.0, 3.0, 4.0], b: vec![5.0, 6.0], scaling: 8.0 };
    write_gguf_lora(&out, ("tiny", source.config()), 4.0, &[module]).unwrap();
    let bytes = std::fs::read(&out).unwrap();
    let has = |needle: &[u8]| bytes.windows(needle.len()).any(|window| window == needle);
    assert!(has(b"blk.0.ffn_up.weight.lora_a") && has(b"blk.0.ffn_up.weight.lora_b") && has(b"adapter.lora.alpha"));
    // llama.cpp scales by 4 / 2, so B is four times what it was.
    assert!(has(&[20.0_f32.to_le_bytes(), 24.0_f32.to_le_bytes()].concat()));
    assert!(write_gguf_lora(&out, ("tiny", source.config()), 0.0, &[]).is_err());
}
