//! Properties that every family has, on the tiny models of the reference cases.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    fs,
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use finetuned_protocol::tuning::{AdapterSpec, FullSpec, Ia3Spec, LoraSpec, TuningSpec};
use finetuned_torch::{Device, Kind, Tensor, bytes_of, tch};
use finetuned_weights::ModelSource;
use safetensors::{Dtype, tensor::TensorView};
use serde_json::{Value, json};

use crate::{
    Adapter, CausalLm, Documents, ForwardContext, GenerateOptions, ModelError, Trainable, generate, supervised_loss,
    tensor_file, test_support::pseudo_random,
};

pub(crate) const CASES: [&str; 12] = [
    "gemma2",
    "gemma3",
    "gpt2",
    "gpt_neox",
    "llama",
    "mistral-window",
    "mixtral",
    "olmo2",
    "phi3-partial-longrope",
    "qwen2",
    "qwen3",
    "smollm3",
];

pub(crate) fn fixture(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/parity").join(case)
}

fn load(folder: &Path) -> CausalLm {
    finetuned_torch::set_threads(1).unwrap(); // the tests themselves run side by side
    let source = ModelSource::open(folder).unwrap();
    CausalLm::load(&source, Device::Cpu, Kind::Float, &mut |_, _| ControlFlow::Continue(())).unwrap()
}

pub(crate) fn tiny(case: &str) -> CausalLm {
    load(&fixture(case).join("base"))
}

/// An adapter of every linear layer that has an effect: B is not zero.
pub(crate) fn stirred(model: &CausalLm) -> Adapter {
    let mut target_modules: Vec<String> =
        model.linear_modules().iter().map(|module| module.name().to_owned()).collect();
    target_modules.dedup();
    let adapter = Adapter::new(model, &AdapterSpec::Lora(LoraSpec::plain(4, 8.0, target_modules)), 3).unwrap();
    for (index, (name, mut tensor)) in adapter.named_parameters().into_iter().enumerate() {
        if name.contains("lora_B") {
            let values = pseudo_random(&tensor.size(), index as u64) * 0.1;
            tch::no_grad(|| tensor.copy_(&values));
        }
    }
    adapter
}

/// Texts shorter and longer than the windows and than LongRoPE's first context, and one that is just as long.
pub(crate) fn texts() -> Vec<Vec<u32>> {
    let key = crate::random::Key::new(11);
    [13_u64, 1, 7, 20, 16].iter().map(|&n| (0..n).map(|i| (key.with(n).bits(i) % 256) as u32).collect()).collect()
}

pub(crate) fn logits(model: &CausalLm, texts: &[Vec<u32>], adapter: Option<&Adapter>) -> Tensor {
    let documents = Documents::pack(texts, Device::Cpu).unwrap();
    tch::no_grad(|| {
        model.logits(&model.hidden(&documents, adapter, &ForwardContext::default()).unwrap(), adapter).unwrap()
    })
}

pub(crate) fn largest_difference(a: &Tensor, b: &Tensor) -> f64 {
    (a - b).abs().max().double_value(&[])
}

#[test]
fn packed_equals_unpacked() {
    for case in CASES {
        let model = tiny(case);
        let alone: Vec<Tensor> = texts().iter().map(|text| logits(&model, std::slice::from_ref(text), None)).collect();
        let difference = largest_difference(&logits(&model, &texts(), None), &Tensor::cat(&alone, 0));
        assert!(difference < 1e-5, "{case}: {difference}");
    }
}

#[test]
fn answers_are_those_of_the_training_forward() {
    for case in CASES {
        let model = tiny(case);
        let adapter = stirred(&model);
        let options = GenerateOptions::greedy(12, vec![]);
        let answers = generate(&model, Some(&adapter), &texts(), &options, &mut |_| ControlFlow::Continue(())).unwrap();
        for (mut text, answer) in texts().into_iter().zip(answers) {
            assert_eq!(answer.ids.len(), 12, "{case}");
            for (step, id) in answer.ids.into_iter().enumerate() {
                let all = logits(&model, std::slice::from_ref(&text), Some(&adapter));
                let last = all.select(0, text.len() as i64 - 1);
                let behind = last.max().double_value(&[]) - last.double_value(&[i64::from(id)]);
                assert!(behind < 2e-5, "{case}, step {step} of {}: {behind}", text.len());
                text.push(id);
            }
        }
    }
}

