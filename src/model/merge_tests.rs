#![allow(clippy::unwrap_used)]

use std::ops::ControlFlow;

use finetuned_protocol::tuning::{
    AdapterSpec, Ia3Spec, LoraInit, LoraSpec, PrefixTuningSpec, PromptInit, PromptTuningSpec,
};
use finetuned_torch::{Device, Kind, bytes_of};
use finetuned_weights::ModelSource;
use safetensors::{Dtype, tensor::TensorView};
use serde_json::{Value, json};

use super::*;
use crate::{
    family_tests::{CASES, fixture, largest_difference, logits, texts, tiny},
    test_support::pseudo_random,
};

/// An adapter with every tensor moved away from where it started.
fn stirred(model: &CausalLm, spec: AdapterSpec) -> Adapter {
    let adapter = Adapter::new(model, &spec, 3).unwrap();
    for (index, (name, mut tensor)) in adapter.named_parameters().into_iter().enumerate() {
        let size = if name.contains("lora_B") || name.contains("ia3") { 0.1 } else { 0.02 };
        let moved = &tensor + pseudo_random(&tensor.size(), index as u64) * size;
        tch::no_grad(|| tensor.copy_(&moved));
    }
    adapter
}

fn lora(model: &CausalLm) -> LoraSpec {
    let mut targets: Vec<String> = model.linear_modules().iter().map(|module| module.name().to_owned()).collect();
    targets.dedup();
    LoraSpec::plain(4, 8.0, targets)
}

/// The merged weights as a model of their own, from a file.
fn reloaded(case: &str, merged: &MergedWeights) -> CausalLm {
    let folder = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(fixture(case).join("base/config.json")).unwrap();
    let mut config: Value = serde_json::from_str(&text).unwrap();
    if merged.head_untied {
        config["tie_word_embeddings"] = json!(false);
    }
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    let named: Vec<_> = merged.tensors.iter().map(|(name, tensor)| (name, tensor, bytes_of(tensor).unwrap())).collect();
    let view = |tensor: &Tensor| tensor.size().iter().map(|&size| size as usize).collect();
    let views =
        named.iter().map(|(name, tensor, bytes)| (*name, TensorView::new(Dtype::F32, view(tensor), bytes).unwrap()));
    std::fs::write(folder.path().join("model.safetensors"), safetensors::serialize(views, None).unwrap()).unwrap();
    let source = ModelSource::open(folder.path()).unwrap();
    CausalLm::load(&source, Device::Cpu, Kind::Float, &mut |_, _| ControlFlow::Continue(())).unwrap()
}

fn holds(case: &str, spec: impl Fn(&CausalLm) -> AdapterSpec) {
    let model = tiny(case);
    let adapter = stirred(&model, spec(&model));
    let expected = logits(&model, &texts(), Some(&adapter));
    assert!(largest_difference(&expected, &logits(&model, &texts(), None)) > 1e-3, "{case}: it changes something");
    let merged = adapter.merged(&model).unwrap();
    let found = logits(&reloaded(case, &merged), &texts(), None);
    let difference = largest_difference(&found, &expected);
    assert!(difference < 2e-5, "{case} {:?}: {difference}", adapter.spec());
}

#[test]
fn every_family_computes_alone_what_it_did_with_lora() {
    for case in CASES {
        holds(case, |model| AdapterSpec::Lora(lora(model)));
    }
}

#[test]
fn kinds_of_lora_are_merged_as_they_compute() {
    for case in ["llama", "gpt2", "qwen2"] {
        holds(case, |model| AdapterSpec::Lora(LoraSpec { use_rslora: true, ..lora(model) }));
        holds(case, |model| AdapterSpec::Lora(LoraSpec { use_dora: true, ..lora(model) }));
        holds(case, |model| AdapterSpec::Lora(LoraSpec { init: LoraInit::Pissa, ..lora(model) }));
    }
}

#[test]
fn vocabulary_matrices_are_merged_and_untied_where_they_part() {
    let saved = |names: &'static [&'static str]| {
        move |model: &CausalLm| {
            let modules_to_save = names.iter().map(|&name| name.to_owned()).collect();
            AdapterSpec::Lora(LoraSpec { modules_to_save, ..lora(model) })
        }
    };
    // Untied, and tied.
    for case in ["llama", "llama-tied-bias"] {
        holds(case, saved(&["embed_tokens", "lm_head"]));
        holds(case, saved(&["lm_head"]));
        holds(case, saved(&["embed_tokens"]));
        holds(case, |model| {
            let trainable_token_indices = (0..200).collect();
            AdapterSpec::Lora(LoraSpec { trainable_token_indices, ..lora(model) })
        });
    }
}

#[test]
fn scaled_activations_are_merged_into_weights_and_biases() {
    let list = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
    for (case, targets, inner) in [
        ("llama-tied-bias", ["k_proj", "v_proj", "down_proj"], "down_proj"),
        ("qwen2", ["k_proj", "v_proj", "down_proj"], "down_proj"),
        ("gpt2", ["c_attn", "c_fc", "c_proj"], "c_proj"),
    ] {
        let spec = Ia3Spec { target_modules: list(&targets), feedforward_modules: list(&[inner]) };
        holds(case, |_| AdapterSpec::Ia3(spec.clone()));
    }
}

#[test]
fn what_is_no_change_of_weights_is_refused_by_name() {
    let model = tiny("llama");
    let prompt = AdapterSpec::PromptTuning(PromptTuningSpec { num_virtual_tokens: 2, init: PromptInit::Random });
    let prefix = AdapterSpec::PrefixTuning(PrefixTuningSpec { num_virtual_tokens: 2 });
    for (spec, name) in [(prompt, "prompt_tuning"), (prefix, "prefix_tuning")] {
        let adapter = Adapter::new(&model, &spec, 1).unwrap();
        assert!(adapter.merged(&model).unwrap_err().to_string().contains(name));
        assert!(adapter.gguf_lora().err().unwrap().to_string().contains(name));
    }
    let dora = Adapter::new(&model, &AdapterSpec::Lora(LoraSpec { use_dora: true, ..lora(&model) }), 1).unwrap();
    assert!(dora.gguf_lora().err().unwrap().to_string().contains("use_dora"));
}
