//! Figures of peft for each of its methods, on a tiny random model, to the tolerances measured between correct
//! implementations. The base model is that of `parity/llama`.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    collections::HashMap,
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use finetuned_protocol::optimization::OptimizerSpec;
use finetuned_torch::{Device, Kind, Tensor, tch};
use finetuned_weights::ModelSource;
use serde_json::Value;

use crate::{
    Adapter, CausalLm, Documents, ForwardContext, Optimizer, clip_gradients, gradient_norm, supervised_loss,
    tensor_file,
};

const LOGITS: f64 = 2e-5;
const LOSS: f64 = 2e-5;
const NORM: f64 = 1e-5;
const LOGITS_AFTER: f64 = 1e-4;
const TENSORS_AFTER: f64 = 3e-4;

const PEAK: f64 = 5e-3;
const STEPS: usize = 8;

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
    /// Rows of the flat batch that hold tokens.
    real: Tensor,
}

impl Case {
    fn open(name: &str) -> Self {
        finetuned_torch::set_threads(1).unwrap(); // the tests themselves run side by side
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures");
        let folder = fixtures.join("parity-peft").join(name);
        let figures = std::fs::read_to_string(folder.join("expected.json")).unwrap();
        let source = ModelSource::open(&fixtures.join("parity/llama/base")).unwrap();
        Self {
            model: CausalLm::load(&source, Device::Cpu, Kind::Float, &mut |_, _| ControlFlow::Continue(())).unwrap(),
            tensors: tensor_file::load(&folder.join("expected.safetensors")).unwrap().into_iter().collect(),
            figures: serde_json::from_str(&figures).unwrap(),
            folder,
        }
    }

    fn rows(&self, [ids, mask, labels]: [&str; 3]) -> Rows {
        let mask = self.tensors[mask].to_kind(Kind::Bool);
        let flat = mask.flatten(0, -1);
        let real = |name: &str| Vec::<i64>::try_from(self.tensors[name].flatten(0, -1).masked_select(&flat)).unwrap();
        let lengths = Vec::<i64>::try_from(mask.sum_dim_intlist([1].as_slice(), false, Kind::Int64)).unwrap();
        let mut tokens = real(ids).into_iter().map(|id| id as u32);
        let documents: Vec<Vec<u32>> = lengths.iter().map(|&n| tokens.by_ref().take(n as usize).collect()).collect();
        let documents = Documents::pack(&documents, Device::Cpu).unwrap();
        Rows { documents, labels: real(labels), real: flat.nonzero().squeeze_dim(1) }
    }

    fn logits(&self, adapter: &Adapter) -> (Rows, Tensor) {
        let rows = self.rows(["input_ids", "attention_mask", "labels"]);
        let logits = tch::no_grad(|| {
            let hidden = self.model.hidden(&rows.documents, Some(adapter), &ForwardContext::default()).unwrap();
            self.model.logits(&hidden, Some(adapter)).unwrap()
        });
        (rows, logits)
    }

    fn assert_logits(&self, adapter: &Adapter, expected: &str, tolerance: f64) {
        let difference = self.differences(adapter, expected).max().double_value(&[]);
        assert!(difference <= tolerance, "{:?}: logits differ by {difference}", self.folder);
    }

    /// `[rows, vocab]`
    fn differences(&self, adapter: &Adapter, expected: &str) -> Tensor {
        let (rows, found) = self.logits(adapter);
        (found - self.tensors[expected].flatten(0, 1).index_select(0, &rows.real)).abs()
    }

    fn assert_logits_after(&self, adapter: &Adapter, ill_conditioned: Option<i64>) {
        let differences = self.differences(adapter, "logits_after_lora_train");
        let tolerances = Tensor::full(differences.size()[1], LOGITS_AFTER, (Kind::Float, Device::Cpu));
        if let Some(column) = ill_conditioned {
            let _ = tolerances.narrow(0, column, 1).fill_(HEAD_COLUMN_LOGITS_AFTER);
        }
        let excess = (&differences - tolerances).max().double_value(&[]);
        assert!(excess <= 0.0, "{:?}: logits differ by {excess} too much after training", self.folder);
    }

