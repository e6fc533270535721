//! LoRA as llama.cpp reads it beside a model.

use std::path::Path;

use super::{
    architecture::Architecture,
    encode::{Encoding, encode},
    file::{GgufWriter, Header},
};
use crate::{ModelConfig, error::WeightsError};

/// One adapted module.
pub struct GgufLora {
    /// Path of the module, such as `model.layers.0.self_attn.q_proj`.
    pub path: String,
    pub rank: usize,
    /// `[rank, in_features]`
    pub a: Vec<f32>,
    /// `[out_features, rank]`; together they change the weight by `scaling * B A`.
    pub b: Vec<f32>,
    pub scaling: f64,
}

/// Writes a GGUF file of `modules` beside a model of `config`. llama.cpp scales each module by `alpha / rank`; what its own
/// scaling is beyond that goes into B.
///
/// # Errors
/// As [`super::write_gguf_model`], or an `alpha` that is not above zero.
pub fn write_gguf_lora(
    path: &Path,
    (name, config): (&str, &ModelConfig),
    alpha: f64,
    modules: &[GgufLora],
) -> Result<(), WeightsError> {
    if !(alpha > 0.0 && alpha.is_finite()) {
        return Err(WeightsError::unsupported("GGUF export of `lora_alpha`", alpha.to_string(), "numbers above 0"));
    }
    let architecture = Architecture::of(config)?;
    let mut header = Header::new();
    header.text("general.architecture", architecture.name);
    header.text("general.type", "adapter");
    header.text("general.name", name);
    header.text("adapter.type", "lora");
    header.f32("adapter.lora.alpha", alpha as f32);
    let mut tensors = Vec::with_capacity(2 * modules.len());
    for module in modules {
        let weight = format!("{}.weight", module.path);
        let stored = architecture.tensor_name(&weight)?;
        let factor = (module.scaling * module.rank as f64 / alpha) as f32;
        let mut b: Vec<f32> = module.b.iter().map(|value| value * factor).collect();
        architecture.arrange(&weight, &mut b);
        let rank = module.rank.max(1);
        header.tensor(&format!("{stored}.lora_a"), &[rank, module.a.len() / rank], Encoding::F32)?;
        header.tensor(&format!("{stored}.lora_b"), &[b.len() / rank, rank], Encoding::F32)?;
        tensors.extend([encode(&weight, &module.a, Encoding::F32)?, encode(&weight, &b, Encoding::F32)?]);
    }
    let mut writer = GgufWriter::create(path, &header)?;
    for tensor in &tensors {
        writer.tensor(tensor)?;
    }
    writer.finish()
}
