//! `finetuned-engine merge`: a model with its adapter put in, in the layout of Hugging Face or of llama.cpp.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;
use clap::{Args, ValueEnum};
use finetuned_model::{Adapter, CausalLm, tensor_file};
use finetuned_protocol::export::ExportFormat;
use finetuned_torch::{Device, Kind, Tensor};
use finetuned_weights::{
    GgufModel, GgufPrecision, MODEL_TENSORS_FILE, ModelConfig, ModelSource, TextTokenizer, WeightsError,
    write_gguf_lora, write_gguf_model,
};
use serde_json::{Map, Value};

use crate::{
    disk::{at, write_synced},
    error::EngineError,
    loaded::{Loaded, ModelArgs},
};

/// Type of a merged folder's weights.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Dtype {
    Float32,
    Bfloat16,
    Float16,
}

#[derive(Debug, Args)]
pub struct MergeArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// `merged`: a folder as transformers and vLLM read it; `gguf_f16`, `gguf_q8_0`: one file for llama.cpp; `gguf_lora`:
    /// the adapter alone as llama.cpp reads it beside a GGUF file of the base model.
    #[arg(long, default_value = "merged")]
    format: ExportFormat,
    /// Type of a merged folder's weights.
    #[arg(long, value_enum, default_value = "float32")]
    dtype: Dtype,
    /// Folder (`merged`) or file (the others) to write; it must not be there.
    #[arg(long)]
    out: PathBuf,
    /// Name of the model in GGUF files [default: the last part of --out].
    #[arg(long)]
    name: Option<String>,
}

/// Writes what is asked for. Without an adapter the model itself is written.
///
/// # Errors
/// A model or an adapter that cannot be loaded, merged or said in the format; or files that cannot be written.
pub fn merge(args: &MergeArgs) -> anyhow::Result<()> {
    anyhow::ensure!(!args.out.exists(), "{} is there already; give a new path", args.out.display());
    anyhow::ensure!(
        args.format != ExportFormat::GgufLora || args.model.adapter.is_some(),
        "--format gguf_lora needs --adapter"
    );
    let Loaded { source, model, adapter } = Loaded::open_as(&args.model, Some(Kind::Float))?;
    let stem = args.out.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let name = args.name.as_deref().unwrap_or(&stem);
    let tokenizer = match source.tokenizer() {
        Err(WeightsError::NoTokenizer { .. }) => None,
        read => Some(read?),
    };
    let (adapter, tokenizer) = (adapter.as_ref(), tokenizer.as_ref());
    let tuned = Tuned { name, source: &source, model: &model, adapter, tokenizer };
    let written = match args.format {
        ExportFormat::Merged => tuned.write_folder(args.dtype, &args.out),
        format => tuned.write_gguf(format, &args.out, &mut || Ok(())),
    };
    if written.is_err() {
        // Nothing half written stays; what cannot be removed is told with the error below.
        let _ = if args.out.is_dir() { fs::remove_dir_all(&args.out) } else { fs::remove_file(&args.out) };
    }
    written.with_context(|| format!("while writing {}", args.out.display()))
}

/// A model and perhaps its adapter, both in f32, as they are written.
pub struct Tuned<'a> {
    /// A name for people.
    pub name: &'a str,
    pub source: &'a ModelSource,
    pub model: &'a CausalLm,
    pub adapter: Option<&'a Adapter>,
    /// The one it was trained with; without one, a GGUF file reads and gives token ids only.
    pub tokenizer: Option<&'a TextTokenizer>,
}

/// The weights to write, and the config they belong to.
struct Merged {
    tensors: Vec<(String, Tensor)>,
    config: ModelConfig,
    head_untied: bool,
}

