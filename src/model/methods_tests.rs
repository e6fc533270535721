//! What each method computes, held to a closed form on tiny random models; those that peft has figures of are in
//! `peft_parity_tests`.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{ops::ControlFlow, path::Path};

use finetuned_protocol::{
    optimization::OptimizerSpec,
    tuning::{
        AdapterSpec, FullSpec, Ia3Spec, LoraInit, LoraSpec, PrefixTuningSpec, PromptInit, PromptTuningSpec, TuningSpec,
    },
};
use finetuned_torch::{Device, Kind, Tensor, tch};
use finetuned_weights::ModelSource;

use crate::{
    Adapter, CausalLm, Documents, DropoutKeys, ForwardContext, ModelError, Optimizer, Trainable, dropout::dropout,
    linear::Linear, supervised_loss, tensor_file, test_support::pseudo_random, weight::Weight,
};

fn model(name: &str) -> CausalLm {
    finetuned_torch::set_threads(1).unwrap(); // the tests themselves run side by side
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/parity").join(name).join("base");
    let source = ModelSource::open(&folder).unwrap();
    CausalLm::load(&source, Device::Cpu, Kind::Float, &mut |_, _| ControlFlow::Continue(())).unwrap()
}

fn tiny() -> CausalLm {
    model("llama")
}

fn lora(targets: &[&str]) -> LoraSpec {
    LoraSpec::plain(4, 8.0, targets.iter().map(|&name| name.to_owned()).collect())
}

fn adapter(model: &CausalLm, spec: &LoraSpec) -> Adapter {
    Adapter::new(model, &AdapterSpec::Lora(spec.clone()), 3).unwrap()
}

fn fresh(model: &CausalLm, spec: &TuningSpec) -> Result<Trainable, ModelError> {
    Trainable::new(model, spec, 3, &mut |_, _| ControlFlow::Continue(()))
}

/// Moves every trained tensor away from where it starts.
fn stir(adapter: &Adapter) {
    for (index, (_, mut tensor)) in adapter.named_parameters().into_iter().enumerate() {
        let noise = pseudo_random(&tensor.size(), 100 + index as u64) * 0.05;
        let _ = tch::no_grad(|| tensor.g_add_(&noise));
    }
}

fn texts() -> Vec<Vec<u32>> {
    vec![vec![7, 9, 200, 41, 7, 3], vec![5], vec![200, 31, 9, 9, 77, 120, 6, 1, 2]]
}

fn logits(model: &CausalLm, adapter: Option<&Adapter>) -> Tensor {
    let documents = Documents::pack(&texts(), Device::Cpu).unwrap();
    tch::no_grad(|| {
        let hidden = model.hidden(&documents, adapter, &ForwardContext::default()).unwrap();
        model.logits(&hidden, adapter).unwrap()
    })
}

fn backward(model: &CausalLm, adapter: Option<&Adapter>) {
    let documents = Documents::pack(&texts(), Device::Cpu).unwrap();
    let labels: Vec<i64> = texts().iter().flatten().map(|&id| i64::from(id)).collect();
    let parts = supervised_loss(model, &documents, &labels, adapter, &ForwardContext::default()).unwrap();
    parts.loss_sum.backward();
}

fn largest(a: &Tensor, b: &Tensor) -> f64 {
    (a - b).abs().max().double_value(&[])
}

fn find(named: &[(String, Tensor)], name: &str) -> Tensor {
    let found = named.iter().find(|(other, _)| other.ends_with(name));
    found.unwrap_or_else(|| panic!("{name} is missing")).1.shallow_clone()
}

fn weight(model: &CausalLm, name: &str) -> Tensor {
    find(&model.parameters(), name)
}

