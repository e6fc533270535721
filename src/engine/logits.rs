//! `finetuned-engine logits`: logits of token rows, for comparing with other implementations.

use std::{fs, path::PathBuf};

use anyhow::Context;
use clap::Args;
use finetuned_model::{Documents, ForwardContext, tensor_file};
use finetuned_torch::{Device, Kind, Tensor};

use crate::loaded::{Loaded, ModelArgs};

#[derive(Debug, Args)]
pub struct LogitsArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// JSON file with a list of lists of token ids.
    #[arg(long)]
    ids: PathBuf,
    /// Safetensors file to write: `row_0`, `row_1` and so on, each `[tokens, vocab]` in f32.
    #[arg(long)]
    out: PathBuf,
}

/// Writes the logits of every row.
///
/// # Errors
/// Files that cannot be read or written, or ids outside the vocabulary.
pub fn logits(args: &LogitsArgs) -> anyhow::Result<()> {
    let text = fs::read(&args.ids).with_context(|| format!("while reading {}", args.ids.display()))?;
    let rows: Vec<Vec<u32>> =
        serde_json::from_slice(&text).with_context(|| format!("while reading {}", args.ids.display()))?;
    let loaded = Loaded::open(&args.model)?;
    let tensors = tch::no_grad(|| {
        rows.iter()
            .enumerate()
            .map(|(index, row)| Ok((format!("row_{index}"), row_logits(&loaded, row)?)))
            .collect::<anyhow::Result<Vec<_>>>()
    })?;
    tensor_file::save(&args.out, &tensors)?;
    Ok(())
}

fn row_logits(loaded: &Loaded, row: &[u32]) -> anyhow::Result<Tensor> {
    let documents = Documents::pack(&[row], loaded.model.device())?;
    let hidden = loaded.model.hidden(&documents, loaded.adapter.as_ref(), &ForwardContext::default())?;
    Ok(loaded.model.logits(&hidden, loaded.adapter.as_ref())?.f_to_kind(Kind::Float)?.f_to_device(Device::Cpu)?)
}
