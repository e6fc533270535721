#![allow(clippy::unwrap_used, clippy::expect_used)]

use serde_json::{Value, json};

use super::*;
use crate::tensor::HostDtype;

fn fixture(case: &str, file: &str) -> String {
    let path = format!("{}/../../tests/fixtures/parity/{case}/{file}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn base() -> Value {
    json!({
        "model_type": "llama", "vocab_size": 256, "hidden_size": 64, "intermediate_size": 112, "num_hidden_layers": 3,
        "num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-5, "eos_token_id": [2, 3],
        "max_position_embeddings": 128
    })
}

fn with(extra: Value) -> Result<ModelConfig, WeightsError> {
    let mut config = base();
    for (key, value) in extra.as_object().unwrap() {
        config[key] = value.clone();
    }
    ModelConfig::from_json(&config.to_string())
}

fn llama(config: &ModelConfig) -> &family::Llama {
    let Family::Llama(llama) = &config.family else { panic!("{:?}", config.family) };
    llama
}

#[test]
fn both_spellings_are_equal() {
    for case in ["llama", "llama-rope-yarn", "llama3-rope", "qwen2", "gemma3"] {
        let newer = ModelConfig::from_json(&fixture(case, "base/config.json")).unwrap();
        let older = ModelConfig::from_json(&fixture(case, "config_hub_style.json")).unwrap();
        assert_eq!(newer, older, "{case}");
    }
}

#[test]
fn fixtures_give_their_rotary_scaling() {
    let rope = |case| ModelConfig::from_json(&fixture(case, "base/config.json")).unwrap();
    let rope = |case| llama(&rope(case)).rope.scaling.clone();
    assert_eq!(rope("llama"), RopeScaling::Default);
    assert_eq!(rope("llama-rope-linear"), RopeScaling::Linear { factor: 4.0 });
    assert_eq!(
        rope("llama3-rope"),
        RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 32
        }
    );
    assert_eq!(
        rope("llama-rope-yarn"),
        RopeScaling::Yarn {
            factor: 4.0,
            beta_fast: 4.0,
            beta_slow: 1.0,
            original_max_position_embeddings: 16,
            attention_factor: 0.1 * 4.0_f64.ln() + 1.0,
            truncate: true
        }
    );
}

#[test]
fn biases_and_tied_embeddings_are_read() {
    let config = ModelConfig::from_json(&fixture("llama-tied-bias", "base/config.json")).unwrap();
    assert!(llama(&config).attention_bias && llama(&config).mlp_bias && config.common.tie_word_embeddings);
    let names: Vec<_> = config.tensors().into_iter().map(|spec| spec.name).collect();
    assert!(names.contains(&"model.layers.2.mlp.down_proj.bias".to_owned()));
    assert!(!names.contains(&"lm_head.weight".to_owned()));
}

#[test]
fn absent_fields_have_the_defaults_of_transformers() {
    let config = with(json!({"num_key_value_heads": null, "rms_norm_eps": null})).unwrap();
    let common = &config.common;
    assert_eq!((common.num_key_value_heads, common.head_dim, common.norm_epsilon), (4, 16, 1e-6));
    assert_eq!(llama(&config).rope, RopeConfig { theta: 10_000.0, dim: 16, scaling: RopeScaling::Default });
    assert_eq!((common.dtype, common.eos_token_ids.clone()), (None, vec![2, 3]));
    let typed = with(json!({"torch_dtype": "bfloat16", "rope_scaling": {"type": "linear", "factor": 2}})).unwrap();
    assert_eq!(typed.common.dtype, Some(HostDtype::Bf16));
    assert_eq!(llama(&typed).rope.scaling, RopeScaling::Linear { factor: 2.0 });
}

#[test]
fn what_changes_the_mathematics_is_refused_by_name() {
    for (extra, named) in [
        (json!({"model_type": "gemma4"}), "`gemma4`"),
        (json!({"hidden_act": "xielu"}), "`hidden_act`"),
        (json!({"partial_rotary_factor": 0.5}), "`partial_rotary_factor`"),
        (json!({"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}}), "partial_rotary_factor"),
        (json!({"some_future_field": true}), "`some_future_field`"),
        (json!({"some_future_field": 3}), "`some_future_field`"),
        (json!({"some_future_field": "x"}), "`some_future_field`"),
        (json!({"sliding_window": 8}), "`sliding_window`"),
        (json!({"quantization_config": {"bits": 4}}), "`quantization_config`"),
        (json!({"attention_dropout": 0.1}), "`attention_dropout`"),
        (json!({"rope_interleaved": true}), "`rope_interleaved`"),
        (json!({"layer_types": ["sliding_attention"]}), "`layer_types`"),
        (json!({"architectures": ["LlamaForSequenceClassification"]}), "`architectures`"),
        (json!({"rope_scaling": {"type": "dynamic", "factor": 2}}), "`dynamic`"),
        (json!({"rope_parameters": {"rope_type": "linear", "factor": 2, "short_factor": [1]}}), "short_factor"),
        (json!({"num_key_value_heads": 3}), "`num_key_value_heads`"),
        (json!({"hidden_size": 66}), "`hidden_size`"),
        (json!({"hidden_size": -1}), "`hidden_size`"),
        (json!({"head_dim": 15}), "`head_dim`"),
        (json!({"vocab_size": null}), "`vocab_size`"),
        (json!({"num_hidden_layers": 4_000_000_000u32}), "`num_hidden_layers`"),
        (json!({"rope_scaling": {"type": "linear", "factor": 0}}), "rope factor"),
    ] {
        let error = with(extra.clone()).expect_err(&extra.to_string()).to_string();
        assert!(error.contains(named), "{extra}: {error}");
    }
    assert!(with(json!({"attention_dropout": 0.0, "sliding_window": null, "rope_interleaved": false})).is_ok());
    assert!(ModelConfig::from_json("[]").is_err());
}
