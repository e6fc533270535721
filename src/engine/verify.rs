//! Proof that what lies on disk is what was trained: reloaded, and compared logit by logit.

use std::path::Path;

use finetuned_dataset::Encoded;
use finetuned_model::{Adapter, CausalLm, Documents, ForwardContext, Trainable};
use finetuned_protocol::{engine::Phase, evaluation::ParityCertificate};
use finetuned_torch::{Device, Tensor};
use finetuned_weights::ModelSource;

use crate::{error::EngineError, job::JobFolder, setup::Setup, watch::Watch};

/// Rows compared.
const ROWS: usize = 4;
/// Positions whose logits lie in memory at once.
const POSITIONS: i64 = 128;
/// What is allowed in f32 on the CPU, where reloading should change nothing at all.
const TOLERANCE_CPU: f64 = 1e-5;
/// What is allowed on CUDA.
const TOLERANCE_CUDA: f64 = 1e-3;

/// A model with an adapter or without.
#[derive(Clone, Copy)]
struct Side<'a> {
    model: &'a CausalLm,
    adapter: Option<&'a Adapter>,
}

/// Reloads what was exported and compares its logits with those in memory and those of the base model.
///
/// # Errors
/// [`EngineError::ExportMismatch`], files that cannot be read back, or the reason to break off.
pub fn verify(folder: &JobFolder, setup: &Setup, watch: &mut Watch) -> Result<ParityCertificate, EngineError> {
    let model = &setup.model;
    let rows = rows_to_compare(setup);
    let memory = Side { model, adapter: setup.trainer.adapter() };
    let (reload, base) = match setup.trainer.trainable() {
        Trainable::Adapter(_) => {
            let reloaded = Adapter::load(model, &folder.exported())?;
            let disk = Side { model, adapter: Some(&reloaded) };
            (compare(memory, disk, &rows, watch)?, compare(memory, Side { model, adapter: None }, &rows, watch)?)
        }
        // One after the other, so that there are never three models in memory.
        Trainable::Weights(_) => (
            compare(memory, Side { model: &reload(model, &folder.exported(), watch)?, adapter: None }, &rows, watch)?,
            compare(memory, Side { model: &reload(model, &folder.base(), watch)?, adapter: None }, &rows, watch)?,
        ),
    };
    watch.tick(Phase::Verifying, rows.len() as u64, rows.len() as u64)?;
    let tolerance = if model.device() == Device::Cpu { TOLERANCE_CPU } else { TOLERANCE_CUDA };
    if reload.is_nan() || reload > tolerance {
        return Err(EngineError::ExportMismatch { difference: reload, tolerance });
    }
    Ok(ParityCertificate {
        largest_reload_difference: reload,
        tolerance,
        largest_difference_from_base: base,
        tokens: rows.iter().map(|row| row.ids.len() as u64).sum(),
    })
}

/// A model from its files, computed like `like`.
fn reload(like: &CausalLm, path: &Path, watch: &mut Watch) -> Result<CausalLm, EngineError> {
    let source = ModelSource::open(path)?;
    let loaded = CausalLm::load(&source, like.device(), like.kind(), &mut |done, total| {
        watch.flow(Phase::Verifying, done, total)
    });
    watch.settle(loaded)
}

/// Held-out rows, or training rows where none are held out.
fn rows_to_compare(setup: &Setup) -> Vec<&Encoded> {
    let held_out = setup.prepared.held_out.iter().map(|row| &row.encoded);
    held_out.chain(&setup.prepared.train).take(ROWS).collect()
}

/// The largest difference between the logits of two sides; not a number where one is.
fn compare(one: Side, other: Side, rows: &[&Encoded], watch: &mut Watch) -> Result<f64, EngineError> {
    let mut largest = 0.0;
    for (done, row) in rows.iter().enumerate() {
        watch.tick(Phase::Verifying, done as u64, rows.len() as u64)?;
        largest = worse(largest, tch::no_grad(|| compare_row(one, other, row))?);
    }
    Ok(largest)
}

fn compare_row(one: Side, other: Side, row: &Encoded) -> Result<f64, EngineError> {
    let documents = Documents::pack(&[&row.ids], one.model.device())?;
    let hidden = |side: Side| side.model.hidden(&documents, side.adapter, &ForwardContext::default());
    let (first, second) = (hidden(one)?, hidden(other)?);
    let tokens = row.ids.len() as i64;
    let mut largest = 0.0;
    for start in (0..tokens).step_by(POSITIONS as usize) {
        let logits = |side: Side, hidden: &Tensor| -> Result<Tensor, EngineError> {
            Ok(side.model.logits(&hidden.f_narrow(0, start, POSITIONS.min(tokens - start))?, side.adapter)?)
        };
        largest = worse(largest, largest_difference(&logits(one, &first)?, &logits(other, &second)?)?);
    }
    Ok(largest)
}

fn largest_difference(a: &Tensor, b: &Tensor) -> Result<f64, EngineError> {
    Ok(a.f_sub(b)?.f_abs()?.f_max()?.f_double_value(&[])?)
}

/// The larger one; what is not a number stays.
fn worse(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) }
}