#[test]
fn cached_logits_are_those_of_the_training_forward() {
    // Without LongRoPE, whose texts leave their batch when they outgrow it.
    for case in CASES.into_iter().filter(|case| *case != "phi3-partial-longrope") {
        let model = tiny(case);
        let adapter = stirred(&model);
        let trace = crate::generate::trace_logits(&model, Some(&adapter), &texts(), 12).unwrap();
        for (prompt, (answer, found)) in texts().into_iter().zip(trace) {
            let text = [prompt.as_slice(), &answer].concat();
            let expected = logits(&model, &[text], Some(&adapter)).narrow(0, prompt.len() as i64 - 1, 12);
            let difference = largest_difference(&found, &expected);
            assert!(difference < 2e-5, "{case}: {difference}");
        }
    }
}

#[test]
fn every_weight_has_a_gradient_of_the_whole_model() {
    for case in CASES {
        let model = tiny(case);
        model.set_trainable(true);
        let documents = Documents::pack(&[vec![1, 2, 3]], Device::Cpu).unwrap();
        let loss = supervised_loss(&model, &documents, &[1, 2, 3], None, &ForwardContext::default()).unwrap();
        loss.loss_sum.backward();
        for (name, parameter) in model.parameters() {
            // An expert that no token chose has a gradient of zero, so that weight decay reaches it.
            assert!(parameter.grad().defined(), "{case}: {name}");
        }
        let specs = ModelSource::open(&fixture(case).join("base")).unwrap().config().tensors();
        let mut listed: Vec<String> = specs.into_iter().map(|spec| spec.name).collect();
        let mut held: Vec<String> = model.parameters().into_iter().map(|(name, _)| name).collect();
        listed.sort();
        held.sort();
        assert_eq!(listed, held, "{case}");
    }
}

#[test]
fn a_table_of_positions_bounds_texts_and_answers() {
    let model = tiny("gpt2");
    let long = vec![5; 129];
    let documents = Documents::pack(std::slice::from_ref(&long), Device::Cpu).unwrap();
    let error = model.hidden(&documents, None, &ForwardContext::default()).unwrap_err().to_string();
    assert!(error.contains("129 tokens") && error.contains("128 positions"), "{error}");
    let options = GenerateOptions::greedy(9, vec![]);
    let prompts = [long[..126].to_vec(), vec![7; 3], long[..128].to_vec()];
    let answers = generate(&model, None, &prompts, &options, &mut |_| ControlFlow::Continue(())).unwrap();
    // The last one is chosen from the last position and never read.
    assert_eq!(answers.iter().map(|answer| answer.ids.len()).collect::<Vec<_>>(), [3, 9, 1]);
    assert!(answers.iter().all(|answer| !answer.ended));
}

/// Writes a copy of a model with other names and more tensors, and a changed config.
fn rewritten(
    case: &str,
    rename: impl Fn(&str) -> String,
    extra: &[(&str, Dtype)],
    config: &Value,
) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let tensors = tensor_file::load(&fixture(case).join("base/model.safetensors")).unwrap();
    let copies: Vec<(String, Vec<usize>, Vec<u8>)> = tensors
        .iter()
        .map(|(name, tensor)| {
            let shape = tensor.size().iter().map(|&size| size as usize).collect();
            (rename(name), shape, bytes_of(tensor).unwrap())
        })
        .collect();
    let views = copies
        .iter()
        .map(|(name, shape, bytes)| (name.as_str(), TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap()))
        .chain(extra.iter().map(|(name, dtype)| {
            let bytes: &[u8] = if *dtype == Dtype::F32 { &[0; 4] } else { &[0] };
            (*name, TensorView::new(*dtype, vec![1], bytes).unwrap())
        }));
    fs::write(folder.path().join("model.safetensors"), safetensors::serialize(views, None).unwrap()).unwrap();
    fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    folder
}

fn config(case: &str) -> Value {
    serde_json::from_str(&fs::read_to_string(fixture(case).join("base/config.json")).unwrap()).unwrap()
}

