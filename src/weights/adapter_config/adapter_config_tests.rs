#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;

use finetuned_protocol::tuning::{Ia3Spec, LoraSpec, PrefixTuningSpec, PromptInit, PromptTuningSpec};

use super::*;

const BASE: BaseTraits = BaseTraits {
    num_layers: 3,
    hidden_size: 64,
    num_attention_heads: 4,
    num_key_value_heads: 2,
    head_dim: 16,
    fan_in_fan_out: false,
};

fn lora() -> LoraSpec {
    LoraSpec {
        dropout: 0.05,
        use_rslora: true,
        use_dora: true,
        rank_pattern: [("self_attn.q_proj".to_owned(), 4)].into(),
        alpha_pattern: [("q_proj".to_owned(), 0.5)].into(),
        layers_to_transform: Some(vec![0, 2]),
        modules_to_save: vec!["lm_head".to_owned()],
        trainable_token_indices: vec![5, 9],
        ..LoraSpec::plain(16, 32.0, vec!["v_proj".into(), "q_proj".into()])
    }
}

fn written(spec: AdapterSpec) -> String {
    AdapterConfig { base_model_name_or_path: Some("acme/base".to_owned()), spec }.to_json(&BASE).unwrap()
}

/// What peft 0.21 writes for LoRA, with one field changed.
fn peft(field: &str, value: Value) -> Result<LoraSpec, String> {
    let mut map = json!({
        "alora_invocation_tokens": null, "alpha_pattern": {}, "arrow_config": null, "auto_mapping": null,
        "base_model_name_or_path": null, "bias": "none", "corda_config": null, "ensure_weight_tying": false,
        "eva_config": null, "exclude_modules": null, "fan_in_fan_out": false, "inference_mode": true,
        "init_lora_weights": true, "layer_replication": null, "layers_pattern": null, "layers_to_transform": null,
        "loftq_config": {}, "lora_alpha": 8, "lora_bias": false, "lora_dropout": 0.0, "megatron_config": null,
        "megatron_core": "megatron.core", "modules_to_save": null, "peft_type": "LORA", "peft_version": "0.21.2",
        "qalora_group_size": 16, "r": 4, "rank_pattern": {}, "revision": null, "target_modules": ["up_proj", "q_proj"],
        "target_parameters": null, "task_type": "CAUSAL_LM", "trainable_token_indices": null, "use_bdlora": null,
        "use_dora": false, "use_qalora": false, "use_rslora": false
    });
    map[field] = value;
    match AdapterConfig::parse(&map.to_string()).map_err(|error| error.to_string())?.spec {
        AdapterSpec::Lora(spec) => Ok(spec),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_written_is_read_again() {
    let sorted = LoraSpec { target_modules: vec!["q_proj".into(), "v_proj".into()], ..lora() };
    let ia3 = Ia3Spec {
        target_modules: vec!["down_proj".into(), "k_proj".into()],
        feedforward_modules: vec!["down_proj".into()],
    };
    for (spec, read) in [
        (AdapterSpec::Lora(lora()), AdapterSpec::Lora(sorted)),
        (AdapterSpec::Ia3(ia3.clone()), AdapterSpec::Ia3(ia3)),
        (
            AdapterSpec::PromptTuning(PromptTuningSpec { num_virtual_tokens: 7, init: PromptInit::SampleVocab }),
            AdapterSpec::PromptTuning(PromptTuningSpec { num_virtual_tokens: 7, init: PromptInit::Random }),
        ),
        (
            AdapterSpec::PrefixTuning(PrefixTuningSpec { num_virtual_tokens: 7 }),
            AdapterSpec::PrefixTuning(PrefixTuningSpec { num_virtual_tokens: 7 }),
        ),
    ] {
        let text = written(spec);
        let config = AdapterConfig::parse(&text).unwrap();
        assert_eq!((config.base_model_name_or_path.as_deref(), &config.spec), (Some("acme/base"), &read), "{text}");
    }
}

#[test]
fn a_plain_adapter_is_spelled_as_peft_spells_it() {
    let plain = LoraSpec::plain(16, 32.0, vec!["v_proj".into(), "q_proj".into()]);
    let map: Value = serde_json::from_str(&written(AdapterSpec::Lora(plain))).unwrap();
    assert_eq!((&map["lora_alpha"], &map["inference_mode"], &map["bias"]), (&json!(32), &json!(true), &json!("none")));
    assert_eq!(map["target_modules"], json!(["q_proj", "v_proj"]));
    for absent in ["modules_to_save", "layers_to_transform", "trainable_token_indices"] {
        assert_eq!(map[absent], Value::Null, "{absent}");
    }
}

/// Every field that we write has the value that peft gave it in the reference adapters.
#[test]
fn the_reference_configs_are_written_again() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/parity-peft");
    for case in ["dora", "ia3", "lora-layers", "lora-modules-to-save", "lora-patterns", "prefix", "prompt", "rslora"] {
        let text = std::fs::read_to_string(folder.join(case).join("adapter/adapter_config.json")).unwrap();
        let mut theirs: Value = serde_json::from_str(&text).unwrap();
        let config = AdapterConfig::parse(&text).unwrap();
        let ours: Map<String, Value> = serde_json::from_str(&config.to_json(&BASE).unwrap()).unwrap();
        for list in ["target_modules", "feedforward_modules"] {
            if let Some(items) = theirs[list].as_array_mut() {
                items.sort_by_key(|item| item.as_str().unwrap().to_owned());
            }
        }
        for (field, value) in ours {
            assert_eq!(value, theirs[&field], "{case}: {field}");
        }
    }
}

#[test]
fn what_peft_writes_is_read() {
    let spec = peft("r", json!(4)).unwrap();
    assert_eq!(spec, LoraSpec::plain(4, 8.0, vec!["q_proj".into(), "up_proj".into()]));
    assert!(peft("use_rslora", json!(true)).unwrap().use_rslora);
    assert!(peft("init_lora_weights", json!("gaussian")).is_ok());
    assert!(peft("modules_to_save", json!([])).is_ok());
    // It has a bearing on merging only.
    assert_eq!(peft("fan_in_fan_out", json!(true)), peft("fan_in_fan_out", json!(false)));
    let paths = ["h.0.attn.c_attn", "h.1.attn.c_attn"];
    assert_eq!(peft("target_modules", json!(paths)).unwrap().target_modules, paths);
    assert_eq!(peft("layers_to_transform", json!(2)).unwrap().layers_to_transform, Some(vec![2]));
    assert_eq!(peft("layers_to_transform", json!([2, 0])).unwrap().layers_to_transform, Some(vec![0, 2]));
}

#[test]
fn what_is_not_implemented_is_refused_by_name() {
    for (field, value) in [
        ("bias", json!("all")),
        ("modules_to_save", json!("lm_head")),
        ("modules_to_save", json!(["model.lm_head"])),
        ("rank_pattern", json!({".*q_proj": 8})),
        ("rank_pattern", json!({"q_proj": 0})),
        ("alpha_pattern", json!({"^q_proj": 8})),
        ("alpha_pattern", json!({"q_proj": "8"})),
        ("layers_to_transform", json!([-1])),
        ("layers_pattern", json!("h")),
        ("init_lora_weights", json!("pissa")),
        ("trainable_token_indices", json!({"embed_tokens": [1]})),
        ("target_parameters", json!(["x"])),
        ("lora_bias", json!(true)),
        ("layer_replication", json!([[0, 1]])),
        ("exclude_modules", json!("x")),
        ("some_future_field", json!(1)),
        ("use_dora", json!("yes")),
        ("peft_type", json!("VERA")),
        ("peft_type", Value::Null),
        ("task_type", json!("SEQ_CLS")),
        ("target_modules", json!("all-linear")),
        ("target_modules", json!([])),
        ("r", json!(0)),
        ("r", json!(-4)),
        ("lora_dropout", json!(1.0)),
        ("lora_alpha", json!("8")),
    ] {
        let error = peft(field, value.clone()).expect_err(&format!("{field} {value}"));
        assert!(error.contains(&format!("`{field}`")), "{field}: {error}");
    }
    assert!(AdapterConfig::parse("{").is_err());
}

#[test]
fn transposed_weights_of_the_base_are_told() {
    let base = BaseTraits { fan_in_fan_out: true, ..BASE };
    let ia3 = AdapterSpec::Ia3(Ia3Spec { target_modules: vec!["c_attn".into()], feedforward_modules: vec![] });
    for spec in [AdapterSpec::Lora(lora()), ia3] {
        let config = AdapterConfig { base_model_name_or_path: None, spec };
        for base in [base, BASE] {
            let map: Value = serde_json::from_str(&config.to_json(&base).unwrap()).unwrap();
            assert_eq!(map["fan_in_fan_out"], json!(base.fan_in_fan_out));
            assert!(AdapterConfig::parse(&map.to_string()).is_ok());
        }
    }
}

#[test]
fn what_other_kinds_do_not_have_is_refused_by_name() {
    let prefix = AdapterSpec::PrefixTuning(PrefixTuningSpec { num_virtual_tokens: 7 });
    let prompt = AdapterSpec::PromptTuning(PromptTuningSpec { num_virtual_tokens: 7, init: PromptInit::Random });
    let ia3 = AdapterSpec::Ia3(Ia3Spec { target_modules: vec!["k_proj".into()], feedforward_modules: vec![] });
    for (spec, field, value) in [
        (&prefix, "prefix_projection", json!(true)),
        (&prefix, "num_transformer_submodules", json!(2)),
        (&prefix, "num_virtual_tokens", json!(0)),
        (&prompt, "modules_to_save", json!(["lm_head"])),
        (&prompt, "r", json!(4)),
        (&ia3, "modules_to_save", json!(["lm_head"])),
        (&ia3, "feedforward_modules", json!(["down_proj"])),
        (&ia3, "target_modules", json!([""])),
        (&ia3, "feedforward_modules", json!(["mlp.k_proj"])),
    ] {
        let mut map: Value = serde_json::from_str(&written(spec.clone())).unwrap();
        map[field] = value.clone();
        let error = AdapterConfig::parse(&map.to_string()).expect_err(&format!("{field} {value}")).to_string();
        assert!(error.contains(&format!("`{field}`")), "{field}: {error}");
    }
}
