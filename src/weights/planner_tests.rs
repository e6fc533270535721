#![allow(clippy::unwrap_used, clippy::expect_used)]

use finetuned_protocol::{
    request::CreateJobRequest,
    resolve::{resolve, resolve_preparation},
    resolve_tuning::resolve_tuning,
    spec::LinearModule,
};

use super::*;

/// SmolLM2-135M's sizes.
fn model() -> ModelFacts {
    let module = |(name, in_features, out_features): (&str, u32, u32)| LinearModule {
        name: name.to_owned(),
        in_features,
        out_features,
    };
    let modules = [
        ("q_proj", 576, 576),
        ("k_proj", 576, 192),
        ("v_proj", 576, 192),
        ("o_proj", 576, 576),
        ("gate_proj", 576, 1536),
        ("up_proj", 576, 1536),
        ("down_proj", 1536, 576),
    ];
    ModelFacts {
        architecture: "llama".to_owned(),
        parameters: 134_515_008,
        layers: 30,
        hidden_size: 576,
        vocab_size: 49_152,
        context_length: 8192,
        linear_modules: modules.map(module).into(),
        fixed_modules: Vec::new(),
        has_chat_template: true,
    }
}

fn dataset() -> DatasetFacts {
    DatasetFacts {
        train_rows: 100,
        held_out_rows: 0,
        train_tokens: 10_000,
        train_supervised_tokens: 0,
        longest_row_tokens: 200,
        truncated_rows: 0,
        dropped_rows: 0,
    }
}

fn spec(extra: serde_json::Value, dataset: &DatasetFacts) -> TrainingSpec {
    let mut body = serde_json::json!({"model": "m", "training_file": "file-1", "batch_size": 10, "n_epochs": 2});
    for (key, value) in extra.as_object().unwrap() {
        body[key] = value.clone();
    }
    let request: CreateJobRequest = serde_json::from_value(body).unwrap();
    let tuning = resolve_tuning(&request, &model(), None).unwrap();
    let preparation = resolve_preparation(&request, &tuning, &model()).unwrap();
    resolve(&request, preparation, tuning, dataset).unwrap()
}

#[test]
fn memory_is_the_sum_of_its_parts() {
    let spec =
        spec(serde_json::json!({"micro_batch_size": 4, "lora": {"r": 16, "target_modules": ["q_proj"]}}), &dataset());
    assert_eq!(trainable_parameters(&model(), &spec.tuning), 30 * 16 * (576 + 576));
    let kept = (2 * (576 + 576) + 2 * (576 + 192) + 3 * (576 + 1536)) + 4 * 576;
    let expected =
        134_515_008 * 4 + 30 * 16 * 1152 * 16 + 4 * (4 * 200) * kept * 30 + 2 * 4 * 256 * 49_152 + PROCESS_BYTES;
    assert_eq!(estimate(&model(), &spec, &dataset(), None).peak_memory_bytes, expected);
}

#[test]
fn time_is_matrix_products_over_their_rate() {
    let spec =
        spec(serde_json::json!({"lora": {"r": 8, "target_modules": ["v_proj"]}, "answers": {"rows": 0}}), &dataset());
    let weights = 30.0 * (2.0 * 576.0 * 576.0 + 2.0 * 576.0 * 192.0 + 3.0 * 576.0 * 1536.0);
    let adapter = 30.0 * 8.0 * (576.0 + 192.0);
    let found = estimate(&model(), &spec, &dataset(), None);
    assert_eq!((found.tokens, found.steps), (20_000, 20));
    assert_eq!(found.seconds as f64, (20_000.0 * (4.0 * weights + 6.0 * adapter) / FLOPS_PER_SECOND).ceil());
}

#[test]
fn fixed_modules_take_time_and_memory_and_no_adapter() {
    let spec = spec(serde_json::json!({"lora": {"target_modules": ["q_proj"]}}), &dataset());
    let expert = LinearModule { name: "w1".to_owned(), in_features: 576, out_features: 1536 };
    let mixed = ModelFacts { fixed_modules: vec![expert.clone(), expert], ..model() };
    assert_eq!(trainable_parameters(&mixed, &spec.tuning), trainable_parameters(&model(), &spec.tuning));
    let (plain, found) = (estimate(&model(), &spec, &dataset(), None), estimate(&mixed, &spec, &dataset(), None));
    let tokens = u64::from(spec.micro_batch_size) * 200;
    assert_eq!(found.peak_memory_bytes - plain.peak_memory_bytes, 4 * tokens * 30 * 2 * (576 + 1536));
    assert!(found.seconds > plain.seconds);
}

