//! A model, and perhaps an adapter, as the commands for use by hand load them.

use std::{ops::ControlFlow, path::PathBuf};

use clap::{Args, ValueEnum};
use finetuned_model::{Adapter, CausalLm};
use finetuned_protocol::precision::BasePrecision;
use finetuned_torch::{Device, DeviceRequest, Kind, TorchError};
use finetuned_weights::ModelSource;

use crate::setup::frozen_precision;

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
    /// How the base model's matrices are stored: auto, f32, bf16, int8 or nf4.
    #[arg(long, default_value_t = BasePrecision::Auto)]
    pub base_precision: BasePrecision,
    /// Threads for computing on the CPU.
    #[arg(long, default_value_t = default_threads())]
    pub threads: usize,
}

pub fn default_threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Sets the thread count, and finds the device.
///
/// # Errors
/// A device that is not there.
pub fn torch_device(name: DeviceName, threads: usize) -> Result<Device, TorchError> {
    finetuned_torch::set_threads(threads)?;
    finetuned_torch::init(match name {
        DeviceName::Auto => DeviceRequest::Auto,
        DeviceName::Cpu => DeviceRequest::Cpu,
        DeviceName::Cuda => DeviceRequest::Cuda,
    })
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
        let device = torch_device(args.device, args.threads)?;
        let source = ModelSource::open(&args.model)?;
        let precision = match kind {
            // What is asked for and cannot be had is refused, not passed over.
            Some(_) if args.base_precision.is_smaller_than_f32() => {
                anyhow::bail!("--base-precision must be `auto` or `f32` here, where the weights themselves are changed")
            }
            Some(kind) => kind.into(),
            None => frozen_precision(device, args.base_precision),
        };
        let model = CausalLm::load(&source, device, precision, &mut |_, _| ControlFlow::Continue(()))?;
        let adapter = args.adapter.as_deref().map(|folder| Adapter::load(&model, folder)).transpose()?;
        Ok(Self { source, model, adapter })
    }
}
