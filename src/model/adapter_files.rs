//! Adapters in peft's layout: `adapter_model.safetensors` and `adapter_config.json`.

use std::{collections::BTreeMap, path::Path};

use finetuned_torch::{Kind, Tensor};
use finetuned_weights::adapter_config::AdapterConfig;

use crate::{
    adapter::{LoraAdapter, LoraPair, a_key, b_key},
    causal_lm::CausalLm,
    error::ModelError,
    tensor_file,
};

/// Name of the file that holds an adapter's matrices.
pub const ADAPTER_TENSORS_FILE: &str = "adapter_model.safetensors";
/// Name of the file that says how they are applied.
pub const ADAPTER_CONFIG_FILE: &str = "adapter_config.json";

impl LoraAdapter {
    /// Writes the two files into a folder that exists, and gives their names. `base_model` is the base's public name.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn save(&self, folder: &Path, base_model: &str) -> Result<Vec<String>, ModelError> {
        tensor_file::save(&folder.join(ADAPTER_TENSORS_FILE), &self.named_parameters())?;
        let path = folder.join(ADAPTER_CONFIG_FILE);
        let config = AdapterConfig::new(&self.spec_for_peft(), base_model, self.base().fan_in_fan_out).to_json()?;
        std::fs::write(&path, config).map_err(|source| ModelError::Io { doing: "writing", path, source })?;
        Ok(vec![ADAPTER_TENSORS_FILE.to_owned(), ADAPTER_CONFIG_FILE.to_owned()])
    }

    /// Reads the two files from a folder.
    ///
    /// # Errors
    /// Files that cannot be read, a config that asks for what is not implemented, or matrices that do not fit the model
    /// (all are listed).
    pub fn load(model: &CausalLm, folder: &Path) -> Result<Self, ModelError> {
        let path = folder.join(ADAPTER_CONFIG_FILE);
        let text = std::fs::read_to_string(&path).map_err(|source| ModelError::Io {
            doing: "reading",
            path: path.clone(),
            source,
        })?;
        let spec = AdapterConfig::parse(&text)?.lora_spec();
        let mut found: BTreeMap<String, Tensor> =
            tensor_file::load(&folder.join(ADAPTER_TENSORS_FILE))?.into_iter().collect();
        let mut problems = Vec::new();
        let rank = i64::from(spec.r);
        let adapter = Self::build(model, &spec, |module| {
            let mut take = |key: String, shape: [i64; 2]| match found.remove(&key) {
                Some(tensor) if tensor.size() == shape => Ok(tensor.f_to_kind(Kind::Float)?),
                Some(tensor) => {
                    problems.push(format!("`{key}` has shape {:?} and not {shape:?}", tensor.size()));
                    Tensor::f_zeros(shape, (Kind::Float, finetuned_torch::Device::Cpu))
                }
                None => {
                    problems.push(format!("`{key}` is missing"));
                    Tensor::f_zeros(shape, (Kind::Float, finetuned_torch::Device::Cpu))
                }
            };
            let a = take(a_key(&module.path), [rank, module.in_features])?;
            let b = take(b_key(&module.path), [module.out_features, rank])?;
            Ok(LoraPair { path: module.path.as_str().into(), a, b })
        })?;
        problems.extend(found.keys().map(|key| format!("`{key}` belongs to no adapted module of this model")));
        if problems.is_empty() { Ok(adapter) } else { Err(ModelError::Adapter { problems }) }
    }
}
