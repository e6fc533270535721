//! Proof that the adapter on disk is the one in memory: reloaded, and compared logit by logit.

use finetuned_dataset::Encoded;
use finetuned_model::{CausalLm, Documents, ForwardContext, LoraAdapter};
use finetuned_protocol::{engine::Phase, evaluation::ParityCertificate};
use finetuned_torch::{Device, Tensor};

use crate::{error::EngineError, job::JobFolder, setup::Setup, watch::Watch};

/// Rows compared.
const ROWS: usize = 4;
/// Positions whose logits lie in memory at once.
const POSITIONS: i64 = 128;
/// What is allowed in f32 on the CPU, where reloading should change nothing at all.
const TOLERANCE_CPU: f64 = 1e-5;
/// What is allowed in bf16 on CUDA.
const TOLERANCE_CUDA: f64 = 1e-3;

/// Largest differences seen so far.
#[derive(Default)]
struct Differences {
    reload: f64,
    base: f64,
    tokens: u64,
}

/// Reloads the exported adapter and compares its logits with those in memory and those of the base model.
///
/// # Errors
/// [`EngineError::ExportMismatch`], an adapter that cannot be read back, or the reason to break off.
pub fn verify(folder: &JobFolder, setup: &Setup, watch: &mut Watch) -> Result<ParityCertificate, EngineError> {
    let model = &setup.model;
    let reloaded = LoraAdapter::load(model, &folder.adapter())?;
    let rows = rows_to_compare(setup);
    let mut largest = Differences::default();
    for (done, row) in rows.iter().enumerate() {
        watch.tick(Phase::Verifying, done as u64, rows.len() as u64)?;
        tch::no_grad(|| compare(model, setup.trainer.adapter(), &reloaded, row, &mut largest))?;
    }
    watch.tick(Phase::Verifying, rows.len() as u64, rows.len() as u64)?;
    let tolerance = if model.device() == Device::Cpu { TOLERANCE_CPU } else { TOLERANCE_CUDA };
    if largest.reload.is_nan() || largest.reload > tolerance {
        return Err(EngineError::ExportMismatch { difference: largest.reload, tolerance });
    }
    Ok(ParityCertificate {
        largest_reload_difference: largest.reload,
        tolerance,
        largest_difference_from_base: largest.base,
        tokens: largest.tokens,
    })
}

/// Held-out rows, or training rows where none are held out.
fn rows_to_compare(setup: &Setup) -> Vec<&Encoded> {
    let held_out = setup.prepared.held_out.iter().map(|row| &row.encoded);
    held_out.chain(&setup.prepared.train).take(ROWS).collect()
}

fn compare(
    model: &CausalLm,
    in_memory: &LoraAdapter,
    reloaded: &LoraAdapter,
    row: &Encoded,
    largest: &mut Differences,
) -> Result<(), EngineError> {
    let documents = Documents::pack(&[&row.ids], model.device())?;
    let hidden = |adapter| model.hidden(&documents, adapter, &ForwardContext::default());
    let [memory, disk, base] = [hidden(Some(in_memory))?, hidden(Some(reloaded))?, hidden(None)?];
    let tokens = row.ids.len() as i64;
    for start in (0..tokens).step_by(POSITIONS as usize) {
        let logits = |hidden: &Tensor| -> Result<Tensor, EngineError> {
            Ok(model.logits(&hidden.f_narrow(0, start, POSITIONS.min(tokens - start))?)?)
        };
        let memory = logits(&memory)?;
        largest.reload = worse(largest.reload, largest_difference(&memory, &logits(&disk)?)?);
        largest.base = worse(largest.base, largest_difference(&memory, &logits(&base)?)?);
    }
    largest.tokens += tokens as u64;
    Ok(())
}

fn largest_difference(a: &Tensor, b: &Tensor) -> Result<f64, EngineError> {
    Ok(a.f_sub(b)?.f_abs()?.f_max()?.f_double_value(&[])?)
}

/// The larger one; what is not a number stays.
fn worse(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) }
}
