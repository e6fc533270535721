//! Properties of models and adapters that hold whatever the figures are.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use finetuned_protocol::tuning::{AdapterSpec, LoraSpec};
use finetuned_torch::{Device, Kind, Tensor, tch};
use finetuned_weights::ModelSource;

use crate::{
    Adapter, Answer, CausalLm, Documents, DropoutKeys, ForwardContext, GenerateOptions, ModelError, Optimizer,
    Sampling, generate, supervised_loss, tensor_file,
};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/parity").join(name)
}

fn load(folder: &Path) -> Result<CausalLm, ModelError> {
    finetuned_torch::set_threads(1)?; // the tests themselves run side by side
    CausalLm::load(&ModelSource::open(folder)?, Device::Cpu, Kind::Float, &mut |_, _| ControlFlow::Continue(()))
}

fn tiny() -> CausalLm {
    load(&fixture("llama/base")).unwrap()
}

fn spec(targets: &[&str]) -> LoraSpec {
    LoraSpec::plain(4, 8.0, targets.iter().map(|&name| name.to_owned()).collect())
}

fn lora(model: &CausalLm, spec: &LoraSpec, seed: u64) -> Result<Adapter, ModelError> {
    Adapter::new(model, &AdapterSpec::Lora(spec.clone()), seed)
}

/// An adapter with an effect: B is not zero.
fn stirred(model: &CausalLm, spec: &LoraSpec) -> Adapter {
    let adapter = lora(model, spec, 3).unwrap();
    for (index, (name, mut tensor)) in adapter.named_parameters().into_iter().enumerate() {
        if name.contains("lora_B") {
            let values = crate::test_support::pseudo_random(&tensor.size(), index as u64) * 0.1;
            tch::no_grad(|| tensor.copy_(&values));
        }
    }
    adapter
}

fn texts() -> Vec<Vec<u32>> {
    let key = crate::random::Key::new(11);
    [13_u64, 1, 7, 20].iter().map(|&n| (0..n).map(|i| (key.with(n).bits(i) % 256) as u32).collect()).collect()
}

fn labels(texts: &[Vec<u32>]) -> Vec<i64> {
    texts.iter().flatten().enumerate().map(|(i, &id)| if i % 3 == 0 { -100 } else { i64::from(id) }).collect()
}

fn logits(model: &CausalLm, texts: &[Vec<u32>], adapter: Option<&Adapter>) -> Tensor {
    let documents = Documents::pack(texts, Device::Cpu).unwrap();
    tch::no_grad(|| {
        model.logits(&model.hidden(&documents, adapter, &ForwardContext::default()).unwrap(), adapter).unwrap()
    })
}

fn largest_difference(a: &Tensor, b: &Tensor) -> f64 {
    (a - b).abs().max().double_value(&[])
}

#[test]
fn packed_equals_unpacked_and_a_neighbour_changes_nothing() {
    let model = tiny();
    let texts = texts();
    let alone: Vec<Tensor> = texts.iter().map(|text| logits(&model, std::slice::from_ref(text), None)).collect();
    assert!(largest_difference(&logits(&model, &texts, None), &Tensor::cat(&alone, 0)) < 1e-5);
    let mut other = texts.clone();
    other[0].reverse();
    let (before, after) = (logits(&model, &texts, None), logits(&model, &other, None));
    assert!(before.narrow(0, 13, 28).equal(&after.narrow(0, 13, 28)));
    assert!(!before.equal(&after));
}

/// Gradients of all adapter tensors, with dropout, when these groups of texts are computed one after the other.
fn gradients(model: &CausalLm, groups: &[&[usize]]) -> Vec<Tensor> {
    let adapter = stirred(model, &LoraSpec { dropout: 0.3, ..spec(&["q_proj", "v_proj", "down_proj", "gate_proj"]) });
    let texts = texts();
    for group in groups {
        let part: Vec<Vec<u32>> = group.iter().map(|&index| texts[index].clone()).collect();
        let lines = group.iter().map(|&index| index as u64 + 1).collect();
        let context =
            ForwardContext { dropout: Some(DropoutKeys { seed: 1, epoch: 2, lines }), ..ForwardContext::default() };
        let documents = Documents::pack(&part, Device::Cpu).unwrap();
        let all: Vec<i64> = part.iter().flatten().map(|&id| i64::from(id)).collect();
        supervised_loss(model, &documents, &all, Some(&adapter), &context).unwrap().loss_sum.backward();
    }
    adapter.named_parameters().iter().map(|(_, tensor)| tensor.grad()).collect()
}

