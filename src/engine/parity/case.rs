//! A reference case: a model, an adapter and what others computed with them.

use std::{
    collections::HashMap,
    fs,
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use anyhow::Context;
use finetuned_model::{Adapter, CausalLm, Documents, ForwardContext, supervised_loss, tensor_file};
use finetuned_torch::{Device, Kind, Tensor};
use finetuned_weights::ModelSource;
use serde::Deserialize;

/// Name of the file with the figures of a case.
pub const FIGURES: &str = "expected.json";
const TENSORS: &str = "expected.safetensors";

/// What the reference came to.
#[derive(Debug, Deserialize)]
pub struct Figures {
    /// Mean cross-entropy over the labels, in nats.
    pub loss: f64,
    pub loss_with_adapter: f64,
    pub greedy_prompt: Vec<u32>,
    pub greedy_16: Vec<u32>,
    /// Loss and gradient norm before clipping of each step.
    pub full_train_loss_gradnorm: Vec<[f64; 2]>,
    pub lora_train_loss_gradnorm: Vec<[f64; 2]>,
}

pub struct Case {
    pub folder: PathBuf,
    pub model: CausalLm,
    pub figures: Figures,
    tensors: HashMap<String, Tensor>,
}

/// The rows of a padded batch without their padding.
pub struct Rows {
    documents: Documents,
    labels: Vec<i64>,
    /// Index of each token in the padded batch, `[tokens]`.
    places: Tensor,
    /// Rows and columns of the padded batch.
    padded: [i64; 2],
}

impl Case {
    /// # Errors
    /// Files that are missing or not what they should be.
    pub fn open(folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join(FIGURES);
        let text = fs::read(&path).with_context(|| format!("while reading {}", path.display()))?;
        Ok(Self {
            model: load_model(&folder.join("base"))?,
            figures: serde_json::from_slice(&text).with_context(|| format!("while reading {}", path.display()))?,
            tensors: tensor_file::load(&folder.join(TENSORS))?.into_iter().collect(),
            folder: folder.to_owned(),
        })
    }

    /// The adapter to start from.
    ///
    /// # Errors
    /// An adapter that does not fit.
    pub fn adapter(&self) -> anyhow::Result<Adapter> {
        Ok(Adapter::load(&self.model, &self.folder.join("adapter"))?)
    }

    /// The batch that logits and losses are given for.
    ///
    /// # Errors
    /// Tensors that are missing or make no batch.
    pub fn batch(&self) -> anyhow::Result<Rows> {
        self.rows(["input_ids", "attention_mask", "labels"])
    }

    /// The batch of a training step.
    ///
    /// # Errors
    /// As [`Self::batch`].
    pub fn train_batch(&self, step: usize) -> anyhow::Result<Rows> {
        let names = ["ids", "mask", "labels"].map(|name| format!("train_{name}_{step}"));
        self.rows([&names[0], &names[1], &names[2]])
    }

    /// Logits of each token of a batch, `[tokens, vocab]`.
    ///
    /// # Errors
    /// The model's.
    pub fn logits(&self, rows: &Rows, adapter: Option<&Adapter>) -> anyhow::Result<Tensor> {
        let _detached = tch::no_grad_guard();
        let hidden = self.model.hidden(&rows.documents, adapter, &ForwardContext::default())?;
        Ok(self.model.logits(&hidden, adapter)?)
    }

    /// Logits that the reference has for each token of a batch, `[tokens, vocab]`.
    ///
    /// # Errors
    /// A tensor that is missing.
    pub fn expected_logits(&self, name: &str, rows: &Rows) -> anyhow::Result<Tensor> {
        Ok(self.tensor(name)?.f_flatten(0, 1)?.f_index_select(0, &rows.places)?)
    }

    /// Mean cross-entropy of a batch, a scalar with gradients.
    ///
    /// # Errors
    /// The model's.
    pub fn loss(&self, rows: &Rows, adapter: Option<&Adapter>) -> anyhow::Result<Tensor> {
        let context = ForwardContext::default();
        let parts = supervised_loss(&self.model, &rows.documents, &rows.labels, adapter, &context)?;
        Ok(parts.loss_sum.f_div_scalar(parts.supervised as f64)?)
    }

    fn rows(&self, [ids, mask, labels]: [&str; 3]) -> anyhow::Result<Rows> {
        let mask = self.tensor(mask)?.f_to_kind(Kind::Bool)?;
        let (rows, columns) = mask.size2()?;
        let lengths = Vec::<i64>::try_from(mask.f_sum_dim_intlist([1].as_slice(), false, Kind::Int64)?)?;
        let real =
            |name: &str| -> anyhow::Result<Vec<i64>> { Ok(Vec::try_from(self.tensor(name)?.f_masked_select(&mask)?)?) };
        let mut ids = real(ids)?.into_iter().map(|id| id as u32);
        let documents: Vec<Vec<u32>> = lengths.iter().map(|&n| ids.by_ref().take(n as usize).collect()).collect();
        Ok(Rows {
            documents: Documents::pack(&documents, Device::Cpu)?.padded_to(columns)?,
            labels: real(labels)?,
            places: mask.f_flatten(0, -1)?.f_nonzero()?.f_squeeze_dim(1)?,
            padded: [rows, columns],
        })
    }

    fn tensor(&self, name: &str) -> anyhow::Result<&Tensor> {
        self.tensors.get(name).with_context(|| format!("{TENSORS} has no tensor `{name}`"))
    }
}

impl Rows {
    pub fn documents(&self) -> &Documents {
        &self.documents
    }

    /// Logits of its tokens in the layout of the padded batch, `[rows, columns, vocab]`, zero where there is padding.
    ///
    /// # Errors
    /// Too little memory.
    pub fn pad(&self, logits: &Tensor) -> anyhow::Result<Tensor> {
        let [rows, columns] = self.padded;
        let vocabulary = logits.size2()?.1;
        let mut padded = Tensor::f_zeros([rows * columns, vocabulary], (Kind::Float, Device::Cpu))?;
        let _ = padded.f_index_copy_(0, &self.places, logits)?;
        Ok(padded.f_view([rows, columns, vocabulary])?)
    }
}

/// A model in f32 on the CPU.
///
/// # Errors
/// Files that cannot be loaded.
pub fn load_model(folder: &Path) -> anyhow::Result<CausalLm> {
    let source = ModelSource::open(folder)?;
    Ok(CausalLm::load(&source, Device::Cpu, Kind::Float, &mut |_, _| ControlFlow::Continue(()))?)
}
