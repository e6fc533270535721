//! Low-rank adapters (Hu et al. 2021) and their kin: rsLoRA, DoRA, PiSSA, LoRA+.

use std::sync::Arc;

use finetuned_protocol::tuning::{LoraInit, LoraSpec, names_module};
use finetuned_torch::{Device, Kind, Tensor, tch};
use finetuned_weights::GgufLora;

use crate::{
    adapter::{constant, trained},
    adapter_source::{AdapterSource, uniform},
    causal_lm::{CausalLm, ModulePath},
    context::DropoutKeys,
    documents::Documents,
    dropout::{Dropped, dropout},
    error::ModelError,
    linear::Linear,
    merge::MergedLinear,
    vocabulary::Vocabulary,
};

/// Two matrices for each adapted module, and vocabulary matrices trained whole where asked for.
#[derive(Debug)]
pub struct Lora {
    spec: LoraSpec,
    /// One place for each linear module of the model; empty where it is not adapted.
    modules: Vec<Option<LoraModule>>,
    vocabulary: Vocabulary,
}

/// What is trained of one module.
#[derive(Debug)]
struct LoraModule {
    /// Path of the module in the model.
    path: Arc<str>,
    /// `[r, in_features]`
    a: Tensor,
    /// `[out_features, r]`
    b: Tensor,
    /// `[out_features]`: DoRA's magnitude of each output.
    magnitude: Option<Tensor>,
    /// With PiSSA, what takes the starting point away again; shapes of A and B. See [`Self::factors`].
    anchor: Option<(Tensor, Tensor)>,
    scaling: f64,
}

impl Lora {
    pub(crate) fn build(model: &CausalLm, spec: &LoraSpec, source: &mut AdapterSource) -> Result<Self, ModelError> {
        check(spec, model)?;
        let mut modules = Vec::with_capacity(model.linear_modules().len());
        for (done, module) in model.linear_modules().iter().enumerate() {
            source.tell(done, model.linear_modules().len())?;
            modules.push(match spec.adapts(&module.path) {
                true => Some(LoraModule::build(model, spec, module, source)?),
                false => None,
            });
        }
        Ok(Self { spec: spec.clone(), modules, vocabulary: Vocabulary::build(model, spec, source)? })
    }

    pub(crate) fn spec(&self) -> &LoraSpec {
        &self.spec
    }

    pub(crate) fn vocabulary(&self) -> &Vocabulary {
        &self.vocabulary
    }

    pub(crate) fn named_parameters(&self) -> Vec<(String, Tensor)> {
        let modules = self.modules.iter().flatten().flat_map(|module| {
            let magnitude = module.magnitude.as_ref().map(|m| (magnitude_key(&module.path), m.shallow_clone()));
            [
                Some((a_key(&module.path), module.a.shallow_clone())),
                Some((b_key(&module.path), module.b.shallow_clone())),
                magnitude,
            ]
        });
        modules.flatten().chain(self.vocabulary.named_parameters()).collect()
    }

    pub(crate) fn named_constants(&self) -> Vec<(String, Tensor)> {
        let anchors = self.modules.iter().flatten().filter_map(|module| Some((module, module.anchor.as_ref()?)));
        anchors
            .flat_map(|(module, (a, b))| {
                [
                    (format!("{}.anchor", a_key(&module.path)), a.shallow_clone()),
                    (format!("{}.anchor", b_key(&module.path)), b.shallow_clone()),
                ]
            })
            .collect()
    }

    /// Every tensor of the exported adapter, whose settings are [`LoraSpec::exported`].
    pub(crate) fn exported(&self) -> Result<Vec<(String, Tensor)>, ModelError> {
        let _detached = tch::no_grad_guard();
        let mut tensors = self.named_parameters();
        for module in self.modules.iter().flatten() {
            let (a, b) = module.factors()?;
            for (key, whole) in [(a_key(&module.path), a), (b_key(&module.path), b)] {
                if let Some((_, tensor)) = tensors.iter_mut().find(|(name, _)| *name == key) {
                    *tensor = whole;
                }
            }
        }
        Ok(tensors)
    }