#[test]
fn pissa_starts_at_the_principal_part_of_each_weight() {
    let model = tiny();
    let spec = LoraSpec { init: LoraInit::Pissa, use_rslora: true, ..lora(&["q_proj", "down_proj"]) };
    let adapter = adapter(&model, &spec);
    assert!(largest(&logits(&model, Some(&adapter)), &logits(&model, None)) < 2e-5);
    let named = adapter.named_parameters();
    for path in ["model.layers.1.self_attn.q_proj", "model.layers.2.mlp.down_proj"] {
        let w = weight(&model, &format!("{path}.weight")).to_kind(Kind::Double);
        let a = find(&named, &format!("{path}.lora_A.weight")).to_kind(Kind::Double);
        let b = find(&named, &format!("{path}.lora_B.weight")).to_kind(Kind::Double);
        let singular = w.svd(true, false).1;
        // Eckart & Young: no matrix of rank 4 is nearer than the tail of the squared singular values.
        let tail = singular.narrow(0, 4, singular.size()[0] - 4).square().sum(Kind::Double).double_value(&[]);
        let rest = (&w - b.matmul(&a) * 4.0).square().sum(Kind::Double).double_value(&[]);
        assert!((rest - tail).abs() < 1e-5 * tail, "{path}: {rest} and not {tail}");
        // The singular values are shared evenly: A A^T = B^T B = diag(sigma) / scaling.
        let shared = singular.narrow(0, 0, 4).diag_embed(0, -2, -1) / 4.0;
        assert!(largest(&a.matmul(&a.tr()), &shared) < 1e-6 && largest(&b.tr().matmul(&b), &shared) < 1e-6);
    }
}

#[test]
fn pissa_trains_in_place_of_the_principal_part_and_is_exported_as_a_difference() {
    let model = tiny();
    let spec = LoraSpec { init: LoraInit::Pissa, ..lora(&["q_proj", "down_proj"]) };
    let adapter = adapter(&model, &spec);
    let before: Vec<Tensor> = adapter.named_parameters().iter().map(|(_, tensor)| tensor.detach().copy()).collect();
    stir(&adapter);
    let folder = tempfile::tempdir().unwrap();
    adapter.save(&model, folder.path(), "tiny").unwrap();
    let reloaded = Adapter::load(&model, folder.path()).unwrap();
    let AdapterSpec::Lora(out) = reloaded.spec() else { panic!("{reloaded:?}") };
    assert_eq!((out.r, out.alpha, out.init), (8, 16.0, LoraInit::Default));
    let trained = logits(&model, Some(&adapter));
    assert!(logits(&model, Some(&reloaded)).equal(&trained));

    // The closed form: W - s B0 A0 + s B A, put into a model of its own.
    let merged = tiny();
    let after = adapter.named_parameters();
    for (pair, before) in after.chunks(2).zip(before.chunks(2)) {
        let path = pair[0].0.trim_start_matches("base_model.model.").trim_end_matches(".lora_A.weight").to_owned();
        let change = (pair[1].1.matmul(&pair[0].1) - before[1].matmul(&before[0])) * 2.0;
        let _ = tch::no_grad(|| weight(&merged, &format!("{path}.weight")).g_add_(&change));
    }
    assert!(largest(&logits(&merged, None), &trained) < 2e-5);
    assert!(largest(&logits(&model, None), &trained) > 1e-2);
}

#[test]
fn dora_with_dropout_follows_its_formula() {
    let model = tiny();
    let adapter = adapter(&model, &LoraSpec { use_dora: true, dropout: 0.4, ..lora(&["v_proj"]) });
    stir(&adapter);
    let Adapter::Lora(method) = &adapter else { panic!("{adapter:?}") };
    let (path, named) = ("model.layers.0.self_attn.v_proj", adapter.named_parameters());
    let part = |suffix: &str| find(&named, &format!("{path}.{suffix}"));
    let (a, b, m) = (part("lora_A.weight"), part("lora_B.weight"), part("lora_magnitude_vector"));
    let index = model.linear_modules().iter().position(|module| module.path == path).unwrap();
    let (w, bias) = (weight(&model, &format!("{path}.weight")), pseudo_random(&[32], 5));
    let linear = Linear { index, weight: Weight::Plain(w.shallow_clone()), bias: Some(bias.shallow_clone()) };
    let documents = Documents::pack(&[vec![1; 6], vec![2; 3]], Device::Cpu).unwrap();
    let x = pseudo_random(&[9, 64], 6);
    let keys = DropoutKeys { seed: 1, epoch: 0, lines: vec![4, 7] };
    let direction = &w + b.matmul(&a) * 2.0;
    let gain = &m / direction.square().sum_dim_intlist([1].as_slice(), false, Kind::Float).sqrt();

    let whole = x.matmul(&direction.tr()) * &gain + &bias;
    assert!(largest(&method.apply(&linear, &x, None).unwrap(), &whole) < 1e-5);
    let dropped = dropout(&x, 0.4, path, (&keys, &documents)).unwrap();
    let left = dropped.x * dropped.scale;
    let change = (&gain - 1.0) * left.matmul(&w.tr()) + &gain * left.matmul(&a.tr()).matmul(&b.tr()) * 2.0;
    let expected = x.matmul(&w.tr()) + &bias + change;
    assert!(largest(&method.apply(&linear, &x, Some((&keys, &documents))).unwrap(), &expected) < 1e-5);
    assert!(largest(&expected, &whole) > 1e-2);
}