#[test]
fn micro_batches_and_packing_order_do_not_change_the_gradients() {
    let model = tiny();
    let whole = gradients(&model, &[&[0, 1, 2, 3]]);
    for groups in [&[&[3, 2, 1, 0][..]][..], &[&[0, 3], &[2, 1]], &[&[0], &[1], &[2], &[3]]] {
        for (a, b) in whole.iter().zip(gradients(&model, groups)) {
            assert!(largest_difference(a, &b) <= 1e-5 * a.abs().max().double_value(&[]));
        }
    }
    for (a, b) in whole.iter().zip(gradients(&model, &[&[0, 1, 2, 3]])) {
        assert!(a.equal(&b), "the same again gives the same bytes");
    }
}

#[test]
fn generation_gives_the_logits_of_the_training_forward() {
    let model = tiny();
    let adapter = stirred(&model, &spec(&["q_proj", "k_proj", "v_proj", "o_proj", "up_proj"]));
    let prompts = texts();
    let trace = crate::generate::trace_logits(&model, Some(&adapter), &prompts, 12).unwrap();
    for (prompt, (answer, found)) in prompts.iter().zip(trace) {
        let mut text = prompt.clone();
        text.extend(&answer);
        let all = logits(&model, &[text], Some(&adapter));
        let expected = all.narrow(0, prompt.len() as i64 - 1, answer.len() as i64);
        let difference = largest_difference(&found, &expected);
        assert!(difference < 2e-5, "{difference}");
    }
}

#[test]
fn answers_end_at_any_end_id_or_at_the_limit_and_keep_their_order() {
    let model = tiny();
    let prompts = texts();
    let answer = |eos_ids: Vec<u32>, prompts: &[Vec<u32>]| {
        let options = GenerateOptions::greedy(10, eos_ids);
        generate(&model, None, prompts, &options, &mut |_| ControlFlow::Continue(())).unwrap()
    };
    let free = answer(vec![], &prompts);
    assert!(free.iter().all(|answer| answer.ids.len() == 10 && !answer.ended));
    for (prompt, expected) in prompts.iter().zip(&free) {
        assert_eq!(&answer(vec![], std::slice::from_ref(prompt))[0], expected);
    }
    let last = free[0].ids[9];
    let first = free[0].ids.iter().position(|&id| id == last).unwrap();
    let ended = answer(vec![9999, last], &prompts);
    assert_eq!(ended[0], Answer { ids: free[0].ids[..first].to_vec(), ended: true, scores: vec![] });
    for (found, free) in ended.iter().zip(&free) {
        let end = free.ids.iter().position(|&id| id == last);
        let kept = &free.ids[..end.unwrap_or(10)];
        assert_eq!(found, &Answer { ids: kept.to_vec(), ended: end.is_some(), scores: vec![] });
    }
}

