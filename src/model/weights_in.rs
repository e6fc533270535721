//! Weights from a model's files into tensors, with all that does not fit told at once.

use std::{collections::BTreeSet, ops::ControlFlow};

use finetuned_torch::{Device, Kind, Tensor, tensor_from_bytes};
use finetuned_weights::{HostDtype, HostTensor, ModelSource};

use crate::error::ModelError;

/// Buffers that some checkpoints carry and every implementation computes anew.
const IGNORED_SUFFIXES: [&str; 2] = ["rotary_emb.inv_freq", "attn.masked_bias"];

/// Hands out a model's tensors by name and keeps account of them.
pub(crate) struct WeightsIn<'a> {
    source: &'a ModelSource,
    left: BTreeSet<String>,
    device: Device,
    kind: Kind,
    problems: Vec<String>,
    total: u64,
    progress: &'a mut dyn FnMut(u64, u64) -> ControlFlow<()>,
}

impl<'a> WeightsIn<'a> {
    pub fn new(
        source: &'a ModelSource,
        (kind, device): (Kind, Device),
        progress: &'a mut dyn FnMut(u64, u64) -> ControlFlow<()>,
    ) -> Self {
        let left: BTreeSet<String> = source.tensor_names().into_iter().collect();
        let total = left.len() as u64;
        Self { source, left, device, kind, problems: Vec::new(), total, progress }
    }

    /// The tensor `name`, which must have `shape`. What is wrong is noted and told by [`Self::finish`]; until then an
    /// empty tensor stands in its place.
    pub fn take(&mut self, name: &str, shape: &[i64]) -> Result<Tensor, ModelError> {
        let empty = || Ok(Tensor::f_zeros([0], (self.kind, self.device))?);
        if !self.left.remove(name) {
            self.problems.push(format!("`{name}` is missing"));
            return empty();
        }
        let host = self.source.tensor(name)?;
        if !host.shape.iter().map(|&size| size as i64).eq(shape.iter().copied()) {
            self.problems.push(format!("`{name}` has shape {:?} and not {shape:?}", host.shape));
            return empty();
        }
        let tensor = on_device(&host)?.f_to_device(self.device)?.f_to_kind(self.kind)?;
        match (self.progress)(self.total - self.left.len() as u64, self.total) {
            ControlFlow::Continue(()) => Ok(tensor),
            ControlFlow::Break(()) => Err(ModelError::Stopped),
        }
    }

    /// As [`Self::take`], where the config says that the model has it.
    pub fn take_if(&mut self, wanted: bool, name: &str, shape: &[i64]) -> Result<Option<Tensor>, ModelError> {
        if wanted { self.take(name, shape).map(Some) } else { Ok(None) }
    }

    /// Leaves a tensor that the model may carry and does not need.
    pub fn ignore(&mut self, name: &str) {
        self.left.remove(name);
    }

    /// # Errors
    /// All missing, misshapen and unknown tensors.
    pub fn finish(mut self) -> Result<(), ModelError> {
        let unknown = self.left.iter().filter(|name| !IGNORED_SUFFIXES.iter().any(|suffix| name.ends_with(suffix)));
        self.problems.extend(unknown.map(|name| format!("`{name}` belongs to no layer of this architecture")));
        if self.problems.is_empty() { Ok(()) } else { Err(ModelError::Tensors { problems: self.problems }) }
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
    fn all_that_does_not_fit_is_told_at_once() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/parity/llama/base");
        let source = ModelSource::open(&folder).unwrap();
        let mut progress = |_, _| ControlFlow::Continue(());
        let mut weights = WeightsIn::new(&source, (Kind::Float, Device::Cpu), &mut progress);
        assert_eq!(weights.take("lm_head.weight", &[256, 64]).unwrap().size(), [256, 64]);
        let _ = weights.take("model.norm.weight", &[63]).unwrap();
        assert!(weights.take_if(false, "model.norm.bias", &[64]).unwrap().is_none());
        let _ = weights.take_if(true, "model.norm.bias", &[64]).unwrap();
        let error = weights.finish().err().unwrap().to_string();
        for part in [
            "`model.norm.weight` has shape [64] and not [63]",
            "`model.norm.bias` is missing",
            "`model.embed_tokens.weight` belongs to no layer",
        ] {
            assert!(error.contains(part), "{error}");
        }
    }
}
