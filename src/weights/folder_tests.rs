#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::HashMap;

use safetensors::tensor::TensorView;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::ModelSource;

fn config() -> Value {
    json!({
        "model_type": "llama", "vocab_size": 8, "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 1,
        "num_attention_heads": 2, "eos_token_id": 5, "torch_dtype": "float32"
    })
}

/// Writes tensors of zeros, of the shapes the config calls for.
fn write_tensors(path: &Path, names: &[&str], dtype: Dtype) {
    let config = ModelConfig::from_json(&config().to_string()).unwrap();
    let zeros = vec![0_u8; 8 * 12 * 8];
    let specs = config.tensors();
    let views: HashMap<String, TensorView<'_>> = specs
        .iter()
        .filter(|spec| names.is_empty() || names.contains(&spec.name.as_str()))
        .map(|spec| {
            let bytes = spec.elements() as usize * dtype.bitsize() / 8;
            (spec.name.clone(), TensorView::new(dtype, spec.shape.clone(), &zeros[..bytes]).unwrap())
        })
        .collect();
    std::fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

fn folder() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join(CONFIG), config().to_string()).unwrap();
    dir
}

fn single() -> TempDir {
    let dir = folder();
    write_tensors(&dir.path().join(SINGLE), &[], Dtype::F32);
    dir
}

const SHARDS: [&str; 2] = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];

fn sharded() -> TempDir {
    let dir = folder();
    let config = ModelConfig::from_json(&config().to_string()).unwrap();
    let specs = config.tensors();
    let names: Vec<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
    let (first, second) = names.split_at(4);
    write_tensors(&dir.path().join(SHARDS[0]), first, Dtype::BF16);
    write_tensors(&dir.path().join(SHARDS[1]), second, Dtype::F16);
    let file = |index: usize| if index < 4 { SHARDS[0] } else { SHARDS[1] };
    let map: serde_json::Map<String, Value> =
        names.iter().enumerate().map(|(index, name)| ((*name).to_owned(), file(index).into())).collect();
    std::fs::write(dir.path().join(INDEX), json!({"metadata": {}, "weight_map": map}).to_string()).unwrap();
    dir
}

fn refused(dir: &TempDir) -> String {
    ModelSource::open(dir.path()).err().expect("refused").to_string()
}

#[test]
fn one_file_is_read_without_copies() {
    let dir = single();
    let model = ModelSource::open(dir.path()).unwrap();
    assert_eq!(model.tensor_names().len(), 12);
    let tensor = model.tensor("model.layers.0.mlp.gate_proj.weight").unwrap();
    assert_eq!((tensor.dtype, tensor.shape.as_slice(), tensor.bytes.len()), (HostDtype::F32, &[12, 8][..], 384));
    assert!(matches!(tensor.bytes, Cow::Borrowed(_)));
    assert!(model.tensor("nothing").is_err());
    assert!(model.tokenizer().unwrap_err().to_string().contains("tokenizer.json"));
    assert!(!model.facts().has_chat_template);
}

#[test]
fn shards_are_found_by_the_index() {
    let dir = sharded();
    let model = ModelSource::open(dir.path()).unwrap();
    let dtype = |name: &str| model.tensor(name).unwrap().dtype;
    assert_eq!(dtype("model.embed_tokens.weight"), HostDtype::Bf16);
    assert_eq!(dtype("lm_head.weight"), HostDtype::F16);
}