#[test]
fn a_fresh_dora_changes_nothing_to_speak_of() {
    let model = tiny();
    let fresh = adapter(&model, &LoraSpec { use_dora: true, ..lora(&["q_proj", "up_proj"]) });
    assert!(largest(&logits(&model, Some(&fresh)), &logits(&model, None)) < 1e-5);
}

#[test]
fn lora_plus_moves_b_and_nothing_else_at_its_own_rate() {
    let model = tiny();
    let spec = OptimizerSpec::adamw(1e-3, 0.1, [0.9, 0.95], 1e-8, 1.0);
    let run = |ratio: f64, rate: f64| {
        let settings = LoraSpec { use_dora: true, loraplus_lr_ratio: ratio, ..lora(&["q_proj", "v_proj"]) };
        let trainable = fresh(&model, &TuningSpec::Adapter(AdapterSpec::Lora(settings))).unwrap();
        stir(trainable.adapter().unwrap());
        let optimizer = Optimizer::new(trainable.named_parameters(), &spec, 0).unwrap();
        let mut optimizer = optimizer.with_rate_ratios(|name| trainable.learning_rate_ratio(name));
        backward(&model, trainable.adapter());
        optimizer.step(rate).unwrap();
        trainable.named_parameters()
    };
    // One step of a tensor does not depend on the others, so each must be that of a plain run at its own rate.
    let (plus, slow, fast) = (run(16.0, 1e-3), run(1.0, 1e-3), run(1.0, 16e-3));
    for (((name, plus), (_, slow)), (_, fast)) in plus.iter().zip(&slow).zip(&fast) {
        let expected = if name.contains("lora_A") { slow } else { fast };
        assert!(plus.equal(expected), "{name}");
        assert!(!slow.equal(fast), "{name}");
    }
}

#[test]
fn trained_tokens_are_rows_of_the_embedding_and_of_a_tied_head() {
    for (name, tied) in [("llama", false), ("llama-tied-bias", true)] {
        let ids = vec![7, 9, 250];
        let base = model(name);
        let adapter = adapter(&base, &LoraSpec { trainable_token_indices: ids.clone(), ..lora(&["q_proj"]) });
        assert!(logits(&base, Some(&adapter)).equal(&logits(&base, None)));
        let named = adapter.named_parameters();
        let (key, mut rows) = named.last().map(|(key, rows)| (key.clone(), rows.shallow_clone())).unwrap();
        assert_eq!(key, "base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta");
        backward(&base, Some(&adapter));

        // The same rows of a model that is trained whole.
        let whole = model(name);
        whole.set_trainable(true);
        backward(&whole, None);
        let index = Tensor::from_slice(&ids.iter().map(|&id| i64::from(id)).collect::<Vec<_>>());
        let embedding = weight(&whole, "embed_tokens.weight");
        let expected = embedding.grad().index_select(0, &index);
        assert!(largest(&rows.grad(), &expected) < 1e-5 * expected.abs().max().double_value(&[]));
        // A token that is in no text still moves where the head is the embedding.
        assert_eq!(rows.grad().select(0, 2).abs().max().double_value(&[]) > 0.0, tied);

        let moved = pseudo_random(&rows.size(), 8);
        tch::no_grad(|| rows.copy_(&moved));
        let _ = tch::no_grad(|| embedding.shallow_clone().index_copy_(0, &index, &moved));
        assert!(largest(&logits(&base, Some(&adapter)), &logits(&whole, None)) < 1e-5);
        assert!(largest(&logits(&base, Some(&adapter)), &logits(&base, None)) > 1e-2);
    }
}

