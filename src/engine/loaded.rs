//! A model, and perhaps an adapter, as the commands for use by hand load them.

use std::{ops::ControlFlow, path::PathBuf};

use clap::{Args, ValueEnum};
use finetuned_model::{Adapter, CausalLm};
use finetuned_torch::{DeviceRequest, Kind};
use finetuned_weights::ModelSource;

use crate::setup::frozen_kind;

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum DeviceName {
    Auto,
    Cpu,
    Cuda,
}

#[derive(Debug, Args)]
pub struct ModelArgs {
    /// Base model: a Hugging Face folder or a GGUF file.
    #[arg(long)]
    pub model: PathBuf,
    /// Adapter in peft's layout.
    #[arg(long)]
    pub adapter: Option<PathBuf>,
    /// Where to compute.
    #[arg(long, value_enum, default_value = "auto")]
    pub device: DeviceName,
    /// Threads for computing on the CPU.
    #[arg(long, default_value_t = default_threads())]
    pub threads: usize,
}

fn default_threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// A model in memory.
pub struct Loaded {
    pub source: ModelSource,
    pub model: CausalLm,
    pub adapter: Option<Adapter>,
}

impl Loaded {
    /// # Errors
    /// Files that cannot be loaded, or a device that is not there.
    pub fn open(args: &ModelArgs) -> anyhow::Result<Self> {
        Self::open_as(args, None)
    }

    /// With weights of a certain type, whatever suits the device.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_as(args: &ModelArgs, kind: Option<Kind>) -> anyhow::Result<Self> {
        finetuned_torch::set_threads(args.threads)?;
        let device = finetuned_torch::init(match args.device {
            DeviceName::Auto => DeviceRequest::Auto,
            DeviceName::Cpu => DeviceRequest::Cpu,
            DeviceName::Cuda => DeviceRequest::Cuda,
        })?;
        let source = ModelSource::open(&args.model)?;
        let model = CausalLm::load(&source, device, kind.unwrap_or_else(|| frozen_kind(device)), &mut |_, _| {
            ControlFlow::Continue(())
        })?;
        let adapter = args.adapter.as_deref().map(|folder| Adapter::load(&model, folder)).transpose()?;
        Ok(Self { source, model, adapter })
    }
}