#[test]
fn every_part_of_the_work_counts() {
    let base = dataset();
    let seconds = |extra: serde_json::Value, dataset: &DatasetFacts| {
        estimate(&model(), &spec(extra, dataset), dataset, None).seconds
    };
    let none = serde_json::json!({"answers": {"rows": 0}});
    let plain = seconds(none.clone(), &base);
    let supervised = DatasetFacts { train_supervised_tokens: 10_000, ..base.clone() };
    let held_out = DatasetFacts { held_out_rows: 50, ..base.clone() };
    assert!(seconds(none.clone(), &supervised) > plain);
    assert!(seconds(none, &held_out) > plain);
    assert!(
        seconds(serde_json::json!({"answers": {"rows": 10}}), &held_out)
            > seconds(serde_json::json!({"answers": {"rows": 1}}), &held_out)
    );
    // Fewer steps than the epochs hold cost less, more are not made.
    assert!(seconds(serde_json::json!({"n_epochs": null, "max_steps": 5, "answers": {"rows": 0}}), &base) < plain);
}

#[test]
fn empty_and_vast_jobs_do_not_overflow() {
    let empty = DatasetFacts { train_rows: 0, train_tokens: 0, longest_row_tokens: 0, ..dataset() };
    let mut spec = spec(serde_json::json!({}), &dataset());
    assert_eq!(estimate(&model(), &spec, &empty, None).tokens, 0);
    spec.micro_batch_size = u32::MAX;
    spec.preparation.max_seq_len = u32::MAX;
    let vast = DatasetFacts { train_tokens: u64::MAX, longest_row_tokens: u32::MAX, ..dataset() };
    assert!(estimate(&model(), &spec, &vast, None).peak_memory_bytes > 1 << 60);
}

#[test]
fn every_method_is_counted() {
    let count = |extra: serde_json::Value| trainable_parameters(&model(), &spec(extra, &dataset()).tuning);
    let layer = 2 * 576 * 576 + 2 * 576 * 192 + 3 * 576 * 1536 + 2 * 576;
    assert_eq!(count(serde_json::json!({"full": {}})), 134_515_008);
    assert_eq!(count(serde_json::json!({"full": {"last_layers": 2}})), 2 * layer);
    let experts = ModelFacts { parameters: 30 * 50_000_000, ..model() };
    let last = spec(serde_json::json!({"full": {"last_layers": 2}}), &dataset());
    let found = trainable_parameters(&experts, &last.tuning);
    assert_eq!(found, 2 * ((30 * 50_000_000 - 2 * 49_152 * 576) / 30));
    assert_eq!(count(serde_json::json!({"ia3": {}})), 30 * (192 + 192 + 1536));
    assert_eq!(count(serde_json::json!({"prompt_tuning": {"num_virtual_tokens": 8}})), 8 * 576);
    assert_eq!(count(serde_json::json!({"prefix_tuning": {"num_virtual_tokens": 8}})), 8 * 2 * 30 * 192);
    let lora = serde_json::json!({"lora": {
        "r": 4, "target_modules": ["q_proj", "v_proj"], "use_dora": true, "rank_pattern": {"v_proj": 2},
        "layers_to_transform": [0, 29], "modules_to_save": ["lm_head"], "trainable_token_indices": [1, 2, 3]
    }});
    assert_eq!(count(lora), 2 * (4 * 1152 + 576 + 2 * 768 + 192) + 49_152 * 576 + 3 * 576);
}

#[test]
fn full_fine_tuning_takes_gradients_of_the_weights() {
    let estimate = |extra: serde_json::Value| {
        let spec = spec(extra, &dataset());
        estimate(&model(), &spec, &dataset(), None)
    };
    let none = serde_json::json!({"rows": 0});
    let full = estimate(serde_json::json!({"full": {}, "answers": none, "micro_batch_size": 1}));
    let last = estimate(serde_json::json!({"full": {"last_layers": 3}, "answers": none, "micro_batch_size": 1}));
    let weights = 30.0 * (2.0 * 576.0 * 576.0 + 2.0 * 576.0 * 192.0 + 3.0 * 576.0 * 1536.0);
    assert_eq!(full.seconds as f64, (20_000.0 * 6.0 * weights / FLOPS_PER_SECOND).ceil());
    assert_eq!(last.seconds as f64, (20_000.0 * (2.0 + 0.4) * weights / FLOPS_PER_SECOND).ceil());
    let trained = |tuning: serde_json::Value| trainable_parameters(&model(), &spec(tuning, &dataset()).tuning);
    let saved = trained(serde_json::json!({"full": {}})) - trained(serde_json::json!({"full": {"last_layers": 3}}));
    assert_eq!(full.peak_memory_bytes - last.peak_memory_bytes, 24 * saved);
}

