//! Weights from a model's files into tensors.

use std::{
    collections::{BTreeSet, HashMap},
    ops::ControlFlow,
};

use finetuned_torch::{Device, Kind, Tensor, tensor_from_bytes};
use finetuned_weights::{CommonConfig, HostDtype, HostTensor, LinearSpec, ModelSource};

use crate::{error::ModelError, head::Head, linear::Linear, norm::Norm};

/// Hands out a model's tensors by name and keeps account of them. That they are all there in their shapes was checked
/// when the source was opened.
pub(crate) struct WeightsIn<'a> {
    source: &'a ModelSource,
    /// Where each linear layer stands in the list of those that can be adapted, by its path.
    linears: HashMap<String, (usize, LinearSpec)>,
    left: BTreeSet<String>,
    taken: Vec<(String, Tensor)>,
    device: Device,
    kind: Kind,
    progress: &'a mut dyn FnMut(u64, u64) -> ControlFlow<()>,
}

impl<'a> WeightsIn<'a> {
    pub fn new(
        source: &'a ModelSource,
        (kind, device): (Kind, Device),
        progress: &'a mut dyn FnMut(u64, u64) -> ControlFlow<()>,
    ) -> Self {
        let linears = source.config().linears().into_iter().enumerate();
        Self {
            source,
            linears: linears.map(|(index, linear)| (linear.path.clone(), (index, linear))).collect(),
            left: source.tensor_names().into_iter().collect(),
            taken: Vec::new(),
            device,
            kind,
            progress,
        }
    }

    pub fn device(&self) -> Device {
        self.device
    }

    /// A number in the weights' kind.
    pub fn scalar(&self, value: f64) -> Result<Tensor, ModelError> {
        Ok(Tensor::f_full([], value, (self.kind, self.device))?)
    }

    /// The tensor of a name.
    pub fn tensor(&mut self, name: &str) -> Result<Tensor, ModelError> {
        let tensor = on_device(&self.source.tensor(name)?)?.f_to_device(self.device)?.f_to_kind(self.kind)?;
        self.left.remove(name);
        self.taken.push((name.to_owned(), tensor.shallow_clone()));
        let done = self.taken.len() as u64;
        match (self.progress)(done, done + self.left.len() as u64) {
            ControlFlow::Continue(()) => Ok(tensor),
            ControlFlow::Break(()) => Err(ModelError::Stopped),
        }
    }

    /// As [`Self::tensor`], where the model has it.
    fn maybe(&mut self, name: &str) -> Result<Option<Tensor>, ModelError> {
        if self.left.contains(name) { self.tensor(name).map(Some) } else { Ok(None) }
    }

    /// The linear layer at a path, with its bias where it has one.
    pub fn linear(&mut self, path: &str) -> Result<Linear, ModelError> {
        let weight = self.tensor(&format!("{path}.weight"))?;
        let bias = self.maybe(&format!("{path}.bias"))?;
        match self.linears.get(path) {
            Some((index, linear)) => Ok(Linear { index: *index, weight, transposed: linear.transposed, bias }),
            None => Err(ModelError::Tensors { problems: vec![format!("`{path}` is no linear layer of this model")] }),
        }
    }

    /// The root mean square norm at a path.
    pub fn rms_norm(&mut self, path: &str, common: &CommonConfig) -> Result<Norm, ModelError> {
        Ok(Norm::Rms { weight: self.tensor(&format!("{path}.weight"))?, epsilon: common.norm_epsilon })
    }

    /// The same with a weight stored as its difference from one.
    pub fn rms_norm_from_one(&mut self, path: &str, common: &CommonConfig) -> Result<Norm, ModelError> {
        Ok(Norm::RmsFromOne { weight: self.tensor(&format!("{path}.weight"))?, epsilon: common.norm_epsilon })
    }

    /// The norm by mean and variance at a path.
    pub fn layer_norm(&mut self, path: &str, common: &CommonConfig) -> Result<Norm, ModelError> {
        let weight = self.tensor(&format!("{path}.weight"))?;
        Ok(Norm::Layer { weight, bias: self.tensor(&format!("{path}.bias"))?, epsilon: common.norm_epsilon })
    }

    /// The output head at a path, or the embedding where they are tied.
    pub fn head(&mut self, path: &str, common: &CommonConfig, embedding: &Tensor) -> Result<Head, ModelError> {
        let weight = match common.tie_word_embeddings {
            true => embedding.shallow_clone(),
            false => self.tensor(&format!("{path}.weight"))?,
        };
        Ok(Head { weight, soft_cap: None })
    }

    /// Every tensor taken, by name.
    ///
    /// # Errors
    /// Tensors that no part of the architecture asked for.
    pub fn finish(self) -> Result<Vec<(String, Tensor)>, ModelError> {
        if self.left.is_empty() {
            return Ok(self.taken);
        }
        let problems = self.left.iter().map(|name| format!("`{name}` belongs to no layer of this architecture"));
        Err(ModelError::Tensors { problems: problems.collect() })
    }
}

fn on_device(host: &HostTensor<'_>) -> Result<Tensor, ModelError> {
    let kind = match host.dtype {
        HostDtype::F32 => Kind::Float,
        HostDtype::F16 => Kind::Half,
        HostDtype::Bf16 => Kind::BFloat16,
    };
    Ok(tensor_from_bytes(&host.bytes, &host.shape, kind)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::path::Path;

    #[test]
    fn what_no_layer_asks_for_is_told() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/parity/llama/base");
        let source = ModelSource::open(&folder).unwrap();
        let mut progress = |_, _| ControlFlow::Continue(());
        let mut weights = WeightsIn::new(&source, (Kind::Float, Device::Cpu), &mut progress);
        assert_eq!(weights.tensor("lm_head.weight").unwrap().size(), [256, 64]);
        let linear = weights.linear("model.layers.1.self_attn.q_proj").unwrap();
        assert_eq!((linear.index, linear.bias.is_none(), linear.transposed), (7, true, false));
        assert!(weights.tensor("model.ghost.weight").is_err());
        assert!(weights.linear("model.norm").err().unwrap().to_string().contains("`model.norm` is no linear layer"));
        let error = weights.finish().err().unwrap().to_string();
        assert!(error.contains("`model.embed_tokens.weight` belongs to no layer"), "{error}");
        assert!(!error.contains("lm_head") && !error.contains("layers.1.self_attn.q_proj"), "{error}");
    }
}