#[test]
fn the_end_of_an_answer_comes_from_the_generation_config_first() {
    let dir = single();
    assert_eq!(ModelSource::open(dir.path()).unwrap().generation_eos_ids(), [5]);
    for (text, ids) in
        [(r#"{"eos_token_id": [6, 7]}"#, vec![6, 7]), (r#"{"eos_token_id": 4}"#, vec![4]), ("{}", vec![5])]
    {
        std::fs::write(dir.path().join(GENERATION_CONFIG), text).unwrap();
        assert_eq!(ModelSource::open(dir.path()).unwrap().generation_eos_ids(), ids);
    }
    std::fs::write(dir.path().join(GENERATION_CONFIG), "{").unwrap();
    assert!(refused(&dir).contains(GENERATION_CONFIG));
}

#[test]
fn missing_and_extra_files_are_all_named() {
    let empty = tempfile::tempdir().unwrap();
    assert!(refused(&empty).contains("lacks config.json"));
    let dir = folder();
    assert!(refused(&dir).contains("neither model.safetensors nor model.safetensors.index.json"));
    std::fs::write(dir.path().join("pytorch_model.bin"), "").unwrap();
    assert!(refused(&dir).contains("pickle"));

    let dir = sharded();
    for name in SHARDS {
        std::fs::remove_file(dir.path().join(name)).unwrap();
    }
    assert!(refused(&dir).contains(&SHARDS.join(", ")));

    let dir = sharded();
    std::fs::copy(dir.path().join(SHARDS[0]), dir.path().join("model-00003-of-00003.safetensors")).unwrap();
    assert!(refused(&dir).contains("does not name model-00003-of-00003.safetensors"));

    let dir = sharded();
    std::fs::remove_file(dir.path().join(INDEX)).unwrap();
    assert!(refused(&dir).contains("lacks model.safetensors.index.json"));

    let dir = sharded();
    write_tensors(&dir.path().join(SINGLE), &[], Dtype::F32);
    assert!(refused(&dir).contains("both"));
}

#[test]
fn an_index_that_lies_is_refused() {
    let rewrite = |change: &dyn Fn(&mut Value)| {
        let dir = sharded();
        let path = dir.path().join(INDEX);
        let mut index: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        change(&mut index["weight_map"]);
        std::fs::write(&path, index.to_string()).unwrap();
        refused(&dir)
    };
    let name = "model.embed_tokens.weight";
    assert!(rewrite(&|map| map[name] = SHARDS[1].into()).contains("model.embed_tokens.weight (of model-00002"));
    assert!(rewrite(&|map| map["ghost"] = SHARDS[0].into()).contains("ghost"));
    assert!(rewrite(&|map| map[name] = "../../etc/passwd".into()).contains("no plain file name"));
    assert!(rewrite(&|map| *map = json!([1])).contains(INDEX));
}

#[test]
fn tensors_that_do_not_fit_the_config_are_named() {
    let dir = folder();
    write_tensors(&dir.path().join(SINGLE), &["model.norm.weight"], Dtype::F32);
    let error = refused(&dir);
    assert!(error.contains("lacks the tensors model.embed_tokens.weight"), "{error}");

    let dir = single();
    let mut other = config();
    other["intermediate_size"] = 16.into();
    std::fs::write(dir.path().join(CONFIG), other.to_string()).unwrap();
    assert!(refused(&dir).contains("(has [12, 8], the config calls for [16, 8])"));

    let dir = single();
    let mut tied = config();
    tied["num_hidden_layers"] = 1.into();
    tied["tie_word_embeddings"] = true.into();
    std::fs::write(dir.path().join(CONFIG), tied.to_string()).unwrap();
    assert!(ModelSource::open(dir.path()).is_ok(), "a head beside the embeddings it is tied to is harmless");

    let dir = folder();
    write_tensors(&dir.path().join(SINGLE), &[], Dtype::F64);
    assert!(refused(&dir).contains("`F64` is not supported; supported: F32, F16, BF16"));
}

#[test]
fn missing_misshapen_and_extra_tensors_are_told_at_once() {
    let dir = single();
    let mut other = config();
    other["intermediate_size"] = 16.into();
    other["num_hidden_layers"] = 3.into();
    other["tie_word_embeddings"] = true.into();
    std::fs::write(dir.path().join(CONFIG), other.to_string()).unwrap();
    let path = dir.path().join(SINGLE);
    let bytes = std::fs::read(&path).unwrap();
    let text = String::from_utf8_lossy(&bytes).replace("model.norm.weight", "model.gnom.weight");
    std::fs::write(&path, text.as_bytes()).unwrap();
    let error = refused(&dir);
    for layer in 1..3 {
        for name in ["input_layernorm", "post_attention_layernorm", "self_attn.q_proj", "mlp.down_proj"] {
            assert!(error.contains(&format!("model.layers.{layer}.{name}.weight")), "{name}: {error}");
        }
    }
    for part in ["model.norm.weight", "gate_proj.weight (has [12, 8]", "does not account for: model.gnom.weight"] {
        assert!(error.contains(part), "{part}: {error}");
    }
}

#[test]
fn broken_files_are_errors() {
    let dir = single();
    let path = dir.path().join(SINGLE);
    let whole = std::fs::read(&path).unwrap();
    for length in [0, 4, 8, 100, whole.len() - 1] {
        std::fs::write(&path, &whole[..length]).unwrap();
        assert!(refused(&dir).contains(SINGLE), "{length}");
    }
    let mut huge = whole;
    huge[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    std::fs::write(&path, &huge).unwrap();
    assert!(refused(&dir).contains("header"));
    std::fs::write(dir.path().join(CONFIG), "{").unwrap();
    assert!(refused(&dir).contains("config.json"));
}

#[test]
fn the_hash_is_of_content_and_not_of_place() {
    let (one, two) = (single(), single());
    let hash = |dir: &TempDir| ModelSource::open(dir.path()).unwrap().sha256().unwrap();
    // Hash maps order their entries at random, so the weights are copied to be the same bytes.
    std::fs::copy(one.path().join(SINGLE), two.path().join(SINGLE)).unwrap();
    assert_eq!(hash(&one), hash(&two));
    std::fs::write(two.path().join("README.md"), "x").unwrap();
    assert_eq!(hash(&one), hash(&two));
    std::fs::write(two.path().join("chat_template.jinja"), "x").unwrap();
    assert_ne!(hash(&one), hash(&two));
}
