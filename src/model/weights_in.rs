//! Weights from a model's files into tensors.

use std::{
    collections::{BTreeSet, HashMap},
    ops::ControlFlow,
    rc::Rc,
};

use finetuned_torch::{Device, FrozenMatrix, Kind, Tensor, TorchError, tensor_from_bytes};
use finetuned_weights::{CommonConfig, HostDtype, HostTensor, LinearSpec, ModelSource};

use crate::{
    error::ModelError,
    head::Head,
    linear::Linear,
    norm::Norm,
    weight::{Precision, Weight},
};

/// Hands out a model's tensors by name and keeps account of them. That they are all there in their shapes was checked
/// when the source was opened.
pub(crate) struct WeightsIn<'a> {
    source: &'a ModelSource,
    /// Where each linear layer stands in the list of those that can be adapted, by its path.
    linears: HashMap<String, (usize, LinearSpec)>,
    left: BTreeSet<String>,
    taken: Taken,
    device: Device,
    precision: Precision,
    progress: &'a mut dyn FnMut(u64, u64) -> ControlFlow<()>,
}

/// What was handed out, by name.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    pub tensors: Vec<(String, Tensor)>,
    /// Matrices that are stored in few bits.
    pub frozen: Vec<(String, Rc<FrozenMatrix>)>,
}

impl<'a> WeightsIn<'a> {
    pub fn new(
        source: &'a ModelSource,
        (precision, device): (Precision, Device),
        progress: &'a mut dyn FnMut(u64, u64) -> ControlFlow<()>,
    ) -> Self {
        let linears = source.config().linears().into_iter().enumerate();
        Self {
            source,
            linears: linears.map(|(index, linear)| (linear.path.clone(), (index, linear))).collect(),
            left: source.tensor_names().into_iter().collect(),
            taken: Taken::default(),
            device,
            precision,
            progress,
        }
    }

    pub fn device(&self) -> Device {
        self.device
    }

    /// A number in the weights' kind.
    pub fn scalar(&self, value: f64) -> Result<Tensor, ModelError> {
        Ok(Tensor::f_full([], value, (self.precision.compute, self.device))?)
    }

    /// The tensor of a name.
    pub fn tensor(&mut self, name: &str) -> Result<Tensor, ModelError> {
        let tensor = on_device(&self.source.tensor(name)?)?.f_to_device(self.device)?;
        let tensor = tensor.f_to_kind(self.precision.compute)?;
        self.taken.tensors.push((name.to_owned(), tensor.shallow_clone()));
        self.tell(name)?;
        Ok(tensor)
    }

    /// The matrix of a name, `[out_features, in_features]` or the other way round in the file. One that is stored in few
    /// bits exists as a whole for no longer than that takes.
    pub fn matrix(&mut self, name: &str, transposed: bool) -> Result<Weight, ModelError> {
        let Some(format) = self.precision.frozen else {
            let tensor = self.tensor(name)?;
            return Ok(if transposed { Weight::Transposed(tensor) } else { Weight::Plain(tensor) });
        };
        let tensor = on_device(&self.source.tensor(name)?)?;
        let tensor = if transposed { tensor.f_tr()? } else { tensor };
        let frozen = FrozenMatrix::new(&tensor.f_to_device(self.device)?.f_to_kind(Kind::Float)?, format);
        let frozen = Rc::new(frozen.map_err(|source| match source {
            TorchError::NotFinite => ModelError::Tensors { problems: vec![format!("`{name}`: {source}")] },
            other => other.into(),
        })?);
        self.taken.frozen.push((name.to_owned(), Rc::clone(&frozen)));
        self.tell(name)?;
        Ok(Weight::Frozen(frozen))
    }

    /// Strikes a tensor off the list and tells how far the loading is.
    fn tell(&mut self, name: &str) -> Result<(), ModelError> {
        self.left.remove(name);
        let done = (self.taken.tensors.len() + self.taken.frozen.len()) as u64;
        match (self.progress)(done, done + self.left.len() as u64) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(ModelError::Stopped),
        }
    }

    /// As [`Self::tensor`], where the model has it.
    fn maybe(&mut self, name: &str) -> Result<Option<Tensor>, ModelError> {
        if self.left.contains(name) { self.tensor(name).map(Some) } else { Ok(None) }
    }

    /// The linear layer at a path, with its bias where it has one.
    pub fn linear(&mut self, path: &str) -> Result<Linear, ModelError> {
        let Some((index, linear)) = self.linears.get(path) else {
            return Err(ModelError::Tensors { problems: vec![format!("`{path}` is no linear layer of this model")] });
        };
        let (index, transposed) = (*index, linear.transposed);
        let weight = self.matrix(&format!("{path}.weight"), transposed)?;
        Ok(Linear { index, weight, bias: self.maybe(&format!("{path}.bias"))? })
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

    /// Everything taken.
    ///
    /// # Errors
    /// Tensors that no part of the architecture asked for.
    pub fn finish(self) -> Result<Taken, ModelError> {
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
        let mut weights = WeightsIn::new(&source, (Kind::Float.into(), Device::Cpu), &mut progress);
        assert_eq!(weights.tensor("lm_head.weight").unwrap().size(), [256, 64]);
        let linear = weights.linear("model.layers.1.self_attn.q_proj").unwrap();
        assert_eq!((linear.index, linear.bias.is_none()), (7, true));
        assert!(matches!(linear.weight, Weight::Plain(_)));
        assert!(weights.tensor("model.ghost.weight").is_err());
        assert!(weights.linear("model.norm").err().unwrap().to_string().contains("`model.norm` is no linear layer"));
        let error = weights.finish().err().unwrap().to_string();
        assert!(error.contains("`model.embed_tokens.weight` belongs to no layer"), "{error}");
        assert!(!error.contains("lm_head") && !error.contains("layers.1.self_attn.q_proj"), "{error}");
    }
}