    /// As the fixtures' README says; each step's loss and gradient norm are compared.
    fn train(&self, adapter: &Adapter) {
        let spec = OptimizerSpec::adamw(PEAK, 0.01, [0.9, 0.95], 1e-8, 1.0);
        let parameters = adapter.named_parameters();
        let mut optimizer = Optimizer::new(adapter.named_parameters(), &spec, 0).unwrap();
        for step in 0..STEPS {
            let names = ["ids", "mask", "labels"].map(|part| format!("train_{part}_{step}"));
            let rows = self.rows([&names[0], &names[1], &names[2]]);
            let context = ForwardContext::default();
            let parts = supervised_loss(&self.model, &rows.documents, &rows.labels, Some(adapter), &context).unwrap();
            let loss = parts.loss_sum / parts.supervised as f64;
            optimizer.zero_grad();
            loss.backward();
            let norm = gradient_norm(&parameters).unwrap();
            clip_gradients(&parameters, norm, spec.max_grad_norm).unwrap();
            optimizer.step(PEAK * 0.5 * (1.0 + (std::f64::consts::PI * step as f64 / STEPS as f64).cos())).unwrap();
            for (what, found, index, tolerance) in [("loss", loss.double_value(&[]), 0, LOSS), ("norm", norm, 1, NORM)]
            {
                let expected = self.figures["lora_train_loss_gradnorm"][step][index].as_f64().unwrap();
                let difference = (found - expected).abs();
                assert!(difference <= tolerance, "{:?}, step {step}: the {what} differs by {difference}", self.folder);
            }
        }
    }

    /// Saves the adapter, compares it with peft's key for key, and loads it back.
    fn assert_saved(&self, adapter: &Adapter) {
        let folder = tempfile::tempdir().unwrap();
        adapter.save(&self.model, folder.path(), "tiny").unwrap();
        let saved = tensor_file::load(&folder.path().join("adapter_model.safetensors")).unwrap();
        let expected = self.folder.join("adapter_after_8_steps/adapter_model.safetensors");
        let expected = tensor_file::load(&expected).unwrap();
        assert_eq!(saved.len(), expected.len());
        for ((name, tensor), (expected_name, expected)) in saved.iter().zip(&expected) {
            assert_eq!((name, tensor.size()), (expected_name, expected.size()));
            let difference = (tensor - expected).abs().max().double_value(&[]);
            assert!(difference <= TENSORS_AFTER, "{:?}: {name} differs by {difference}", self.folder);
        }
        let reloaded = Adapter::load(&self.model, folder.path()).unwrap();
        assert!(self.logits(&reloaded).1.equal(&self.logits(adapter).1), "{:?}: reloading changes it", self.folder);
    }
}

/// Token 155 of `lora-modules-to-save`: at the first step the gradient of element 55 of its row in the head is 5.4e-9 (in
/// f64; its summands are near 1e-4, so f32 leaves it two digits, and peft's figures came of 5.8e-9). AdamW's first update
/// is `rate * g / (|g| + 1e-8)`, which turns these digits into 9e-5 of weight and 2.8e-4 of logit between peft's figures
/// and exact arithmetic: peft's own repetition with another attention misses its stored logits of this token by 1.6e-4, in
/// f64 by 1.9e-4, those of all others by at most 7.4e-6 (`tests/python/conditioning.py`). The weight itself is held to the table's 3e-4 like every other.
const HEAD_COLUMN: i64 = 155;
const HEAD_COLUMN_LOGITS_AFTER: f64 = 3e-4;

fn equals_peft(name: &str, ill_conditioned: Option<i64>) {
    let case = Case::open(name);
    let adapter = Adapter::load(&case.model, &case.folder.join("adapter")).unwrap();
    case.assert_logits(&adapter, "logits_with_adapter", LOGITS);
    case.train(&adapter);
    case.assert_logits_after(&adapter, ill_conditioned);
    case.assert_saved(&adapter);
    let theirs = Adapter::load(&case.model, &case.folder.join("adapter_after_8_steps")).unwrap();
    case.assert_logits(&theirs, "logits_after_lora_train", LOGITS);
}

macro_rules! methods {
    ($($name:ident = $case:literal),+ $(,)?) => {
        $(#[test] fn $name() { equals_peft($case, None); })+
    };
}

methods! {
    rslora = "rslora",
    dora = "dora",
    rank_and_alpha_patterns = "lora-patterns",
    layers_to_transform = "lora-layers",
    ia3 = "ia3",
    prompt_tuning = "prompt",
    prefix_tuning = "prefix",
}

#[test]
fn modules_to_save() {
    equals_peft("lora-modules-to-save", Some(HEAD_COLUMN));
}
