#![allow(clippy::unwrap_used, clippy::expect_used)]

use serde_json::{Map, Value, json};

use super::*;

/// A reference case's config with some fields changed; a field of null is removed.
fn case(name: &str, extra: Value) -> Result<ModelConfig, WeightsError> {
    let path = format!("{}/../../tests/fixtures/parity/{name}/base/config.json", env!("CARGO_MANIFEST_DIR"));
    let mut map: Map<String, Value> = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    for (field, value) in extra.as_object().unwrap() {
        match value {
            Value::Null => _ = map.remove(field),
            value => _ = map.insert(field.clone(), value.clone()),
        }
    }
    ModelConfig::from_json(&Value::from(map).to_string())
}

/// What the refusal of these fields says.
fn refusal(name: &str, extra: Value) -> String {
    case(name, extra.clone()).expect_err(&format!("{name} {extra}")).to_string()
}

#[test]
fn windows_follow_each_familys_rule() {
    let windows = |config: ModelConfig| match config.family {
        Family::Qwen2(family) => family.windows,
        Family::Gemma2(family) => family.windows,
        Family::Gemma3(family) => family.windows,
        Family::SmolLm3(family) => family.windows,
        Family::Mistral(family) => vec![family.window],
        other => panic!("{other:?}"),
    };
    let (all, eight) = (None, Some(8));
    let of = |name: &str, extra: Value| windows(case(name, extra).unwrap());
    assert_eq!(of("mistral-window", json!({})), [eight]);
    assert_eq!(of("mistral-window", json!({"sliding_window": null})), [Some(4096)]);
    assert_eq!(of("gemma2", json!({})), [eight, all, eight]);
    assert_eq!(of("gemma2", json!({"layer_types": null})), [eight, all, eight]);
    assert_eq!(of("gemma3", json!({"layer_types": null})), [eight, eight, eight, eight, eight, all]);
    assert_eq!(
        of("gemma3", json!({"layer_types": null, "sliding_window_pattern": 2})),
        [eight, all, eight, all, eight, all]
    );
    let sliding = json!({"layer_types": null, "use_sliding_window": true, "sliding_window": 8, "max_window_layers": 1});
    assert_eq!(of("qwen2", sliding), [all, eight, eight]);
    assert_eq!(of("qwen2", json!({"layer_types": null, "sliding_window": 8, "max_window_layers": 1})), [all, all, all]);
    let sliding = json!({"layer_types": null, "use_sliding_window": true, "sliding_window": 8});
    assert_eq!(of("smollm3", sliding), [all, eight, all, eight]);
}

#[test]
fn rotary_embedding_is_read_in_both_spellings() {
    let rope = |config: ModelConfig| match config.family {
        Family::Phi3(family) => family.rope,
        Family::GptNeoX(family) => family.rope,
        Family::Mixtral(family) => family.rope,
        other => panic!("{other:?}"),
    };
    let newer = rope(case("phi3-partial-longrope", json!({})).unwrap());
    let older = json!({
        "rope_parameters": null, "rope_theta": 10_000.0,
        "rope_scaling": {"type": "longrope", "short_factor": [1.0, 1.1, 1.2, 1.3, 1.4, 1.5],
            "long_factor": [1.0, 1.5, 2.0, 3.0, 4.0, 5.0]}
    });
    assert_eq!(newer, rope(case("phi3-partial-longrope", older).unwrap()));
    assert_eq!(newer.dim, 12);
    let RopeScaling::LongRope { attention_factor, .. } = newer.scaling else { panic!("{newer:?}") };
    assert_eq!(attention_factor, (1.0 + 8.0_f64.ln() / 16.0_f64.ln()).sqrt());

    let newer = rope(case("gpt_neox", json!({})).unwrap());
    assert_eq!((newer.dim, newer.theta), (4, 10_000.0));
    let older = json!({"rope_parameters": null, "rotary_pct": 0.5, "rotary_emb_base": 5000});
    let older = rope(case("gpt_neox", older).unwrap());
    assert_eq!((older.dim, older.theta), (8, 5000.0));
    assert_eq!(rope(case("gpt_neox", json!({"rope_parameters": null})).unwrap()).dim, 4);
    assert_eq!(rope(case("mixtral", json!({"rope_parameters": null})).unwrap()).theta, 1e6);
}