impl Tuned<'_> {
    fn merged(&self) -> Result<Merged, EngineError> {
        let mut config = self.source.config().clone();
        // Its other weights would be missing beside the config.
        if config.is_part_of_a_larger_model() {
            let family = config.family.name();
            return Err(unsupported(format!("of `{family}` would lack the other weights of the larger model")));
        }
        let (tensors, head_untied) = match self.adapter {
            Some(adapter) => {
                let merged = adapter.merged(self.model)?;
                (merged.tensors, merged.head_untied)
            }
            None => (self.model.parameters(), false),
        };
        config.common.tie_word_embeddings &= !head_untied;
        Ok(Merged { tensors, config, head_untied })
    }

    /// Writes weights and configs with the tokenizer beside them.
    fn write_folder(&self, dtype: Dtype, out: &Path) -> Result<(), EngineError> {
        fs::create_dir_all(out).map_err(at("making", out))?;
        self.write_merged(dtype, out, "")?;
        if let Some(tokenizer) = self.tokenizer {
            tokenizer.save(out)?;
        }
        Ok(())
    }

    /// Writes weights and configs into a folder, their names behind `prefix`.
    ///
    /// # Errors
    /// An adapter that is no change of weights, or the disk's.
    pub fn write_merged(&self, dtype: Dtype, folder: &Path, prefix: &str) -> Result<(), EngineError> {
        let Merged { tensors, head_untied, .. } = self.merged()?;
        let kind = dtype.kind();
        let converted = tensors.into_iter().map(|(name, tensor)| Ok((name, tensor.f_to_kind(kind)?)));
        let converted = converted.collect::<Result<Vec<_>, EngineError>>()?;
        tensor_file::save(&folder.join(format!("{prefix}{MODEL_TENSORS_FILE}")), &converted)?;
        for (name, text) in self.source.export_configs()? {
            let path = folder.join(name);
            let json = |source| EngineError::Json { path: path.clone(), source };
            let mut config: Map<String, Value> = serde_json::from_str(&text).map_err(json)?;
            if name == "config.json" {
                config.insert("dtype".to_owned(), dtype.name().into());
                if head_untied {
                    config.insert("tie_word_embeddings".to_owned(), false.into());
                }
            }
            write_synced(folder, &format!("{prefix}{name}"), &serde_json::to_vec_pretty(&config).map_err(json)?)?;
        }
        Ok(())
    }

    /// Writes one file for llama.cpp; `each_tensor` hears of every tensor and can break off.
    ///
    /// # Errors
    /// What llama.cpp does not have, by name; or the disk's.
    pub fn write_gguf(
        &self,
        format: ExportFormat,
        out: &Path,
        each_tensor: &mut dyn FnMut() -> Result<(), EngineError>,
    ) -> Result<(), EngineError> {
        let precision = match (format, self.adapter) {
            (ExportFormat::GgufLora, Some(adapter)) => {
                let (alpha, modules) = adapter.gguf_lora()?;
                return Ok(write_gguf_lora(out, (self.name, self.source.config()), alpha, &modules)?);
            }
            (ExportFormat::GgufF16, _) => GgufPrecision::F16,
            (ExportFormat::GgufQ8_0, _) => GgufPrecision::Q8_0,
            (ExportFormat::GgufLora | ExportFormat::Merged, _) => {
                return Err(unsupported(format!("`{format}` is no GGUF file of this")));
            }
        };
        let Merged { tensors, config, .. } = self.merged()?;
        let eos_ids = self.source.generation_eos_ids();
        let model = GgufModel { name: self.name, config: &config, tokenizer: self.tokenizer, eos_ids: &eos_ids };
        write_gguf_model(out, &model, precision, |wanted| -> Result<Vec<f32>, EngineError> {
            each_tensor()?;
            let Some((_, tensor)) = tensors.iter().find(|(name, _)| name == wanted) else {
                return Err(EngineError::Internal(format!("the model has no tensor `{wanted}`")));
            };
            let flat = tensor.f_to_device(Device::Cpu)?.f_to_kind(Kind::Float)?.f_contiguous()?.f_view([-1])?;
            Ok(Vec::try_from(&flat)?)
        })
    }
}

fn unsupported(reason: String) -> EngineError {
    EngineError::Model(finetuned_model::ModelError::Setting { field: "export", reason })
}

impl Dtype {
    fn kind(self) -> Kind {
        match self {
            Self::Float32 => Kind::Float,
            Self::Bfloat16 => Kind::BFloat16,
            Self::Float16 => Kind::Half,
        }
    }

    /// Its name in `config.json`.
    fn name(self) -> &'static str {
        match self {
            Self::Float32 => "float32",
            Self::Bfloat16 => "bfloat16",
            Self::Float16 => "float16",
        }
    }
}
