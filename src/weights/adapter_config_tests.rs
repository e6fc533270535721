#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;

fn spec() -> LoraSpec {
    LoraSpec {
        r: 16,
        alpha: 32.0,
        dropout: 0.05,
        target_modules: vec!["v_proj".into(), "q_proj".into()],
        use_rslora: true,
    }
}

/// What peft 0.21 writes, with one field changed.
fn peft(field: &str, value: Value) -> Result<AdapterConfig, String> {
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
    AdapterConfig::parse(&map.to_string()).map_err(|error| error.to_string())
}

#[test]
fn what_is_written_is_read_again() {
    let config = AdapterConfig::new(&spec(), "acme/base", false);
    let text = config.to_json().unwrap();
    assert_eq!(AdapterConfig::parse(&text).unwrap(), config);
    let map: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(map["base_model_name_or_path"], "acme/base");
    assert_eq!((&map["lora_alpha"], &map["inference_mode"], &map["bias"]), (&json!(32), &json!(true), &json!("none")));
    assert_eq!(map["target_modules"], json!(["q_proj", "v_proj"]));
    assert_eq!(config.lora_spec().scaling(), 8.0);
    let half = AdapterConfig { lora_alpha: 0.5, ..config.clone() };
    assert_eq!(AdapterConfig::parse(&half.to_json().unwrap()).unwrap().lora_alpha, 0.5);
    assert_eq!(serde_json::to_string_pretty(&config).unwrap(), text);
    assert_eq!(serde_json::from_str::<AdapterConfig>(&text).unwrap(), config);
}

#[test]
fn what_peft_writes_is_read() {
    let config = peft("r", json!(4)).unwrap();
    assert_eq!((config.r, config.lora_alpha, config.use_rslora), (4, 8.0, false));
    assert_eq!(config.target_modules, ["q_proj", "up_proj"]);
    assert!(peft("use_rslora", json!(true)).unwrap().use_rslora);
    assert!(peft("init_lora_weights", json!("gaussian")).is_ok());
    assert!(peft("modules_to_save", json!([])).is_ok());
    assert!(peft("fan_in_fan_out", json!(true)).unwrap().fan_in_fan_out);
    let paths = ["h.0.attn.c_attn", "h.1.attn.c_attn"];
    assert_eq!(peft("target_modules", json!(paths)).unwrap().target_modules, paths);
}

#[test]
fn what_is_not_implemented_is_refused_by_name() {
    for (field, value) in [
        ("use_dora", json!(true)),
        ("bias", json!("all")),
        ("modules_to_save", json!(["lm_head"])),
        ("rank_pattern", json!({"q_proj": 8})),
        ("alpha_pattern", json!({"q_proj": 8})),
        ("layers_to_transform", json!([1])),
        ("init_lora_weights", json!("pissa")),
        ("trainable_token_indices", json!([1])),
        ("target_parameters", json!(["x"])),
        ("lora_bias", json!(true)),
        ("layer_replication", json!([[0, 1]])),
        ("exclude_modules", json!("x")),
        ("some_future_field", json!(1)),
        ("peft_type", json!("IA3")),
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
