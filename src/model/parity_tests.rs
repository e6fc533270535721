//! Figures of transformers and peft on tiny random models, to the tolerances measured between correct implementations.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    collections::HashMap,
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use finetuned_protocol::spec::OptimizerSpec;
use finetuned_torch::{Device, Kind, Tensor, tch};
use finetuned_weights::ModelSource;
use serde_json::Value;

use crate::{
    AdamW, Adapter, CausalLm, Documents, ForwardContext, GenerateOptions, IGNORED_LABEL, Sampling, clip_gradients,
    generate, gradient_norm, supervised_loss, tensor_file,
};

const LOGITS: f64 = 2e-5;
const LOSS: f64 = 2e-5;
const FULL_NORM_RELATIVE: f64 = 5e-5;
const ADAPTER_NORM: f64 = 1e-5;
const LOGITS_AFTER_FULL: f64 = 3e-4;
const LOGITS_AFTER_ADAPTER: f64 = 1e-4;
const ADAPTER_TENSORS: f64 = 3e-4;

struct Case {
    folder: PathBuf,
    model: CausalLm,
    tensors: HashMap<String, Tensor>,
    figures: Value,
}

/// The rows of a padded batch without their padding.
struct Rows {
    documents: Documents,
    labels: Vec<i64>,
    mask: Tensor,
}

fn load(folder: &Path) -> CausalLm {
    finetuned_torch::set_threads(1).unwrap(); // the tests themselves run side by side
    let source = ModelSource::open(folder).unwrap();
    CausalLm::load(&source, Device::Cpu, Kind::Float, &mut |_, _| ControlFlow::Continue(())).unwrap()
}

impl Case {
    fn open(name: &str) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/parity").join(name);
        let figures = std::fs::read_to_string(folder.join("expected.json")).unwrap();
        Self {
            model: load(&folder.join("base")),
            tensors: tensor_file::load(&folder.join("expected.safetensors")).unwrap().into_iter().collect(),
            figures: serde_json::from_str(&figures).unwrap(),
            folder,
        }
    }

    fn rows(&self, ids: &str, mask: &str, labels: &str) -> Rows {
        let mask = self.tensors[mask].flatten(0, -1).to_kind(Kind::Bool);
        let real = |name: &str| Vec::<i64>::try_from(self.tensors[name].flatten(0, -1).masked_select(&mask)).unwrap();
        let padded = mask.reshape([self.tensors[ids].size()[0], -1]);
        let lengths = Vec::<i64>::try_from(padded.sum_dim_intlist([1].as_slice(), false, Kind::Int64)).unwrap();
        let mut ids = real(ids).into_iter().map(|id| id as u32);
        let documents: Vec<Vec<u32>> = lengths.iter().map(|&n| ids.by_ref().take(n as usize).collect()).collect();
        Rows { documents: Documents::pack(&documents, Device::Cpu).unwrap(), labels: real(labels), mask }
    }

    fn batch(&self) -> Rows {
        self.rows("input_ids", "attention_mask", "labels")
    }

    fn train_batch(&self, step: usize) -> Rows {
        self.rows(&format!("train_ids_{step}"), &format!("train_mask_{step}"), &format!("train_labels_{step}"))
    }

    fn adapter(&self) -> Adapter {
        Adapter::load(&self.model, &self.folder.join("adapter")).unwrap()
    }

    fn logits(&self, rows: &Rows, adapter: Option<&Adapter>) -> Tensor {
        tch::no_grad(|| {
            let hidden = self.model.hidden(&rows.documents, adapter, &ForwardContext::default()).unwrap();
            self.model.logits(&hidden, adapter).unwrap()
        })
    }

    fn assert_logits(&self, adapter: Option<&Adapter>, expected: &str, tolerance: f64) {
        let rows = self.batch();
        let found = self.logits(&rows, adapter);
        let index = rows.mask.nonzero().squeeze_dim(1);
        let expected = self.tensors[expected].flatten(0, 1).index_select(0, &index);
        let difference = (found - expected).abs().max().double_value(&[]);
        assert!(difference <= tolerance, "logits differ by {difference}");
    }

    fn loss(&self, rows: &Rows, adapter: Option<&Adapter>) -> Tensor {
        let parts =
            supervised_loss(&self.model, &rows.documents, &rows.labels, adapter, &ForwardContext::default()).unwrap();
        parts.loss_sum / parts.supervised as f64
    }

    /// Eight steps as the fixtures' README says; each step's loss and gradient norm are compared.
    fn train(&self, parameters: Vec<(String, Tensor)>, adapter: Option<&Adapter>, peak: f64, key: &str) {
        let spec = OptimizerSpec {
            learning_rate: peak,
            weight_decay: 0.01,
            betas: [0.9, 0.95],
            epsilon: 1e-8,
            max_grad_norm: 1.0,
        };
        let named = |found: &[(String, Tensor)]| -> Vec<(String, Tensor)> {
            found.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect()
        };
        let mut optimizer = AdamW::new(named(&parameters), &spec).unwrap();
        for step in 0..8 {
            let loss = self.loss(&self.train_batch(step), adapter);
            optimizer.zero_grad();
            loss.backward();
            let norm = gradient_norm(&parameters).unwrap();
            clip_gradients(&parameters, norm, spec.max_grad_norm).unwrap();
            optimizer.step(peak * 0.5 * (1.0 + (std::f64::consts::PI * step as f64 / 8.0).cos())).unwrap();
            let expected = |index: usize| self.figures[key][step][index].as_f64().unwrap();
            let difference = (loss.double_value(&[]) - expected(0)).abs();
            assert!(difference <= LOSS, "step {step}: the loss differs by {difference}");
            let difference = (norm - expected(1)).abs();
            let allowed = if adapter.is_some() { ADAPTER_NORM } else { FULL_NORM_RELATIVE * expected(1) };
            assert!(difference <= allowed, "step {step}: the norm differs by {difference}");
        }
    }
}

