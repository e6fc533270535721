//! Models and adapters as llama.cpp reads them.
//!
//! Keys, names and the order of rows are those of llama.cpp's `convert_hf_to_gguf.py` and `convert_lora_to_gguf.py`.

mod adapter;
mod architecture;
mod encode;
mod file;
mod tokenizer;

use std::path::Path;

use crate::{ModelConfig, TextTokenizer, error::WeightsError};

pub use adapter::{GgufLora, write_gguf_lora};
use architecture::Architecture;
pub use encode::GgufPrecision;
use encode::{Encoding, encode};
use file::{GgufWriter, Header};

/// A model to be written.
pub struct GgufModel<'a> {
    /// A name for people, never a path.
    pub name: &'a str,
    pub config: &'a ModelConfig,
    /// None writes a model that reads and gives token ids only.
    pub tokenizer: Option<&'a TextTokenizer>,
    /// Ids that end an answer.
    pub eos_ids: &'a [u32],
}

/// Whether GGUF files of this model can be written, without writing one.
///
/// # Errors
/// As [`write_gguf_model`].
pub fn check_gguf_export(config: &ModelConfig, tokenizer: &TextTokenizer) -> Result<(), WeightsError> {
    Architecture::of(config)?;
    tokenizer::describe(&mut Header::new(), &GgufModel { name: "", config, tokenizer: Some(tokenizer), eos_ids: &[] })
}

/// Writes a GGUF file; `tensor` gives each tensor by its Hugging Face name, in f32 and row-major. Matrices are stored in
/// `precision`, vectors in f32. Whoever needs the file to outlive a crash syncs it.
///
/// # Errors
/// An architecture, a rotary scaling or a tokenizer that llama.cpp computes otherwise or not at all (by name), a file that
/// cannot be written, or `tensor`'s own.
pub fn write_gguf_model<E: From<WeightsError>>(
    path: &Path,
    model: &GgufModel,
    precision: GgufPrecision,
    mut tensor: impl FnMut(&str) -> Result<Vec<f32>, E>,
) -> Result<(), E> {
    let architecture = Architecture::of(model.config)?;
    let mut header = Header::new();
    header.text("general.architecture", architecture.name);
    header.text("general.type", "model");
    header.text("general.name", model.name);
    header.u32("general.file_type", precision.file_type());
    header.u32("general.quantization_version", 2);
    architecture.describe(&mut header);
    tokenizer::describe(&mut header, model)?;
    let specs = model.config.tensors();
    let factors = architecture.rope_divisors();
    if let Some(factors) = &factors {
        header.tensor("rope_freqs.weight", &[factors.len()], Encoding::F32)?;
    }
    for spec in &specs {
        let encoding = precision.of(&spec.shape);
        header.tensor(&architecture.tensor_name(&spec.name)?, &spec.shape, encoding)?;
    }
    let mut writer = GgufWriter::create(path, &header)?;
    if let Some(factors) = &factors {
        writer.tensor(&encode("rope_freqs.weight", factors, Encoding::F32)?)?;
    }
    for spec in &specs {
        let mut values = tensor(&spec.name)?;
        architecture.arrange(&spec.name, &mut values);
        writer.tensor(&encode(&spec.name, &values, precision.of(&spec.shape))?)?;
    }
    Ok(writer.finish()?)
}

#[cfg(test)]
mod export_tests;