#[test]
fn an_embedding_that_is_trained_whole_leaves_a_tied_head_alone() {
    let base = model("llama-tied-bias");
    let modules_to_save = vec!["embed_tokens".to_owned()];
    let adapter = adapter(&base, &LoraSpec { modules_to_save, ..lora(&["q_proj"]) });
    let named = adapter.named_parameters();
    assert_eq!(named.last().unwrap().0, "base_model.model.model.embed_tokens.weight");
    assert!(logits(&base, Some(&adapter)).equal(&logits(&base, None)));
    let saved = named.last().unwrap().1.shallow_clone();
    let row = pseudo_random(&[1, saved.size()[1]], 8);
    tch::no_grad(|| saved.narrow(0, 7, 1).copy_(&row));
    // Token 7 is embedded anew, and its logit is still that of the old row for the same hidden state.
    let documents = Documents::pack(&texts(), Device::Cpu).unwrap();
    let hidden = tch::no_grad(|| base.hidden(&documents, Some(&adapter), &ForwardContext::default()).unwrap());
    assert!(base.logits(&hidden, Some(&adapter)).unwrap().equal(&base.logits(&hidden, None).unwrap()));
    assert!(largest(&logits(&base, Some(&adapter)), &logits(&base, None)) > 1e-3);
    assert!(!weight(&base, "embed_tokens.weight").narrow(0, 7, 1).equal(&row), "the base itself was changed");
}

#[test]
fn the_last_layers_get_the_gradients_that_full_training_gives_them() {
    let (whole, part) = (tiny(), tiny());
    let full = |model: &CausalLm, last_layers| fresh(model, &TuningSpec::Full { full: FullSpec { last_layers } });
    let all = full(&whole, None).unwrap().named_parameters();
    let last = full(&part, Some(2)).unwrap().named_parameters();
    assert_eq!(all.len(), whole.parameters().len());
    assert_eq!(last.len(), 2 * 9);
    backward(&whole, None);
    backward(&part, None);
    for (name, tensor) in &last {
        assert!(name.starts_with("model.layers.1.") || name.starts_with("model.layers.2."), "{name}");
        let expected = find(&all, name).grad();
        assert!(largest(&tensor.grad(), &expected) <= 1e-6 * expected.abs().max().double_value(&[]), "{name}");
    }
    let trained = part.parameters().iter().filter(|(_, tensor)| tensor.grad().defined()).count();
    assert_eq!(trained, last.len());
    for layers in [0, 4] {
        assert!(matches!(full(&part, Some(layers)), Err(ModelError::Setting { field: "full.last_layers", .. })));
    }
}

#[test]
fn answers_have_the_logits_of_the_training_forward_with_every_method() {
    let model = tiny();
    let names = |names: &[&str]| -> Vec<String> { names.iter().map(|&name| name.to_owned()).collect() };
    let feedforward_modules = names(&["down_proj"]);
    let kinds = [
        AdapterSpec::Lora(LoraSpec {
            use_dora: true,
            modules_to_save: names(&["lm_head"]),
            trainable_token_indices: vec![9, 200],
            ..lora(&["q_proj", "o_proj"])
        }),
        AdapterSpec::Ia3(Ia3Spec { target_modules: names(&["k_proj", "v_proj", "down_proj"]), feedforward_modules }),
        AdapterSpec::PromptTuning(PromptTuningSpec { num_virtual_tokens: 3, init: PromptInit::SampleVocab }),
        AdapterSpec::PrefixTuning(PrefixTuningSpec { num_virtual_tokens: 4 }),
    ];
    for spec in kinds {
        let adapter = Adapter::new(&model, &spec, 3).unwrap();
        stir(&adapter);
        let trace = crate::generate::trace_logits(&model, Some(&adapter), &texts(), 6).unwrap();
        for (prompt, (answer, found)) in texts().iter().zip(trace) {
            let text = [prompt.as_slice(), &answer].concat();
            let documents = Documents::pack(&[&text], Device::Cpu).unwrap();
            let all = tch::no_grad(|| {
                let hidden = model.hidden(&documents, Some(&adapter), &ForwardContext::default()).unwrap();
                model.logits(&hidden, Some(&adapter)).unwrap()
            });
            let expected = all.narrow(0, prompt.len() as i64 - 1, answer.len() as i64);
            let difference = largest(&found, &expected);
            assert!(difference < 2e-5, "{spec:?}: {difference}");
        }
        assert!(largest(&logits(&model, Some(&adapter)), &logits(&model, None)) > 1e-3, "{spec:?}");
    }
}

