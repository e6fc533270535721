//! Every method on every family, held to closed forms on the tiny models of the reference cases.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::ops::ControlFlow;

use finetuned_protocol::tuning::{
    AdapterSpec, FullSpec, Ia3Spec, LoraInit, LoraSpec, PrefixTuningSpec, PromptInit, PromptTuningSpec, TuningSpec,
};
use finetuned_torch::{Device, Kind, Tensor, tch};
use finetuned_weights::{Family, ModelSource};

use crate::{
    Adapter, CausalLm, Documents, ForwardContext, ModelError, Trainable,
    cache::KeyValueCache,
    family_tests::{CASES, fixture, largest_difference, logits, texts, tiny},
    generate::trace_logits,
    supervised_loss,
    test_support::pseudo_random,
};

/// Tokens that stand before each text where virtual ones do in an adapter.
const BEFORE: [u32; 3] = [17, 202, 99];
const SCALED: [&str; 2] = ["gemma2", "gemma3"];

fn modules(model: &CausalLm) -> Vec<String> {
    let mut names: Vec<String> = model.linear_modules().iter().map(|module| module.name().to_owned()).collect();
    names.sort();
    names.dedup();
    names
}

fn lora(model: &CausalLm) -> LoraSpec {
    LoraSpec::plain(4, 8.0, modules(model))
}

/// Moves every trained tensor away from where it starts.
fn stir(adapter: &Adapter) {
    for (index, (_, mut tensor)) in adapter.named_parameters().into_iter().enumerate() {
        let noise = pseudo_random(&tensor.size(), 100 + index as u64) * 0.05;
        let _ = tch::no_grad(|| tensor.g_add_(&noise));
    }
}

/// Puts values into the only tensor of an adapter.
fn set(adapter: &Adapter, values: &Tensor) {
    let named = adapter.named_parameters();
    let mut tensor = named[0].1.shallow_clone();
    assert_eq!((named.len(), tensor.size()), (1, values.size()));
    tch::no_grad(|| tensor.copy_(values));
}

fn behind(text: &[u32]) -> Vec<u32> {
    [&BEFORE, text].concat()
}

/// Logits of a text that stands behind [`BEFORE`], without theirs.
fn logits_behind(model: &CausalLm, text: &[u32]) -> Tensor {
    logits(model, &[behind(text)], None).narrow(0, BEFORE.len() as i64, text.len() as i64)
}

/// What answers are chosen from is what the training forward gives.
fn assert_answers(case: &str, model: &CausalLm, adapter: &Adapter) {
    if case == "phi3-partial-longrope" {
        return; // its texts leave their batch when they outgrow it
    }
    for (prompt, (answer, found)) in texts().into_iter().zip(trace_logits(model, Some(adapter), &texts(), 4).unwrap()) {
        let text = [prompt.as_slice(), &answer].concat();
        let expected = logits(model, &[text], Some(adapter)).narrow(0, prompt.len() as i64 - 1, 4);
        let difference = largest_difference(&found, &expected);
        assert!(difference < 2e-5, "{case}: {difference}");
    }
}

/// Keys and values of [`BEFORE`] in the order of Hugging Face's checkpoints, as peft keeps a prefix:
/// `[tokens, layers * 2 * kv_heads * head_dim]`.
fn keys_and_values(case: &str, model: &CausalLm, text: &[u32]) -> Tensor {
    let config = ModelSource::open(&fixture(case).join("base")).unwrap().config().clone();
    let rotated = |layer: usize| -> i64 {
        match &config.family {
            Family::Gpt2(_) => 0,
            Family::SmolLm3(smollm3) if !smollm3.rotated[layer] => 0,
            Family::GptNeoX(neox) => neox.rope.dim.into(),
            Family::Phi3(phi3) => phi3.rope.dim.into(),
            _ => config.common.head_dim.into(),
        }
    };
    let documents = Documents::pack(&[behind(text)], Device::Cpu).unwrap();
    let shape = model.cache_shape();
    let mut cache = KeyValueCache::new(shape, documents.lengths(), 1, (Kind::Float, Device::Cpu)).unwrap();
    let _ = tch::no_grad(|| model.prefill(&documents, None, &mut cache).unwrap());
    cache.next_column();
    let none = Tensor::zeros([1, shape.kv_heads, shape.head_dim], (Kind::Float, Device::Cpu));
    let mut parts = Vec::new();
    for layer in 0..shape.layers {
        let (keys, values) = cache.append(layer, &none, &none).unwrap(); // [1, kv_heads, columns, head_dim]
        let first = |x: &Tensor| x.select(0, 0).narrow(1, 0, BEFORE.len() as i64).transpose(0, 1);
        let (keys, dim) = (first(&keys), rotated(layer));
        // Pairs stand side by side; Hugging Face has all first components, then all second ones.
        let pairs = keys.narrow(-1, 0, dim).unflatten(-1, [dim / 2, 2]).transpose(-1, -2).flatten(-2, -1);
        let rest = keys.narrow(-1, dim, shape.head_dim - dim);
        parts.push(Tensor::cat(&[pairs, rest], -1).flatten(1, 2));
        parts.push(first(&values).flatten(1, 2));
    }
    Tensor::cat(&parts, 1)
}