#[test]
fn gemma3_beside_a_vision_tower_is_read_in_both_layouts_and_adapted_below_its_prefix() {
    let mut text_config = config("gemma3");
    text_config["architectures"] = Value::Null;
    let outer = json!({
        "model_type": "gemma3", "architectures": ["Gemma3ForConditionalGeneration"], "text_config": text_config,
        "vision_config": {"hidden_size": 8}
    });
    let alone = tiny("gemma3");
    let older = |name: &str| format!("language_model.{name}");
    let newer = |name: &str| name.replacen("model.", "model.language_model.", 1);
    let vision = |prefix: &'static str| [(prefix, Dtype::F32)];
    for folder in [
        rewritten("gemma3", older, &vision("vision_tower.vision_model.post_layernorm.weight"), &outer),
        rewritten("gemma3", newer, &vision("model.multi_modal_projector.mm_soft_emb_norm.weight"), &outer),
    ] {
        let model = load(folder.path());
        let named = Adapter::new(&model, &stirred(&alone).spec(), 3).unwrap().named_parameters();
        assert_eq!(named[0].0, "base_model.model.model.language_model.layers.0.self_attn.q_proj.lora_A.weight");
        assert!(logits(&model, &texts(), None).equal(&logits(&alone, &texts(), None)));
        // The vision tower has projections of the same names, so peft is told whole paths.
        let adapter = stirred(&model);
        adapter.save(&model, folder.path(), "tiny").unwrap();
        let text = fs::read_to_string(folder.path().join("adapter_config.json")).unwrap();
        let config: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(config["target_modules"][0], "model.language_model.layers.0.mlp.down_proj");
        assert_eq!(config["target_modules"].as_array().unwrap().len(), 6 * 7);
        let again = Adapter::load(&model, folder.path()).unwrap();
        assert!(logits(&model, &texts(), Some(&again)).equal(&logits(&model, &texts(), Some(&adapter))));

        let ia3 = Ia3Spec { target_modules: vec!["k_proj".into(), "down_proj".into()], feedforward_modules: vec![] };
        let ia3 = Ia3Spec { feedforward_modules: vec!["down_proj".into()], ..ia3 };
        Adapter::new(&model, &AdapterSpec::Ia3(ia3), 3).unwrap().save(&model, folder.path(), "tiny").unwrap();
        let AdapterSpec::Ia3(told) = Adapter::load(&model, folder.path()).unwrap().spec() else { panic!() };
        assert_eq!((told.target_modules.len(), told.feedforward_modules.len()), (2 * 6, 6));
        assert_eq!(told.feedforward_modules[5], "model.language_model.layers.5.mlp.down_proj");

        // The export would lack the vision tower, and so it is refused.
        let full = TuningSpec::Full { full: FullSpec { last_layers: None } };
        let refused = Trainable::new(&model, &full, 3, &mut |_, _| ControlFlow::Continue(()));
        assert!(matches!(refused, Err(ModelError::Setting { field: "full", .. })));
    }
}

#[test]
fn published_gpt2_and_pythia_files_are_read_with_their_old_names_and_buffers() {
    let plain = |name: &str| name.trim_start_matches("transformer.").to_owned();
    let gpt2 = rewritten("gpt2", plain, &[("h.0.attn.bias", Dtype::F32)], &config("gpt2"));
    assert!(logits(&load(gpt2.path()), &texts(), None).equal(&logits(&tiny("gpt2"), &texts(), None)));
    let buffers =
        [("gpt_neox.layers.0.attention.bias", Dtype::BOOL), ("gpt_neox.layers.0.attention.masked_bias", Dtype::F32)];
    let pythia = rewritten("gpt_neox", str::to_owned, &buffers, &config("gpt_neox"));
    assert!(logits(&load(pythia.path()), &texts(), None).equal(&logits(&tiny("gpt_neox"), &texts(), None)));
}

#[test]
fn adapters_of_transposed_weights_tell_peft_so() {
    for (case, transposed) in [("gpt2", true), ("gpt_neox", false)] {
        let folder = tempfile::tempdir().unwrap();
        let model = tiny(case);
        stirred(&model).save(&model, folder.path(), "tiny").unwrap();
        let text = fs::read_to_string(folder.path().join("adapter_config.json")).unwrap();
        let config: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(config["fan_in_fan_out"], json!(transposed), "{case}");
    }
}