    /// Every adapted module as the adapter changes it.
    pub(crate) fn merged_linears(&self, model: &CausalLm) -> Result<Vec<MergedLinear>, ModelError> {
        let merged = |module: &LoraModule| {
            let weight = module.merged(&model.weight_of(&module.path)?.f_to_kind(Kind::Float)?)?;
            Ok(MergedLinear { path: module.path.to_string(), weight, bias_factor: None })
        };
        self.modules.iter().flatten().map(merged).collect()
    }

    /// A and B of every adapted module, on the host.
    pub(crate) fn as_gguf(&self) -> Result<Vec<GgufLora>, ModelError> {
        let host = |tensor: &Tensor| -> Result<Vec<f32>, ModelError> {
            Ok(Vec::try_from(&tensor.f_to_device(Device::Cpu)?.f_to_kind(Kind::Float)?.f_contiguous()?.f_view([-1])?)?)
        };
        let one = |module: &LoraModule| {
            let (a, b) = module.factors()?;
            let (path, rank) = (module.path.to_string(), a.size2()?.0 as usize);
            Ok(GgufLora { path, rank, a: host(&a)?, b: host(&b)?, scaling: module.scaling })
        };
        self.modules.iter().flatten().map(one).collect()
    }

    /// LoRA+ trains B faster than A; DoRA's magnitudes go with B, as peft has it.
    pub(crate) fn learning_rate_ratio(&self, name: &str) -> f64 {
        let fast = name.ends_with(".lora_B.weight") || name.ends_with(".lora_magnitude_vector");
        if fast { self.spec.loraplus_lr_ratio } else { 1.0 }
    }

    /// A, scaled, and B of the linear module with an index, where it is adapted without DoRA, in the type `kind`.
    pub(crate) fn stacked(&self, index: usize, kind: Kind) -> Result<Option<(Tensor, Tensor)>, ModelError> {
        let Some(module) = self.modules.get(index).and_then(Option::as_ref) else { return Ok(None) };
        if module.magnitude.is_some() {
            return Ok(None);
        }
        let (a, b) = module.factors()?;
        Ok(Some((a.f_mul_scalar(module.scaling)?.f_to_kind(kind)?, b.f_to_kind(kind)?)))
    }

    /// What `linear` gives for `x`, `[tokens, in_features]`: `x W^T + b`, plus `scaling * x A^T B^T` where the module is
    /// adapted; with DoRA, see [`LoraModule::dora`].
    pub(crate) fn apply(
        &self,
        linear: &Linear,
        x: &Tensor,
        keys: Option<(&DropoutKeys, &Documents)>,
    ) -> Result<Tensor, ModelError> {
        let Some(module) = self.modules.get(linear.index).and_then(Option::as_ref) else { return linear.plain(x) };
        let dropped = keys.map(|keys| dropout(x, self.spec.dropout, &module.path, keys)).transpose()?;
        if let Some(magnitude) = &module.magnitude {
            return module.dora(linear, magnitude, x, dropped);
        }
        let mut y = linear.plain(x)?; // [tokens, out_features]
        let (input, scale) = dropped.as_ref().map_or((x, 1.0), |dropped| (&dropped.x, dropped.scale));
        let (low, b) = module.low(input, scale)?;
        // Added in place: nothing else needs the base's own output.
        Ok(y.f_addmm_(&low, &b.f_tr()?)?)
    }
}

impl LoraModule {
    fn build(
        model: &CausalLm,
        spec: &LoraSpec,
        module: &ModulePath,
        source: &mut AdapterSource,
    ) -> Result<Self, ModelError> {
        let path: Arc<str> = module.path.as_str().into();
        let (rank, scaling) = (i64::from(spec.rank_of(&path)), spec.scaling_of(&path));
        let principal = match spec.init {
            LoraInit::Default => None,
            LoraInit::Pissa => Some(principal(&model.weight_of(&path)?, rank, scaling)?),
        };
        let (in_features, out_features) = (module.in_features, module.out_features);
        let a = source.take(&a_key(&path), &[rank, in_features], |key| match &principal {
            Some((a, _)) => Ok(a.shallow_clone()),
            None => {
                let key = key.with_name("lora_A").with_name(&path);
                uniform(key, [rank, in_features], 1.0 / (in_features as f64).sqrt())
            }
        })?;
        let b = source.take(&b_key(&path), &[out_features, rank], |_| match &principal {
            Some((_, b)) => Ok(b.shallow_clone()),
            None => Ok(Tensor::f_zeros([out_features, rank], (Kind::Float, Device::Cpu))?),
        })?;
        // B is zero at first, so the magnitude is that of the weight alone.
        let norm = |_| row_norms(&model.weight_of(&path)?);
        let magnitude = match spec.use_dora {
            true => Some(trained(&source.take(&magnitude_key(&path), &[out_features], norm)?, model)?),
            false => None,
        };
        let anchor = match principal {
            Some((a, b)) => Some((constant(&a, model)?, constant(&b.f_neg()?, model)?)),
            None => None,
        };
        Ok(Self { a: trained(&a, model)?, b: trained(&b, model)?, path, magnitude, anchor, scaling })
    }

