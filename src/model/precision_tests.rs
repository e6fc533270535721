//! Models whose matrices are stored in few bits, against the same models with those matrices made dense.
#![allow(clippy::unwrap_used)]

use std::{collections::BTreeMap, ops::ControlFlow, path::PathBuf};

use finetuned_protocol::tuning::{AdapterSpec, FullSpec, LoraInit, LoraSpec, TuningSpec};
use finetuned_torch::{Device, FrozenFormat, FrozenMatrix, Kind, Tensor, tch};
use finetuned_weights::ModelSource;

use crate::{
    Adapter, CausalLm, Documents, DropoutKeys, ForwardContext, ModelError, Precision, Trainable, supervised_loss,
};

const FORMATS: [FrozenFormat; 3] = [FrozenFormat::Bf16, FrozenFormat::Int8, FrozenFormat::Nf4];

fn load(case: &str, precision: impl Into<Precision>) -> CausalLm {
    let folder: PathBuf = [env!("CARGO_MANIFEST_DIR"), "../../tests/fixtures/parity", case, "base"].iter().collect();
    let source = ModelSource::open(&folder).unwrap();
    CausalLm::load(&source, Device::Cpu, precision, &mut |_, _| ControlFlow::Continue(())).unwrap()
}

fn frozen(case: &str, format: FrozenFormat) -> CausalLm {
    load(case, Precision { compute: Kind::Float, frozen: Some(format) })
}

/// The f32 model with its matrices as they are after being stored in a format.
fn dense(case: &str, format: FrozenFormat) -> CausalLm {
    let (model, stored) = (load(case, Kind::Float), frozen(case, format));
    let kept: Vec<String> = stored.parameters().into_iter().map(|(name, _)| name).collect();
    let transposed = model.traits().fan_in_fan_out;
    let _detached = tch::no_grad_guard();
    for (name, mut weight) in model.parameters() {
        if kept.contains(&name) {
            continue;
        }
        let upright = if transposed { weight.tr() } else { weight.shallow_clone() };
        let rounded = FrozenMatrix::new(&upright, format).unwrap().matrix(Kind::Float).unwrap();
        weight.copy_(&if transposed { rounded.tr() } else { rounded });
    }
    model
}

fn lora() -> LoraSpec {
    LoraSpec { dropout: 0.1, ..LoraSpec::plain(4, 8.0, vec!["q_proj".to_owned(), "down_proj".to_owned()]) }
}

/// Loss and gradients of a batch with an adapter whose B is not zero.
fn lesson(model: &CausalLm, spec: &LoraSpec) -> (f64, BTreeMap<String, Tensor>) {
    let adapter = Adapter::new(model, &AdapterSpec::Lora(spec.clone()), 3).unwrap();
    for (name, mut tensor) in adapter.named_parameters() {
        if name.ends_with("lora_B.weight") {
            let _detached = tch::no_grad_guard();
            let count = tensor.numel() as i64;
            tensor.copy_(&(Tensor::arange(count, (Kind::Float, Device::Cpu)).sin() * 0.05).view_as(&tensor));
        }
    }
    let ids: Vec<Vec<u32>> =
        vec![(0..17).map(|i| (i * 37 + 5) % 250).collect(), (0..9).map(|i| i * 11 % 250).collect()];
    let labels: Vec<i64> = ids.iter().flatten().map(|&id| i64::from(id)).collect();
    let documents = Documents::pack(&ids, Device::Cpu).unwrap();
    let dropout = Some(DropoutKeys { seed: 1, epoch: 0, lines: vec![1, 2] });
    let context = ForwardContext { dropout, ..ForwardContext::default() };
    let parts = supervised_loss(model, &documents, &labels, Some(&adapter), &context).unwrap();
    parts.loss_sum.backward();
    let gradients = adapter.named_parameters().into_iter().map(|(name, tensor)| (name, tensor.grad().copy()));
    (parts.loss_sum.double_value(&[]), gradients.collect())
}

#[test]
fn gradients_are_those_on_the_dense_matrices() {
    for format in FORMATS {
        for spec in [lora(), LoraSpec { use_dora: true, ..lora() }, LoraSpec { init: LoraInit::Pissa, ..lora() }] {
            let (loss, gradients) = lesson(&frozen("llama", format), &spec);
            let (expected, wanted) = lesson(&dense("llama", format), &spec);
            assert_eq!(loss, expected, "{format:?}");
            assert_eq!(gradients.len(), wanted.len());
            for (name, gradient) in &gradients {
                assert!(gradient.equal(&wanted[name]), "{format:?}: {name}");
                assert!(gradient.abs().max().double_value(&[]) > 0.0, "{format:?}: {name}");
            }
            assert!(
                (lesson(&load("llama", Kind::Float), &spec).0 - expected).abs() > 1e-4,
                "{format:?} rounds nothing"
            );
        }
    }
}

#[test]
fn every_family_computes_as_with_dense_matrices() {
    let ids = vec![(0..12).map(|i| i * 19 % 250).collect::<Vec<u32>>()];
    let documents = Documents::pack(&ids, Device::Cpu).unwrap();
    let logits = |model: &CausalLm| {
        let hidden = model.hidden(&documents, None, &ForwardContext::default()).unwrap();
        model.logits(&hidden, None).unwrap()
    };
    // Biases; matrices the other way round; one matrix for several; experts.
    for case in ["qwen2", "gpt2", "gpt_neox", "phi3", "mixtral"] {
        let (stored, same) = (frozen(case, FrozenFormat::Nf4), dense(case, FrozenFormat::Nf4));
        let difference = (logits(&stored) - logits(&same)).abs().max().double_value(&[]);
        assert!(difference < 1e-5, "{case}: {difference}");
        let effect = (logits(&stored) - logits(&load(case, Kind::Float))).abs().max().double_value(&[]);
        assert!(effect > 1e-3, "{case}: {effect}");
    }
}

#[test]
fn weights_in_few_bits_are_not_trained_themselves() {
    let model = frozen("llama", FrozenFormat::Nf4);
    let spec = TuningSpec::Full { full: FullSpec { last_layers: None } };
    let refused = Trainable::new(&model, &spec, 0, &mut |_, _| ControlFlow::Continue(()));
    assert!(matches!(refused, Err(ModelError::Setting { field: "base_precision", .. })));
}
