//! (IA)³ (Liu et al. 2022): activations scaled by learned vectors.

use std::sync::Arc;

use finetuned_protocol::tuning::Ia3Spec;
use finetuned_torch::{Device, Kind, Tensor};

use crate::{
    adapter::trained, adapter_source::AdapterSource, causal_lm::CausalLm, error::ModelError, linear::Linear,
    lora::check_targets, merge::MergedLinear,
};

/// One vector for each scaled module.
#[derive(Debug)]
pub struct Ia3 {
    spec: Ia3Spec,
    /// One place for each linear module of the model; empty where it is not scaled.
    modules: Vec<Option<Factors>>,
}

#[derive(Debug)]
struct Factors {
    path: Arc<str>,
    place: Place,
    /// `[1, in_features]` or `[out_features, 1]`.
    l: Tensor,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Inputs,
    Outputs,
}

impl Ia3 {
    pub(crate) fn build(model: &CausalLm, spec: &Ia3Spec, source: &mut AdapterSource) -> Result<Self, ModelError> {
        check_targets("ia3.target_modules", &spec.target_modules, model)?;
        if let Some(name) = spec.feedforward_modules.iter().find(|name| !spec.target_modules.contains(name)) {
            let reason = format!("names `{name}`, which is no target module");
            return Err(ModelError::Setting { field: "ia3.feedforward_modules", reason });
        }
        let mut modules = Vec::with_capacity(model.linear_modules().len());
        for module in model.linear_modules() {
            if !module.is_one_of(&spec.target_modules) {
                modules.push(None);
                continue;
            }
            let (place, shape) = match module.is_one_of(&spec.feedforward_modules) {
                true => (Place::Inputs, [1, module.in_features]),
                false => (Place::Outputs, [module.out_features, 1]),
            };
            let ones = |_| Ok(Tensor::f_ones(shape, (Kind::Float, Device::Cpu))?);
            let l = trained(&source.take(&l_key(&module.path), &shape, ones)?, model)?;
            modules.push(Some(Factors { path: module.path.as_str().into(), place, l }));
        }
        Ok(Self { spec: spec.clone(), modules })
    }

    pub(crate) fn spec(&self) -> &Ia3Spec {
        &self.spec
    }

    pub(crate) fn named_parameters(&self) -> Vec<(String, Tensor)> {
        self.modules.iter().flatten().map(|factors| (l_key(&factors.path), factors.l.shallow_clone())).collect()
    }

    /// Every scaled module with the vector in its weight, and in its bias where the outputs are scaled.
    pub(crate) fn merged_linears(&self, model: &CausalLm) -> Result<Vec<MergedLinear>, ModelError> {
        let merged = |factors: &Factors| {
            // The vector's shape says which side it scales.
            let weight = model.weight_of(&factors.path)?.f_to_kind(Kind::Float)?.f_mul(&factors.l)?;
            let bias_factor = match factors.place {
                Place::Inputs => None,
                Place::Outputs => Some(factors.l.f_view([-1])?),
            };
            Ok(MergedLinear { path: factors.path.to_string(), weight, bias_factor })
        };
        self.modules.iter().flatten().map(merged).collect()
    }

    /// What `linear` gives for `x`, `[tokens, in_features]`: `W (l * x) + b`, or `l * (W x + b)`.
    pub(crate) fn apply(&self, linear: &Linear, x: &Tensor) -> Result<Tensor, ModelError> {
        let Some(Factors { place, l, .. }) = self.modules.get(linear.index).and_then(Option::as_ref) else {
            return linear.plain(x);
        };
        let l = l.f_view([1, -1])?.f_to_kind(x.f_kind()?)?;
        match place {
            Place::Inputs => linear.plain(&x.f_mul(&l)?),
            Place::Outputs => Ok(linear.plain(x)?.f_mul(&l)?),
        }
    }
}

/// Key of a module's vector in peft's files.
fn l_key(path: &str) -> String {
    format!("base_model.model.{path}.ia3_l")
}