fn logits_of_base_and_adapter(name: &str) {
    let case = Case::open(name);
    case.assert_logits(None, "logits", LOGITS);
    case.assert_logits(Some(&case.adapter()), "logits_with_adapter", LOGITS);
}

fn loss_of_base_and_adapter(name: &str) {
    let case = Case::open(name);
    let rows = case.batch();
    let supervised = case.figures["tokens_with_loss"].as_i64().unwrap();
    for (adapter, key) in [(None, "loss"), (Some(case.adapter()), "loss_with_adapter")] {
        let loss = case.loss(&rows, adapter.as_ref()).double_value(&[]);
        let expected = case.figures[key].as_f64().unwrap();
        assert!((loss - expected).abs() <= LOSS, "{key}: {loss} and not {expected}");
    }
    assert!(rows.labels.iter().filter(|&&label| label != IGNORED_LABEL).count() as i64 >= supervised);
}

fn greedy_tokens(name: &str) {
    let case = Case::open(name);
    let ids = |key: &str| -> Vec<u32> {
        case.figures[key].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
    };
    let options = GenerateOptions { max_new_tokens: 16, eos_ids: vec![], sampling: Sampling::Greedy };
    let prompts = [ids("greedy_prompt"), vec![3, 9, 200, 41, 7], ids("greedy_prompt")];
    let answers = generate(&case.model, None, &prompts, &options, &mut |_| ControlFlow::Continue(())).unwrap();
    assert_eq!(answers[0].ids, ids("greedy_16"));
    assert_eq!(answers[2], answers[0]);
}

fn lora_training(name: &str) {
    let case = Case::open(name);
    let adapter = case.adapter();
    case.train(adapter.named_parameters(), Some(&adapter), 5e-3, "lora_train_loss_gradnorm");
    case.assert_logits(Some(&adapter), "logits_after_lora_train", LOGITS_AFTER_ADAPTER);

    let folder = tempfile::tempdir().unwrap();
    adapter.save(&case.model, folder.path(), "tiny").unwrap();
    let saved = tensor_file::load(&folder.path().join("adapter_model.safetensors")).unwrap();
    let expected = tensor_file::load(&case.folder.join("adapter_after_8_steps/adapter_model.safetensors")).unwrap();
    assert_eq!(saved.len(), expected.len());
    for ((name, tensor), (expected_name, expected)) in saved.iter().zip(&expected) {
        assert_eq!(name, expected_name);
        let difference = (tensor - expected).abs().max().double_value(&[]);
        assert!(difference <= ADAPTER_TENSORS, "{name} differs by {difference}");
    }
    let reloaded = Adapter::load(&case.model, folder.path()).unwrap();
    assert!(case.logits(&case.batch(), Some(&reloaded)).equal(&case.logits(&case.batch(), Some(&adapter))));
}

fn full_training(name: &str) {
    let case = Case::open(name);
    case.model.set_trainable(true);
    case.train(case.model.parameters(), None, 1e-3, "full_train_loss_gradnorm");
    case.assert_logits(None, "logits_after_full_train", LOGITS_AFTER_FULL);
}

fn hub_spelling(name: &str) {
    let case = Case::open(name);
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(case.folder.join("config_hub_style.json"), folder.path().join("config.json")).unwrap();
    std::fs::copy(case.folder.join("base/model.safetensors"), folder.path().join("model.safetensors")).unwrap();
    let other = Case { model: load(folder.path()), ..Case::open(name) };
    assert!(other.logits(&other.batch(), None).equal(&case.logits(&case.batch(), None)));
}

macro_rules! cases {
    ($($module:ident = $name:literal: $($check:ident),+;)+) => {
        $(mod $module {
            $(#[test] fn $check() { super::$check($name); })+
        })+
    };
}

cases! {
    llama = "llama":
        logits_of_base_and_adapter, loss_of_base_and_adapter, greedy_tokens, lora_training, full_training, hub_spelling;
    rope_linear = "llama-rope-linear":
        logits_of_base_and_adapter, loss_of_base_and_adapter, greedy_tokens, lora_training, full_training;
    rope_yarn = "llama-rope-yarn":
        logits_of_base_and_adapter, loss_of_base_and_adapter, greedy_tokens, lora_training, full_training, hub_spelling;
    tied_bias = "llama-tied-bias":
        logits_of_base_and_adapter, loss_of_base_and_adapter, greedy_tokens, lora_training, full_training;
    rope_llama3 = "llama3-rope":
        logits_of_base_and_adapter, loss_of_base_and_adapter, greedy_tokens, lora_training, full_training, hub_spelling;
}
