//! Low-rank adapters (Hu et al. 2021).

use std::sync::Arc;

use finetuned_protocol::spec::LoraSpec;
use finetuned_torch::{Device, Kind, Tensor};

use crate::{
    causal_lm::{CausalLm, ModulePath},
    error::ModelError,
    random::Key,
};

/// What of a base model peft has to be told.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BaseTraits {
    /// Whether linear weights are stored as `[in_features, out_features]`.
    pub fan_in_fan_out: bool,
    /// Whether modules that are not computed here, such as a vision tower's, are called as ours are.
    pub shares_names: bool,
}

/// The matrices that training changes, f32, and how they are applied.
#[derive(Debug)]
pub struct LoraAdapter {
    spec: LoraSpec,
    scaling: f64,
    base: BaseTraits,
    /// One place for each linear module of the model; empty where it is not adapted.
    pairs: Vec<Option<LoraPair>>,
}

/// The two matrices of one module.
#[derive(Debug)]
pub(crate) struct LoraPair {
    /// Path of the module in the model.
    pub path: Arc<str>,
    /// `[r, in_features]`
    pub a: Tensor,
    /// `[out_features, r]`
    pub b: Tensor,
}

impl LoraAdapter {
    /// A fresh adapter, without effect until it is trained: B is zero, and A uniform in `±1 / sqrt(in_features)` as
    /// peft has it (Kaiming uniform with slope √5), drawn from the seed and the tensor's name.
    ///
    /// # Errors
    /// A rank of zero, or a target that no module of the model is called.
    pub fn new(model: &CausalLm, spec: &LoraSpec, seed: u64) -> Result<Self, ModelError> {
        Self::build(model, spec, |module| {
            let path: Arc<str> = module.path.as_str().into();
            let a = initial_a(&path, i64::from(spec.r), module.in_features, seed)?;
            let b = Tensor::f_zeros([module.out_features, i64::from(spec.r)], (Kind::Float, Device::Cpu))?;
            Ok(LoraPair { path, a, b })
        })
    }

    /// Makes the pair of each targeted module by `make`, on the CPU; they are moved to the model's device and train.
    pub(crate) fn build(
        model: &CausalLm,
        spec: &LoraSpec,
        mut make: impl FnMut(&ModulePath) -> Result<LoraPair, ModelError>,
    ) -> Result<Self, ModelError> {
        check(spec, model.linear_modules())?;
        let mut pairs = Vec::with_capacity(model.linear_modules().len());
        for module in model.linear_modules() {
            if !spec.target_modules.iter().any(|target| module.is_called(target)) {
                pairs.push(None);
                continue;
            }
            let LoraPair { path, a, b } = make(module)?;
            let trained = |tensor: Tensor| tensor.f_to_device(model.device())?.f_set_requires_grad(true);
            pairs.push(Some(LoraPair { path, a: trained(a)?, b: trained(b)? }));
        }
        Ok(Self { spec: spec.clone(), scaling: spec.scaling(), base: model.traits(), pairs })
    }

    pub fn spec(&self) -> &LoraSpec {
        &self.spec
    }

    /// Every matrix under its key in peft's files, in the order of the layers. The tensors are the adapter's own: what
    /// is done to them in place is done to it.
    pub fn named_parameters(&self) -> Vec<(String, Tensor)> {
        let pairs = self.pairs.iter().flatten();
        pairs
            .flat_map(|pair| [(a_key(&pair.path), pair.a.shallow_clone()), (b_key(&pair.path), pair.b.shallow_clone())])
            .collect()
    }

    /// Numbers that training changes.
    pub fn trainable_parameters(&self) -> u64 {
        self.pairs.iter().flatten().map(|pair| (pair.a.numel() + pair.b.numel()) as u64).sum()
    }

    pub(crate) fn pair(&self, index: usize) -> Option<&LoraPair> {
        self.pairs.get(index)?.as_ref()
    }

    /// Its settings as peft has to be told them: with whole paths where the base has other modules of the same names.
    pub(crate) fn spec_for_peft(&self) -> LoraSpec {
        let paths = || self.pairs.iter().flatten().map(|pair| pair.path.to_string()).collect();
        match self.base.shares_names {
            true => LoraSpec { target_modules: paths(), ..self.spec.clone() },
            false => self.spec.clone(),
        }
    }

    pub(crate) fn base(&self) -> BaseTraits {
        self.base
    }

    pub(crate) fn scaling(&self) -> f64 {
        self.scaling
    }
}

/// Key of a module's A matrix in peft's files.
pub(crate) fn a_key(path: &str) -> String {
    format!("base_model.model.{path}.lora_A.weight")
}

/// Key of a module's B matrix in peft's files.
pub(crate) fn b_key(path: &str) -> String {
    format!("base_model.model.{path}.lora_B.weight")
}

fn check(spec: &LoraSpec, modules: &[ModulePath]) -> Result<(), ModelError> {
    if spec.r == 0 {
        return Err(ModelError::Setting { field: "lora.r", reason: "must be at least 1".to_owned() });
    }
    let mut names: Vec<&str> = modules.iter().map(ModulePath::name).collect();
    names.sort_unstable();
    names.dedup();
    let is_any = |target: &String| modules.iter().any(|module| module.is_called(target));
    match spec.target_modules.iter().find(|target| !is_any(target)) {
        None if !spec.target_modules.is_empty() => Ok(()),
        None => Err(ModelError::Setting { field: "lora.target_modules", reason: "is empty".to_owned() }),
        Some(target) => Err(ModelError::Setting {
            field: "lora.target_modules",
            reason: format!("names `{target}`; this model has {}", names.join(", ")),
        }),
    }
}

fn initial_a(path: &str, rank: i64, in_features: i64, seed: u64) -> Result<Tensor, ModelError> {
    let key = Key::new(seed).with_name("lora_A").with_name(path);
    let bound = 1.0 / (in_features as f64).sqrt();
    let values: Vec<f32> =
        (0..(rank * in_features) as u64).map(|index| ((2.0 * key.uniform(index) - 1.0) * bound) as f32).collect();
    Ok(Tensor::f_from_slice(&values)?.f_view([rank, in_features])?)
}
