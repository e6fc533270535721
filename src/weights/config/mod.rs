//! The one typed view of a model's config, from either spelling of `config.json` or from GGUF metadata.
//!
//! A new family is a variant of [`Family`] and a file under `family` that reads its fields and lists its tensors; from
//! these follow the checks of a model's files, what adapters may change, the facts and the planner's figures.

mod activation;
mod common;
pub mod family;
mod fields;
mod layout;
mod names;
mod neutral;
mod rope;
mod windows;

use serde_json::{Map, Value};

use crate::error::WeightsError;

pub use activation::Activation;
pub(crate) use activation::read as activation_of;
pub use common::CommonConfig;
pub use family::Family;
pub(crate) use fields::Fields;
pub use layout::{LinearSpec, TensorSpec};
pub(crate) use rope::yarn_attention_factor;
pub use rope::{RopeConfig, RopeScaling};
pub use windows::Window;

/// What the mathematics of a model depends on.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    pub common: CommonConfig,
    pub family: Family,
}

impl ModelConfig {
    /// Reads a `config.json`, in its older (`rope_theta`, `rope_scaling`, `torch_dtype`) or newer (`rope_parameters`,
    /// `dtype`) spelling.
    ///
    /// # Errors
    /// Text that is no JSON object, a family or a setting that is not implemented, or sizes that do not fit.
    pub fn from_json(text: &str) -> Result<Self, WeightsError> {
        let map: Map<String, Value> = serde_json::from_str(text)
            .map_err(|error| WeightsError::config("config.json", format!("cannot be read: {error}")))?;
        let fields = fields::Fields::new("", &map);
        let config = Family::read(&fields)?;
        config.common.check()?;
        Ok(config)
    }

    /// Every tensor of the model, with its shape. Tied embeddings are listed once.
    pub fn tensors(&self) -> Vec<TensorSpec> {
        self.family.layout(&self.common).tensors
    }

    /// Whether it is the language model of a larger one, whose other parts are left alone.
    pub fn is_part_of_a_larger_model(&self) -> bool {
        matches!(&self.family, Family::Gemma3(gemma3) if gemma3.beside_vision)
    }

    /// `model_type` of its `config.json`.
    pub fn model_type(&self) -> &'static str {
        if self.is_part_of_a_larger_model() { "gemma3" } else { self.family.name() }
    }

    /// Every linear layer that an adapter may change, in the order of the forward pass.
    pub fn linears(&self) -> Vec<LinearSpec> {
        self.family.layout(&self.common).linears
    }

    /// Matrices of one layer that each token goes through and no adapter changes.
    pub(crate) fn fixed_linears(&self) -> Vec<LinearSpec> {
        match &self.family {
            Family::Mixtral(mixtral) => mixtral.chosen_experts(&self.common),
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
mod config_tests;
#[cfg(test)]
mod family_tests;
