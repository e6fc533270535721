//! all-MiniLM-L6-v2 against sentence-transformers' figures, and the ways in which a file can be wrong.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::*;
use crate::similarity::similarity;

fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

fn minilm() -> PathBuf {
    repository().join(".runtime/models/all-minilm-l6-v2")
}

fn load() -> Encoder {
    finetuned_torch::set_threads(1).unwrap(); // the tests themselves run side by side
    Encoder::load(EncoderFolder::open(&minilm()).unwrap(), Device::Cpu).unwrap()
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

#[test]
fn embeddings_equal_those_of_sentence_transformers() {
    let encoder = load();
    let figures = std::fs::read_to_string(repository().join("tests/fixtures/eval/minilm.json")).unwrap();
    let figures: Value = serde_json::from_str(&figures).unwrap();
    let sentences: Vec<&str> = figures["sentences"].as_array().unwrap().iter().map(|s| s.as_str().unwrap()).collect();
    let embeddings = encoder.embed(&sentences).unwrap();
    assert_eq!(embeddings.len(), figures["embeddings"].as_array().unwrap().len());
    let mut largest = 0.0_f64;
    for (embedding, expected) in embeddings.iter().zip(figures["embeddings"].as_array().unwrap()) {
        let expected: Vec<f64> = expected.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
        assert_eq!((embedding.len(), encoder.dimensions()), (expected.len(), expected.len()));
        for (number, expected) in embedding.iter().zip(expected) {
            largest = largest.max((f64::from(*number) - expected).abs());
        }
        assert!((dot(embedding, embedding) - 1.0).abs() < 1e-5);
    }
    assert!(largest < 1e-4, "{largest}");
    // Of the last three, the first two say the same.
    let [.., cat, feline, stocks] = &embeddings[..] else { panic!("too few") };
    assert!(dot(cat, feline) > dot(cat, stocks) + 0.3);
}

#[test]
fn a_text_is_the_same_alone_and_among_others() {
    let encoder = load();
    let long = "The cat sat on the mat and looked at the moon. ".repeat(40);
    let texts = [long.as_str(), "short", "", "A cat sits on the mat."];
    let together = encoder.embed(&texts).unwrap();
    for (text, embedding) in texts.iter().zip(&together) {
        let alone = encoder.embed(&[text]).unwrap();
        let difference = alone[0].iter().zip(embedding).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(difference < 1e-6, "{difference}");
    }
    let states = encoder.states(&texts).unwrap();
    let shape = |state: &EncodedStates| (state.length, state.tokens.size2().unwrap().0, state.truncated);
    assert_eq!(shape(&states[0]), (256, 254, true), "cut to what the model was made for");
    assert_eq!(shape(&states[1]), (3, 1, false));
    assert_eq!(shape(&states[2]), (2, 0, false));
}

#[test]
fn likeness_tells_the_same_from_another() {
    let encoder = load();
    let reference = "A cat sits on the mat.";
    let states = encoder.states(&[reference, "A feline rests on a rug.", "Stock prices fell.", ""]).unwrap();
    let likeness: Vec<_> = states.iter().map(|state| similarity(&states[0], state).unwrap()).collect();
    let [same, alike, other, nothing] = likeness[..] else { panic!("four pairs") };
    assert!((same.cosine - 1.0).abs() < 1e-5 && (same.token_f1 - 1.0).abs() < 1e-5, "{same:?}");
    assert!(alike.cosine > other.cosine + 0.3 && alike.token_f1 > other.token_f1 + 0.1, "{alike:?} {other:?}");
    assert_eq!((nothing.token_precision, nothing.token_recall, nothing.token_f1), (0.0, 0.0, 0.0));
}

#[test]
fn every_missing_tensor_is_named() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["config.json", "modules.json", "sentence_bert_config.json", "tokenizer.json", "1_Pooling/config.json"]
    {
        let to = folder.path().join(name);
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(minilm().join(name), to).unwrap();
    }
    let wrong = ("embeddings.LayerNorm.bias".to_owned(), Tensor::zeros([3], (Kind::Float, Device::Cpu)));
    tensor_file::save(&folder.path().join("model.safetensors"), &[wrong]).unwrap();
    let error = Encoder::load(EncoderFolder::open(folder.path()).unwrap(), Device::Cpu).unwrap_err().to_string();
    assert!(error.contains("`embeddings.LayerNorm.bias` is [3] and should be [384]"), "{error}");
    assert!(error.contains("`encoder.layer.5.output.dense.weight` is missing"), "{error}");
}