    /// A and B as they act on the unchanged weight. With PiSSA that is `[A; A0]` and `[B, -B0]`: training starts at the
    /// weight's principal part `s B0 A0`, which the weight still holds and which is therefore taken away.
    fn factors(&self) -> Result<(Tensor, Tensor), ModelError> {
        Ok(match &self.anchor {
            None => (self.a.shallow_clone(), self.b.shallow_clone()),
            Some((a, b)) => (Tensor::f_cat(&[&self.a, a], 0)?, Tensor::f_cat(&[&self.b, b], 1)?),
        })
    }

    /// `W + s B A`, with DoRA each of its rows brought to its length; `weight` and the result are
    /// `[out_features, in_features]`, f32.
    fn merged(&self, weight: &Tensor) -> Result<Tensor, ModelError> {
        let (a, b) = self.factors()?;
        let changed = b.f_matmul(&a)?.f_mul_scalar(self.scaling)?.f_add(weight)?;
        match &self.magnitude {
            None => Ok(changed),
            Some(magnitude) => Ok(changed.f_mul(&magnitude.f_div(&self.lengths(weight)?)?.f_unsqueeze(1)?)?),
        }
    }

    /// `scaling * scale * x A^T`, `[tokens, r]`, and B, both in the type of `x`.
    fn low(&self, x: &Tensor, scale: f64) -> Result<(Tensor, Tensor), ModelError> {
        let kind = x.f_kind()?;
        let (a, b) = self.factors()?;
        let low = x.f_linear(&a.f_to_kind(kind)?, None::<&Tensor>)?.f_mul_scalar(self.scaling * scale)?;
        Ok((low, b.f_to_kind(kind)?))
    }

    /// DoRA (Liu et al. 2024): `W + s B A` with each of its rows brought to the length `magnitude`. The length that is
    /// divided by gets no gradient (their section 4.3). Under dropout the unscaled weight sees all of `x` and the change
    /// sees what is left, as in peft: `W x + b + (g - 1) W drop(x) + g s B A drop(x)` with `g = magnitude / length`.
    fn dora(
        &self,
        linear: &Linear,
        magnitude: &Tensor,
        x: &Tensor,
        dropped: Option<Dropped>,
    ) -> Result<Tensor, ModelError> {
        let gain = magnitude.f_div(&self.lengths(&linear.weight.matrix_f32()?)?)?.f_to_kind(x.f_kind()?)?; // [out_features]
        let Some(Dropped { x: left, scale }) = dropped else {
            let (low, b) = self.low(x, 1.0)?;
            let mut direction = linear.weight.linear(x, None)?;
            let y = direction.f_addmm_(&low, &b.f_tr()?)?.f_mul(&gain)?;
            return Ok(match &linear.bias {
                Some(bias) => y.f_add(bias)?,
                None => y,
            });
        };
        let (low, b) = self.low(&left, scale)?;
        let direct = linear.weight.linear(&left, None)?.f_mul_scalar(scale)?;
        let change = direct.f_mul(&gain.f_sub_scalar(1.0)?)?.f_add(&low.f_matmul(&b.f_tr()?)?.f_mul(&gain)?)?;
        Ok(linear.plain(x)?.f_add(&change)?)
    }

    /// Lengths of the rows of `W + s B A`, `[out_features]`, of a W in f32.
    fn lengths(&self, weight: &Tensor) -> Result<Tensor, ModelError> {
        let _detached = tch::no_grad_guard();
        let change = self.b.f_matmul(&self.a)?.f_mul_scalar(self.scaling)?;
        row_norms(&change.f_add(weight)?)
    }
}