#[test]
fn what_changes_the_mathematics_of_a_family_is_refused_by_name() {
    for (name, extra, named) in [
        ("mixtral", json!({"router_jitter_noise": 0.1}), "`router_jitter_noise`"),
        ("mixtral", json!({"output_router_logits": true}), "`output_router_logits`"),
        ("mixtral", json!({"num_experts_per_tok": 5}), "`num_experts_per_tok`"),
        ("gpt2", json!({"add_cross_attention": true}), "`add_cross_attention`"),
        ("gpt2", json!({"activation_function": "laplace"}), "`activation_function`"),
        ("gpt_neox", json!({"hidden_dropout": 0.1}), "`hidden_dropout`"),
        ("gemma2", json!({"use_bidirectional_attention": true}), "`use_bidirectional_attention`"),
        ("gemma2", json!({"attn_logit_softcapping": 0}), "`attn_logit_softcapping`"),
        ("gemma3", json!({"attn_logit_softcapping": 50.0}), "`attn_logit_softcapping`"),
        ("gemma3", json!({"query_pre_attn_scalar": 0}), "`query_pre_attn_scalar`"),
        ("gemma3", json!({"rope_parameters": {"chunked_attention": {}, "x": {"a": 1}}}), "`rope_parameters.x`"),
        ("qwen2", json!({"layer_types": ["full_attention"]}), "`layer_types`"),
        ("qwen3", json!({"layer_types": ["full_attention", "chunked_attention", "full_attention"]}), "`layer_types`"),
        ("qwen3", json!({"num_experts": 8}), "`num_experts`"),
        ("smollm3", json!({"no_rope_layers": [1]}), "`no_rope_layers`"),
        ("mistral-window", json!({"sliding_window": 0}), "`sliding_window`"),
        (
            "phi3-partial-longrope",
            json!({"partial_rotary_factor": 1.0, "rope_parameters": {"rope_type": "longrope",
            "short_factor": [1.0], "long_factor": [1.0]}}),
            "`rope short_factor`",
        ),
        ("olmo2", json!({"clip_qkv": 8.0}), "`clip_qkv`"),
        ("phi3-partial", json!({"rope_parameters": {"partial_rotary_factor": 1.5}}), "`partial_rotary_factor`"),
        ("gpt_neox", json!({"rope_parameters": {"partial_rotary_factor": 0.01}}), "`head_dim`"),
    ] {
        let error = refusal(name, extra.clone());
        assert!(error.contains(named), "{name} {extra}: {error}");
    }
}

#[test]
fn gemma3_beside_vision_lies_below_a_prefix() {
    let inner = case("gemma3", json!({})).unwrap();
    let path = format!("{}/../../tests/fixtures/parity/gemma3/base/config.json", env!("CARGO_MANIFEST_DIR"));
    let text: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let mut text_config = text.clone();
    text_config["architectures"] = Value::Null;
    let outer = json!({
        "model_type": "gemma3", "architectures": ["Gemma3ForConditionalGeneration"], "text_config": text_config,
        "vision_config": {"hidden_size": 8}, "mm_tokens_per_image": 256, "eos_token_id": [1, 106], "image_token_index": 9
    });
    let config = ModelConfig::from_json(&outer.to_string()).unwrap();
    assert_eq!(config.common.eos_token_ids, [1, 106]);
    assert_eq!(config.linears()[0].path, "model.language_model.layers.0.self_attn.q_proj");
    assert_eq!(config.tensors().len(), inner.tensors().len());
    let name = |stored: &str| config.tensor_name(stored).map(std::borrow::Cow::into_owned);
    let wanted = Some("model.language_model.norm.weight".to_owned());
    assert_eq!(name("language_model.model.norm.weight"), wanted);
    assert_eq!(name("model.language_model.norm.weight"), wanted);
    assert_eq!((name("vision_tower.x"), name("model.multi_modal_projector.x")), (None, None));
    let mut unknown = outer;
    unknown["text_config"]["some_future_field"] = json!(1);
    let error = ModelConfig::from_json(&unknown.to_string()).unwrap_err().to_string();
    assert!(error.contains("`text_config.some_future_field`"), "{error}");
}

