//! Adapters in peft's layout: `adapter_model.safetensors` and `adapter_config.json`.

use std::path::Path;

use finetuned_protocol::tuning::{AdapterSpec, Ia3Spec, LoraSpec};
use finetuned_torch::{Tensor, tch};
use finetuned_weights::adapter_config::AdapterConfig;

use crate::{
    adapter::Adapter,
    adapter_source::AdapterSource,
    causal_lm::{CausalLm, ModulePath},
    error::ModelError,
    tensor_file,
};

/// Name of the file that holds an adapter's tensors.
pub const ADAPTER_TENSORS_FILE: &str = "adapter_model.safetensors";
/// Name of the file that says how they are applied.
pub const ADAPTER_CONFIG_FILE: &str = "adapter_config.json";

impl Adapter {
    /// Writes the two files into a folder that exists. `base_model` is the base's public name.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn save(&self, model: &CausalLm, folder: &Path, base_model: &str) -> Result<(), ModelError> {
        tensor_file::save(&folder.join(ADAPTER_TENSORS_FILE), &self.exported()?)?;
        let base_model_name_or_path = Some(base_model.to_owned());
        let config = AdapterConfig { base_model_name_or_path, spec: told_to_peft(self.spec().exported(), model) };
        let path = folder.join(ADAPTER_CONFIG_FILE);
        std::fs::write(&path, config.to_json(model.traits())?).map_err(|source| ModelError::Io {
            doing: "writing",
            path,
            source,
        })
    }

    fn exported(&self) -> Result<Vec<(String, Tensor)>, ModelError> {
        match self {
            Self::Lora(lora) => lora.exported(),
            _ => Ok(self.named_parameters()),
        }
    }

    /// Reads the two files from a folder.
    ///
    /// # Errors
    /// Files that cannot be read, a config that asks for what is not implemented, or tensors that do not fit the model
    /// (all are listed).
    pub fn load(model: &CausalLm, folder: &Path) -> Result<Self, ModelError> {
        let path = folder.join(ADAPTER_CONFIG_FILE);
        let text = std::fs::read_to_string(&path).map_err(|source| ModelError::Io {
            doing: "reading",
            path: path.clone(),
            source,
        })?;
        Self::load_as(model, &AdapterConfig::parse(&text)?.spec, folder)
    }

    /// Reads the tensors of a checkpoint, which has no config of its own.
    ///
    /// # Errors
    /// A file that cannot be read, or tensors that do not fit (all are listed).
    pub fn load_checkpoint(model: &CausalLm, spec: &AdapterSpec, path: &Path) -> Result<Self, ModelError> {
        let mut tensors = tensor_file::load(path)?;
        let fresh = Self::new(model, spec, 0)?;
        // What it cannot go on without is made again from the base, and then set to what it was.
        for (name, mut constant) in fresh.named_constants() {
            let problem = |what: &str| ModelError::Adapter { problems: vec![format!("`{name}` {what}")] };
            let found = tensors.iter().position(|(other, _)| *other == name).ok_or_else(|| problem("is missing"))?;
            let (_, tensor) = tensors.swap_remove(found);
            if tensor.size() != constant.size() {
                return Err(problem("has another shape"));
            }
            constant.f_copy_(&tensor)?;
        }
        fresh.overwrite(tensors)
    }

    /// Takes every trained tensor from a file.
    fn overwrite(self, tensors: Vec<(String, Tensor)>) -> Result<Self, ModelError> {
        let mut source = AdapterSource::saved(tensors);
        for (name, mut parameter) in self.named_parameters() {
            let shape = parameter.size();
            let zeros = |_| Ok(parameter.f_zeros_like()?);
            let tensor = source.take(&name, &shape, zeros)?;
            tch::no_grad(|| parameter.f_copy_(&tensor))?;
        }
        source.finish()?;
        Ok(self)
    }

    /// Reads the tensors of an adapter whose settings are known.
    ///
    /// # Errors
    /// A file that cannot be read, or tensors that do not fit (all are listed).
    pub(crate) fn load_as(model: &CausalLm, spec: &AdapterSpec, folder: &Path) -> Result<Self, ModelError> {
        let mut source = AdapterSource::saved(tensor_file::load(&folder.join(ADAPTER_TENSORS_FILE))?);
        let adapter = Self::build(model, spec, &mut source)?;
        source.finish()?;
        Ok(adapter)
    }
}

/// Settings as peft has to be told them: with whole paths where the base has other modules of the same names.
fn told_to_peft(spec: AdapterSpec, model: &CausalLm) -> AdapterSpec {
    if !model.shares_names() {
        return spec;
    }
    let paths = |wanted: &dyn Fn(&ModulePath) -> bool| -> Vec<String> {
        model.linear_modules().iter().filter(|module| wanted(module)).map(|module| module.path.clone()).collect()
    };
    match spec {
        AdapterSpec::Lora(lora) => {
            let target_modules = paths(&|module| lora.adapts(&module.path));
            AdapterSpec::Lora(LoraSpec { target_modules, ..lora })
        }
        AdapterSpec::Ia3(Ia3Spec { target_modules, feedforward_modules }) => AdapterSpec::Ia3(Ia3Spec {
            target_modules: paths(&|module| module.is_one_of(&target_modules)),
            feedforward_modules: paths(&|module| module.is_one_of(&feedforward_modules)),
        }),
        prompt @ (AdapterSpec::PromptTuning(_) | AdapterSpec::PrefixTuning(_)) => prompt,
    }
}