#[test]
fn an_optimisers_state_is_counted() {
    let bytes = |mut extra: serde_json::Value| {
        extra["micro_batch_size"] = 1.into();
        let spec = spec(extra, &dataset());
        estimate(&model(), &spec, &dataset(), None).peak_memory_bytes
    };
    let adapter = |optimizer: serde_json::Value| bytes(serde_json::json!({"optimizer": optimizer}));
    let full = |optimizer: serde_json::Value| bytes(serde_json::json!({"full": {}, "optimizer": optimizer}));
    let trained = trainable_parameters(&model(), &spec(serde_json::json!({}), &dataset()).tuning);
    let (f32, all) = (adapter(serde_json::json!({})), full(serde_json::json!({})));
    let weights = 134_515_008;
    // Saved: of the moments' 8 bytes in f32, twice where all weights are trained.
    for (optimizer, left) in [
        (serde_json::json!({"moments": "bf16"}), [4 * trained, 4 * weights]),
        (
            serde_json::json!({"moments": "8bit"}),
            [trained, weights].map(|count: u64| 2 * (count + 4 * count.div_ceil(256))),
        ),
        (serde_json::json!({"type": "sgd"}), [4 * trained, 4 * weights]),
        (serde_json::json!({"type": "sgd", "momentum": 0}), [0, 0]),
    ] {
        assert_eq!(f32 - adapter(optimizer.clone()), 8 * trained - left[0], "{optimizer}");
        assert_eq!(all - full(optimizer.clone()), 2 * (8 * weights - left[1]), "{optimizer}");
    }
    let matrices = 30 * (2 * 576 * 576 + 2 * 576 * 192 + 3 * 576 * 1536);
    assert_eq!(all - full(serde_json::json!({"type": "muon"})), 2 * 4 * matrices);
    assert_eq!(f32 - adapter(serde_json::json!({"type": "muon"})), 4 * trained);
    let sides = 30 * (2 * (576 + 576) + 2 * (576 + 192) + 3 * (576 + 1536)) + 2 * (49_152 + 576);
    assert_eq!(all - full(serde_json::json!({"type": "adafactor"})), 2 * (8 * weights - 4 * sides));
    let averaging = serde_json::json!({"weight_averaging": {"last_checkpoints": 2}});
    assert_eq!(bytes(averaging) - f32, 4 * trained);
}

#[test]
fn weights_in_few_bits_take_what_is_stored_of_them() {
    let peak = |precision: &str| {
        let spec = spec(serde_json::json!({"base_precision": precision, "micro_batch_size": 1}), &dataset());
        estimate(&model(), &spec, &dataset(), None).peak_memory_bytes
    };
    let matrices = 30 * (2 * 576 * 576 + 2 * 576 * 192 + 3 * 576 * 1536);
    let dense = 4 * 576 * 1536;
    assert_eq!(peak("auto"), peak("f32"));
    assert_eq!(peak("f32") - peak("bf16"), 2 * matrices - dense);
    assert_eq!(peak("f32") - peak("int8"), 3 * matrices - 4 * matrices / 576 - dense);
    assert_eq!(peak("f32") - peak("nf4"), 4 * matrices - (matrices / 2 + matrices / 64 + matrices / 4096) - dense);
    // Experts count, though a token goes through some of them only.
    let experts = ModelFacts { parameters: 8 * 134_515_008, ..model() };
    let with_experts = |precision: &str| {
        let spec = spec(serde_json::json!({"base_precision": precision}), &dataset());
        estimate(&experts, &spec, &dataset(), None).peak_memory_bytes
    };
    assert!(with_experts("f32") - with_experts("nf4") > 3 * experts.parameters);
}

#[test]
fn disk_is_checkpoints_and_exports() {
    let disk = |extra: serde_json::Value, kept| {
        let spec = spec(extra, &dataset());
        estimate(&model(), &spec, &dataset(), kept).disk
    };
    let lora = serde_json::json!({"checkpoint_every": 5, "lora": {"r": 16, "target_modules": ["q_proj"]}});
    let trained = 30 * 16 * (576 + 576);
    let found = disk(lora.clone(), None);
    // Weight and two moments; one before the first step and four in twenty.
    let weights = 5 * trained * 12 + trained * 4;
    assert!((weights..weights + (8 << 20)).contains(&found.stored_bytes), "{found:?}");
    assert!(found.work_bytes >= 3 * trained * 12 + trained * 4 && found.work_bytes < found.stored_bytes + (8 << 20));
    let few = disk(lora.clone(), Some(1));
    assert_eq!(few.work_bytes, found.work_bytes);
    let checkpoint = (found.stored_bytes - few.stored_bytes) / 3;
    assert!(
        checkpoint >= trained * 12 && checkpoint < trained * 12 + (1 << 20),
        "two are kept, one of them for a moment"
    );
    let parameters = model().parameters;
    let with = |formats: serde_json::Value| {
        let mut body = lora.clone();
        body["export"] = formats;
        disk(body, None).stored_bytes - found.stored_bytes
    };
    let tokenizer = 49_152 * 100;
    assert_eq!(with(serde_json::json!(["merged"])), parameters * 4 + tokenizer);
    assert_eq!(with(serde_json::json!(["gguf_f16"])), parameters * 2 + tokenizer);
    assert_eq!(with(serde_json::json!(["gguf_q8_0"])), (parameters / 32 + 1) * 34 + tokenizer);
    let full = disk(serde_json::json!({"full": {}, "checkpoint_every": 20}), None);
    assert!(full.stored_bytes > 2 * parameters * 12 + parameters * 4, "{full:?}");
}