#[test]
fn a_prefix_that_holds_the_keys_and_values_of_tokens_stands_for_them() {
    for case in CASES {
        let model = tiny(case);
        let spec = AdapterSpec::PrefixTuning(PrefixTuningSpec { num_virtual_tokens: 3 });
        let adapter = Adapter::new(&model, &spec, 3).unwrap();
        for text in texts() {
            set(&adapter, &keys_and_values(case, &model, &text));
            let found = logits(&model, std::slice::from_ref(&text), Some(&adapter));
            let difference = largest_difference(&found, &logits_behind(&model, &text));
            assert!(difference < 2e-5, "{case}, {} tokens: {difference}", text.len());
        }
        assert_answers(case, &model, &adapter);
    }
}

#[test]
fn a_prompt_that_holds_the_embeddings_of_tokens_stands_for_them() {
    let spec = AdapterSpec::PromptTuning(PromptTuningSpec { num_virtual_tokens: 3, init: PromptInit::Random });
    for case in CASES {
        let model = tiny(case);
        if SCALED.contains(&case) {
            let error = Adapter::new(&model, &spec, 3).unwrap_err();
            assert!(matches!(error, ModelError::Setting { field: "prompt_tuning", .. }), "{error}");
            let rows = LoraSpec { trainable_token_indices: vec![3], ..lora(&model) };
            let error = Adapter::new(&model, &AdapterSpec::Lora(rows), 3).unwrap_err();
            assert!(matches!(error, ModelError::Setting { field: "lora.trainable_token_indices", .. }), "{error}");
            continue;
        }
        let adapter = Adapter::new(&model, &spec, 3).unwrap();
        set(&adapter, &model.embedding().index_select(0, &Tensor::from_slice(&BEFORE.map(i64::from))));
        for text in texts() {
            let found = logits(&model, std::slice::from_ref(&text), Some(&adapter));
            let difference = largest_difference(&found, &logits_behind(&model, &text));
            assert!(difference < 2e-5, "{case}, {} tokens: {difference}", text.len());
        }
        assert_answers(case, &model, &adapter);
    }
}

#[test]
fn ia3_is_a_model_with_scaled_rows_and_columns() {
    for case in CASES {
        let (model, scaled) = (tiny(case), tiny(case));
        let inputs = ["down_proj", "dense_4h_to_h", "c_fc", "o_proj"];
        let feedforward_modules: Vec<String> =
            modules(&model).into_iter().filter(|name| inputs.contains(&name.as_str())).collect();
        let spec = Ia3Spec { target_modules: modules(&model), feedforward_modules: feedforward_modules.clone() };
        let adapter = Adapter::new(&model, &AdapterSpec::Ia3(spec), 3).unwrap();
        assert!(logits(&model, &texts(), Some(&adapter)).equal(&logits(&model, &texts(), None)), "{case}");
        stir(&adapter);
        let weights: std::collections::HashMap<String, Tensor> = scaled.parameters().into_iter().collect();
        for (module, (_, l)) in model.linear_modules().iter().zip(adapter.named_parameters()) {
            let l = l.detach().flatten(0, -1);
            let is_input = feedforward_modules.iter().any(|name| name == module.name());
            let mut weight = weights[&format!("{}.weight", module.path)].shallow_clone();
            // A factor of each column of [out, in], or of each row; the other way round where it is transposed.
            let by_column = is_input != (case == "gpt2");
            let _ = tch::no_grad(|| weight.g_mul_(&if by_column { l.unsqueeze(0) } else { l.unsqueeze(1) }));
            if let Some(bias) = weights.get(&format!("{}.bias", module.path)).filter(|_| !is_input) {
                let _ = tch::no_grad(|| bias.shallow_clone().g_mul_(&l));
            }
        }
        let found = logits(&model, &texts(), Some(&adapter));
        let difference = largest_difference(&found, &logits(&scaled, &texts(), None));
        assert!(difference < 2e-5, "{case}: {difference}");
        assert!(largest_difference(&found, &logits(&model, &texts(), None)) > 1e-3, "{case}");
        let folder = tempfile::tempdir().unwrap();
        adapter.save(&model, folder.path(), "tiny").unwrap();
        let again = Adapter::load(&model, folder.path()).unwrap();
        assert!(logits(&model, &texts(), Some(&again)).equal(&found), "{case}");
    }
}