#[test]
fn samples_depend_on_the_seed_alone_and_a_callback_can_stop() {
    let model = tiny();
    let sample = |seed| {
        let sampling = Sampling::Sample { temperature: 1.0, top_p: 0.95, top_k: 50, min_p: 0.0, seed };
        let options = GenerateOptions { sampling, ..GenerateOptions::greedy(8, vec![]) };
        generate(&model, None, &texts(), &options, &mut |_| ControlFlow::Continue(())).unwrap()
    };
    assert_eq!(sample(1), sample(1));
    assert_ne!(sample(1), sample(2));
    let options = GenerateOptions::greedy(8, vec![]);
    let mut calls = 0;
    let stopped = generate(&model, None, &texts(), &options, &mut |_| {
        calls += 1;
        if calls == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert!(matches!(stopped, Err(ModelError::Stopped)));
    assert_eq!(calls, 3);
}

#[test]
fn a_fresh_adapter_changes_nothing_and_is_drawn_from_its_seed() {
    let model = tiny();
    let adapter = lora(&model, &spec(&["q_proj", "down_proj"]), 5).unwrap();
    assert!(largest_difference(&logits(&model, &texts(), Some(&adapter)), &logits(&model, &texts(), None)) == 0.0);
    assert_eq!(adapter.trainable_parameters(), 3 * (4 * (64 + 64) + 4 * (112 + 64)));
    let named = adapter.named_parameters();
    assert_eq!(named[0].0, "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight");
    let bound = named[0].1.abs().max().double_value(&[]);
    assert!(bound <= 1.0 / 8.0 && bound > 0.9 / 8.0, "{bound}");
    let bytes = |seed, targets: &[&str]| {
        let adapter = lora(&model, &spec(targets), seed).unwrap();
        tensor_file::to_bytes(&adapter.named_parameters()[..1]).unwrap()
    };
    assert_eq!(bytes(5, &["q_proj", "down_proj"]), bytes(5, &["q_proj", "o_proj", "up_proj"]));
    assert_ne!(bytes(5, &["q_proj"]), bytes(6, &["q_proj"]));
}

#[test]
fn rank_stabilised_scaling_is_alpha_by_the_root_of_the_rank() {
    let model = tiny();
    let with = |alpha, use_rslora| {
        let adapter = stirred(&model, &LoraSpec { alpha, use_rslora, ..spec(&["q_proj", "up_proj"]) });
        logits(&model, &texts(), Some(&adapter))
    };
    assert!(with(8.0, true).equal(&with(16.0, false)));
    assert!(!with(8.0, true).equal(&with(8.0, false)));
}

#[test]
fn targets_that_are_no_modules_are_refused_with_those_that_are() {
    let error = lora(&tiny(), &spec(&["q_proj", "qkv"]), 1).err().unwrap().to_string();
    assert!(error.contains("`qkv`") && error.contains("down_proj, gate_proj, k_proj"), "{error}");
    assert!(lora(&tiny(), &spec(&[]), 1).is_err());
}

#[test]
fn an_adapter_that_does_not_fit_is_refused_with_every_reason() {
    let model = tiny();
    let folder = tempfile::tempdir().unwrap();
    let adapter = stirred(&model, &spec(&["q_proj"]));
    adapter.save(&model, folder.path(), "tiny").unwrap();
    let mut tensors = adapter.named_parameters();
    tensors[0].1 = Tensor::zeros([4, 63], (Kind::Float, Device::Cpu));
    tensors[1].0 = "base_model.model.other.lora_B.weight".to_owned();
    tensor_file::save(&folder.path().join("adapter_model.safetensors"), &tensors).unwrap();
    let error = Adapter::load(&model, folder.path()).err().unwrap().to_string();
    assert!(error.contains("[4, 63] and not [4, 64]") && error.contains("q_proj.lora_B.weight` is missing"), "{error}");
    assert!(error.contains("`base_model.model.other.lora_B.weight` belongs to no"), "{error}");
}

#[test]
fn tokens_outside_the_vocabulary_are_refused() {
    let documents = Documents::pack(&[vec![1, 256]], Device::Cpu).unwrap();
    let error = tiny().hidden(&documents, None, &ForwardContext::default()).err().unwrap();
    assert!(error.to_string().contains("token 256"), "{error}");
}

#[test]
fn loading_can_be_stopped() {
    let source = ModelSource::open(&fixture("llama/base")).unwrap();
    let stopped = CausalLm::load(&source, Device::Cpu, Kind::Float, &mut |_, _| ControlFlow::Break(()));
    assert!(matches!(stopped, Err(ModelError::Stopped)));
}

#[test]
fn a_resumed_run_equals_the_unbroken_one_to_the_bit() {
    let model = tiny();
    let folder = tempfile::tempdir().unwrap();
    let specification = LoraSpec { dropout: 0.1, ..spec(&["q_proj", "v_proj", "up_proj"]) };
    let optimizer_spec = finetuned_protocol::optimization::OptimizerSpec::adamw(1e-2, 0.01, [0.9, 0.95], 1e-8, 1.0);
    let run = |adapter: &Adapter, optimizer: &mut Optimizer, steps: std::ops::Range<u32>| {
        for step in steps {
            let context = ForwardContext {
                dropout: Some(DropoutKeys { seed: 4, epoch: step, lines: vec![1, 2, 3, 4] }),
                ..ForwardContext::default()
            };
            let documents = Documents::pack(&texts(), Device::Cpu).unwrap();
            let loss = supervised_loss(&model, &documents, &labels(&texts()), Some(adapter), &context).unwrap();
            optimizer.zero_grad();
            loss.loss_sum.backward();
            optimizer.step(1e-2).unwrap();
        }
    };
    let unbroken = stirred(&model, &specification);
    let mut optimizer = Optimizer::new(unbroken.named_parameters(), &optimizer_spec, 0).unwrap();
    run(&unbroken, &mut optimizer, 0..3);
    unbroken.save(&model, folder.path(), "tiny").unwrap();
    let state = folder.path().join("optimizer.safetensors");
    tensor_file::save(&state, &optimizer.state()).unwrap();
    run(&unbroken, &mut optimizer, 3..6);

    let resumed = Adapter::load(&model, folder.path()).unwrap();
    let AdapterSpec::Lora(read) = resumed.spec() else { panic!("{resumed:?}") };
    assert_eq!(read.dropout, 0.1);
    let mut optimizer = Optimizer::new(resumed.named_parameters(), &optimizer_spec, 0).unwrap();
    optimizer.load_state(3, tensor_file::load(&state).unwrap()).unwrap();
    run(&resumed, &mut optimizer, 3..6);
    let bytes = |adapter: &Adapter| tensor_file::to_bytes(&adapter.named_parameters()).unwrap();
    assert_eq!(bytes(&resumed), bytes(&unbroken));

    let mut other =
        Optimizer::new(lora(&model, &spec(&["k_proj"]), 1).unwrap().named_parameters(), &optimizer_spec, 0).unwrap();
    assert!(other.load_state(3, tensor_file::load(&state).unwrap()).is_err());
}