fn row_norms(matrix: &Tensor) -> Result<Tensor, ModelError> {
    let _detached = tch::no_grad_guard();
    Ok(matrix.f_linalg_norm(2.0, [1_i64].as_slice(), false, None)?)
}

/// PiSSA's A0 and B0 (Meng et al. 2024): `s B0 A0` is the best approximation of `weight`, `[out_features, in_features]`,
/// f32, of this rank, its singular values shared evenly between the two.
fn principal(weight: &Tensor, rank: i64, scaling: f64) -> Result<(Tensor, Tensor), ModelError> {
    let _detached = tch::no_grad_guard();
    let (u, s, v) = weight.f_svd(true, true)?;
    let root = s.f_narrow(0, 0, rank)?.f_div_scalar(scaling)?.f_sqrt()?; // [rank]
    let a = v.f_narrow(1, 0, rank)?.f_mul(&root)?.f_tr()?;
    let b = u.f_narrow(1, 0, rank)?.f_mul(&root)?;
    Ok((a.f_contiguous()?, b.f_contiguous()?))
}

/// Key of a module's A matrix in peft's files.
fn a_key(path: &str) -> String {
    format!("base_model.model.{path}.lora_A.weight")
}

/// Key of a module's B matrix in peft's files.
fn b_key(path: &str) -> String {
    format!("base_model.model.{path}.lora_B.weight")
}

/// Key of a module's magnitudes in peft's files.
fn magnitude_key(path: &str) -> String {
    format!("base_model.model.{path}.lora_magnitude_vector")
}

fn check(spec: &LoraSpec, model: &CausalLm) -> Result<(), ModelError> {
    let refuse = |field, reason: String| Err(ModelError::Setting { field, reason });
    check_targets("lora.target_modules", &spec.target_modules, model)?;
    let layers = model.facts().layers;
    match spec.layers_to_transform.as_deref() {
        Some([]) => return refuse("lora.layers_to_transform", "is empty".to_owned()),
        Some(indices) if indices.iter().any(|&index| index >= layers) => {
            return refuse("lora.layers_to_transform", format!("must be below {layers}, the layers of this model"));
        }
        _ => {}
    }
    let adapted: Vec<&ModulePath> = model.linear_modules().iter().filter(|module| spec.adapts(&module.path)).collect();
    let stray = |key: &&String| !adapted.iter().any(|module| names_module(key, &module.path));
    if let Some(key) = spec.rank_pattern.keys().find(stray) {
        return refuse("lora.rank_pattern", format!("has `{key}`, which names no adapted module"));
    }
    if let Some(key) = spec.alpha_pattern.keys().find(stray) {
        return refuse("lora.alpha_pattern", format!("has `{key}`, which names no adapted module"));
    }
    for module in adapted {
        let rank = i64::from(spec.rank_of(&module.path));
        if rank == 0 {
            return refuse("lora.r", "must be at least 1".to_owned());
        }
        let most = module.in_features.min(module.out_features);
        if spec.init == LoraInit::Pissa && rank > most {
            return refuse("lora.r", format!("must be at most {most} for `{}`, which has no more ranks", module.path));
        }
    }
    if spec.init == LoraInit::Pissa && spec.use_dora {
        return refuse("lora.init", "`pissa` cannot be exported together with `use_dora`".to_owned());
    }
    Ok(())
}

/// Refuses names that no linear module of the model has.
pub(crate) fn check_targets(field: &'static str, targets: &[String], model: &CausalLm) -> Result<(), ModelError> {
    let mut names: Vec<&str> = model.linear_modules().iter().map(ModulePath::name).collect();
    names.sort_unstable();
    names.dedup();
    let is_any = |target: &String| model.linear_modules().iter().any(|module| module.is_called(target));
    match targets.iter().find(|target| !is_any(target)) {
        None if !targets.is_empty() => Ok(()),
        None => Err(ModelError::Setting { field, reason: "is empty".to_owned() }),
        Some(target) => {
            let reason = format!("names `{target}`; this model has {}", names.join(", "));
            Err(ModelError::Setting { field, reason })
        }
    }
}