#[test]
fn dora_and_pissa_start_without_effect_and_are_read_back() {
    for case in CASES {
        let model = tiny(case);
        let dora = LoraSpec { use_dora: true, ..lora(&model) };
        let pissa = LoraSpec { init: LoraInit::Pissa, ..lora(&model) };
        for spec in [dora, pissa] {
            let adapter = Adapter::new(&model, &AdapterSpec::Lora(spec), 3).unwrap();
            let plain = logits(&model, &texts(), None);
            let difference = largest_difference(&logits(&model, &texts(), Some(&adapter)), &plain);
            assert!(difference < 3e-5, "{case}: {difference}");
            stir(&adapter);
            let found = logits(&model, &texts(), Some(&adapter));
            assert!(largest_difference(&found, &plain) > 1e-3, "{case}");
            let folder = tempfile::tempdir().unwrap();
            adapter.save(&model, folder.path(), "tiny").unwrap();
            let again = Adapter::load(&model, folder.path()).unwrap();
            assert!(logits(&model, &texts(), Some(&again)).equal(&found), "{case}");
        }
    }
}

#[test]
fn vocabulary_matrices_are_trained_by_their_names_in_each_family() {
    for case in CASES {
        let model = tiny(case);
        let names = model.facts().vocabulary_modules().map(str::to_owned);
        let spec = LoraSpec { modules_to_save: names.to_vec(), ..lora(&model) };
        let adapter = Adapter::new(&model, &AdapterSpec::Lora(spec), 3).unwrap();
        let plain = logits(&model, &texts(), None);
        assert!(logits(&model, &texts(), Some(&adapter)).equal(&plain), "{case}");
        let named = adapter.named_parameters();
        for ((key, _), name) in named[named.len() - 2..].iter().zip(names) {
            assert!(key.starts_with("base_model.model.") && key.ends_with(&format!("{name}.weight")), "{case}: {key}");
        }
        // Both reach the logits, the soft cap of which still bounds them.
        for (_, tensor) in &named[named.len() - 2..] {
            let before = logits(&model, &texts(), Some(&adapter));
            let noise = pseudo_random(&tensor.size(), 5) * 0.05;
            let _ = tch::no_grad(|| tensor.shallow_clone().g_add_(&noise));
            assert!(largest_difference(&logits(&model, &texts(), Some(&adapter)), &before) > 1e-4, "{case}");
        }
    }
}

#[test]
fn the_last_layer_gets_the_gradients_that_full_training_gives_it() {
    for case in CASES {
        let trained = |last_layers| {
            let model = tiny(case);
            let spec = TuningSpec::Full { full: FullSpec { last_layers } };
            let trainable = Trainable::new(&model, &spec, 3, &mut |_, _| ControlFlow::Continue(())).unwrap();
            let documents = Documents::pack(&texts(), Device::Cpu).unwrap();
            let labels: Vec<i64> = texts().into_iter().flatten().map(i64::from).collect();
            let loss = supervised_loss(&model, &documents, &labels, None, &ForwardContext::default()).unwrap();
            loss.loss_sum.backward();
            (trainable.named_parameters(), model)
        };
        let (all, whole) = trained(None);
        assert_eq!(all.len(), whole.parameters().len(), "{case}");
        let (last, part) = trained(Some(1));
        let layer = format!(".{}.", part.facts().layers - 1);
        let in_last = |name: &str| name.contains(&format!("layers{layer}")) || name.contains(&format!(".h{layer}"));
        assert_eq!(last.len(), all.iter().filter(|(name, _)| in_last(name)).count(), "{case}");
        assert!(last.len() >= 6, "{case}");
        for (name, tensor) in &last {
            let expected = all.iter().find(|(other, _)| other == name).unwrap().1.grad();
            let largest = expected.abs().max().double_value(&[]);
            assert!(largest_difference(&tensor.grad(), &expected) <= 1e-6 * largest, "{case}: {name}");
        }
    }
}