#[test]
fn the_smallest_text_config_of_the_hub_is_enough_for_gemma3() {
    let outer = json!({"model_type": "gemma3", "text_config": {"hidden_size": 2560, "intermediate_size": 10240,
        "model_type": "gemma3_text", "num_hidden_layers": 34, "sliding_window": 1024,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"}}});
    let config = ModelConfig::from_json(&outer.to_string()).unwrap();
    assert_eq!(
        (config.common.vocab_size, config.common.head_dim, config.common.num_key_value_heads),
        (262_208, 256, 4)
    );
    assert_eq!(crate::facts::of(&config, false).architecture, "gemma3");
    let Family::Gemma3(gemma3) = config.family else { panic!() };
    assert_eq!((gemma3.global_rope.theta, gemma3.local_rope.theta), (1e6, 1e4));
    assert_eq!(gemma3.global_rope.scaling, RopeScaling::Linear { factor: 8.0 });
    assert_eq!(gemma3.local_rope.scaling, RopeScaling::Default);
    assert_eq!((gemma3.windows[4], gemma3.windows[5]), (Some(1024), None));
}

#[test]
fn old_gpt_checkpoints_are_renamed_and_their_buffers_left() {
    let gpt2 = case("gpt2", json!({})).unwrap();
    assert_eq!(gpt2.tensor_name("h.0.attn.c_attn.weight").unwrap(), "transformer.h.0.attn.c_attn.weight");
    assert_eq!(gpt2.tensor_name("transformer.wte.weight").unwrap(), "transformer.wte.weight");
    assert!(gpt2.tensor_name("h.0.attn.bias").is_none() && gpt2.tensor_name("lm_head.weight").is_none());
    assert!(gpt2.tensor_name("h.0.attn.c_attn.bias").is_some());
    let neox = case("gpt_neox", json!({})).unwrap();
    assert!(neox.tensor_name("gpt_neox.layers.0.attention.masked_bias").is_none());
    assert!(neox.tensor_name("embed_out.weight").is_some());
}

#[test]
fn linear_layers_are_those_of_peft() {
    let names = |name: &str| {
        let config = case(name, json!({})).unwrap();
        let mut names: Vec<String> = config.linears().iter().map(|linear| linear.name().to_owned()).collect();
        names.sort();
        names.dedup();
        names.join(" ")
    };
    assert_eq!(names("mixtral"), "k_proj o_proj q_proj v_proj");
    let mixtral = crate::facts::of(&case("mixtral", json!({})).unwrap(), false);
    assert_eq!((mixtral.linear_modules.len(), mixtral.fixed_modules.len()), (4, 2 * 3));
    let gpt2 = crate::facts::of(&case("gpt2", json!({})).unwrap(), false);
    let modules: Vec<_> =
        gpt2.linear_modules.iter().map(|module| (module.name.as_str(), module.out_features)).collect();
    assert_eq!(modules, [("c_attn", 192), ("c_proj", 64), ("c_fc", 256), ("c_proj", 64)]);
    assert_eq!(names("phi3"), "down_proj gate_up_proj o_proj qkv_proj");
    assert_eq!(names("gpt2"), "c_attn c_fc c_proj");
    assert_eq!(names("gpt_neox"), "dense dense_4h_to_h dense_h_to_4h query_key_value");
    assert_eq!(names("olmo2"), "down_proj gate_proj k_proj o_proj q_proj up_proj v_proj");
}

#[test]
fn what_published_configs_carry_besides_is_no_hindrance() {
    for (name, extra) in [
        (
            "llama",
            json!({"pretraining_tp": 1, "is_llama_config": true, "rope_interleaved": false, "_name_or_path": "x", "_model_name_or_path": "y", "unk_token_id": 0,
            "transformers.js_config": {"dtype": "q4"}, "unsloth_fixed": true, "attention_dropout": 0.0}),
        ),
        ("qwen2", json!({"use_mrope": false, "sliding_window": 32768, "max_window_layers": 21, "layer_types": null})),
        (
            "gemma2",
            json!({"cache_implementation": "hybrid", "hidden_act": "gelu_pytorch_tanh", "torch_dtype": "bfloat16"}),
        ),
        (
            "phi3",
            json!({"auto_map": {"AutoConfig": "configuration_phi3.Phi3Config"}, "attention_bias": false,
            "sliding_window": 2047, "full_attn_mod": 1, "interpolate_factor": 1, "lm_head_bias": false}),
        ),
        ("smollm3", json!({"pretraining_tp": 2, "max_window_layers": 28})),
        (
            "gpt2",
            json!({"attn_pdrop": 0.1, "embd_pdrop": 0.1, "resid_pdrop": 0.1, "n_ctx": 128,
            "task_specific_params": {"text-generation": {"do_sample": true, "max_length": 50}}}),
        ),
        (
            "gpt_neox",
            json!({"rope_parameters": null, "rotary_pct": 0.25, "rotary_emb_base": 10000,
            "classifier_dropout": 0.1}),
        ),
        ("mixtral", json!({"router_aux_loss_coef": 0.02, "output_router_logits": false})),
    ] {
        if let Err(error) = case(name, extra) {
            panic!("{name}: {error}");
        }
    }
}