#[test]
fn a_fresh_prompt_is_drawn_from_its_seed() {
    let model = tiny();
    let bytes = |init, seed| {
        let spec = AdapterSpec::PromptTuning(PromptTuningSpec { num_virtual_tokens: 5, init });
        tensor_file::to_bytes(&Adapter::new(&model, &spec, seed).unwrap().named_parameters()).unwrap()
    };
    for init in [PromptInit::SampleVocab, PromptInit::Random] {
        assert_eq!(bytes(init, 1), bytes(init, 1));
        assert_ne!(bytes(init, 1), bytes(init, 2));
    }
    let spec = AdapterSpec::PromptTuning(PromptTuningSpec { num_virtual_tokens: 5, init: PromptInit::SampleVocab });
    let rows = find(&Adapter::new(&model, &spec, 1).unwrap().named_parameters(), "prompt_embeddings");
    let embedding = weight(&model, "embed_tokens.weight");
    let nearest =
        (rows.unsqueeze(1) - embedding.unsqueeze(0)).abs().sum_dim_intlist([2].as_slice(), false, Kind::Float);
    assert_eq!(nearest.amin([1].as_slice(), false).max().double_value(&[]), 0.0);
}

#[test]
fn making_an_adapter_tells_its_progress_and_can_be_stopped() {
    let model = tiny();
    let spec = TuningSpec::Adapter(AdapterSpec::Lora(LoraSpec { init: LoraInit::Pissa, ..lora(&["q_proj"]) }));
    let mut told = Vec::new();
    let stopped = Trainable::new(&model, &spec, 1, &mut |done, total| {
        told.push((done, total));
        if done == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert!(matches!(stopped, Err(ModelError::Stopped)));
    assert_eq!(told, [(0, 21), (1, 21), (2, 21)]);
}

#[test]
fn settings_that_a_model_cannot_meet_are_refused_by_name() {
    let model = tiny();
    let names = |name: &str| vec![name.to_owned()];
    let cases = [
        ("lora.layers_to_transform", LoraSpec { layers_to_transform: Some(vec![3]), ..lora(&["q_proj"]) }),
        ("lora.rank_pattern", LoraSpec { rank_pattern: [("v_proj".to_owned(), 2)].into(), ..lora(&["q_proj"]) }),
        ("lora.alpha_pattern", LoraSpec { alpha_pattern: [("v_proj".to_owned(), 2.0)].into(), ..lora(&["q_proj"]) }),
        ("lora.r", LoraSpec { rank_pattern: [("q_proj".to_owned(), 0)].into(), ..lora(&["q_proj"]) }),
        ("lora.r", LoraSpec { init: LoraInit::Pissa, r: 33, ..lora(&["k_proj"]) }),
        ("lora.init", LoraSpec { init: LoraInit::Pissa, use_dora: true, ..lora(&["k_proj"]) }),
        ("lora.modules_to_save", LoraSpec { modules_to_save: names("norm"), ..lora(&["k_proj"]) }),
        ("lora.trainable_token_indices", LoraSpec { trainable_token_indices: vec![256], ..lora(&["k_proj"]) }),
        (
            "lora.trainable_token_indices",
            LoraSpec { trainable_token_indices: vec![2], modules_to_save: names("embed_tokens"), ..lora(&["k_proj"]) },
        ),
    ];
    for (expected, spec) in cases {
        let error = Adapter::new(&model, &AdapterSpec::Lora(spec), 1).err().unwrap();
        assert!(matches!(error, ModelError::Setting { field, .. } if field == expected), "{expected}: {error}");
    }
    for spec in [
        AdapterSpec::Ia3(Ia3Spec { target_modules: names("fc"), feedforward_modules: vec![] }),
        AdapterSpec::Ia3(Ia3Spec { target_modules: names("k_proj"), feedforward_modules: names("v_proj") }),
        AdapterSpec::PromptTuning(PromptTuningSpec { num_virtual_tokens: 0, init: PromptInit::Random }),
        AdapterSpec::PrefixTuning(PrefixTuningSpec { num_virtual_tokens: 128 }),
    ] {
        let error = Adapter::new(&model, &spec, 1).err().unwrap();
        assert!(matches!(error, ModelError::Setting { .. }), "{error}");
    }
}
