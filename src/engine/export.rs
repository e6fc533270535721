//! The adapter as peft saves it, or the model as transformers does, with everything a user needs beside it.

use std::{fs, path::Path};

use finetuned_model::{Adapter, CausalLm, Trainable, tensor_file};
use finetuned_protocol::{
    engine::{FileEntry, Phase},
    evaluation::Likelihood,
    export::MERGED_PREFIX,
};
use finetuned_torch::{Device, Kind};
use finetuned_weights::{MODEL_TENSORS_FILE, ModelSource, read_tokenizer};

use crate::{
    disk::{at, entry_of, fresh_folder, sync_folder, write_synced},
    error::EngineError,
    job::JobFolder,
    merge::{Dtype, Tuned},
    model_card::{Card, model_card},
    setup::Setup,
    template,
    watch::Watch,
};

/// Writes `adapter/` and lists its files by name; `tuned` is how good it is on the held-out rows.
///
/// # Errors
/// The disk's; nothing half written stays.
pub fn export(
    folder: &JobFolder,
    setup: &Setup,
    tuned: &Likelihood,
    watch: &mut Watch,
) -> Result<Vec<FileEntry>, EngineError> {
    watch.tick(Phase::Exporting, 0, 1)?;
    let target = folder.exported();
    let written = write_files((folder, setup), tuned, &target).and_then(|()| {
        further_forms(folder, setup, &target, watch)?;
        sync_folder(&target)?;
        list(&target)
    });
    if written.is_err()
        && let Err(error) = crate::disk::remove_folder(&target)
    {
        tracing::error!(%error, "an unfinished export stays");
    }
    watch.tick(Phase::Exporting, 1, 1)?;
    written
}

fn write_files((folder, setup): (&JobFolder, &Setup), tuned: &Likelihood, target: &Path) -> Result<(), EngineError> {
    let spec = &folder.job.spec;
    fresh_folder(target)?;
    match setup.trainer.trainable() {
        Trainable::Adapter(adapter) => adapter.save(&setup.model, target, &folder.job.base_model)?,
        Trainable::Weights(_) => save_model(folder, &setup.model, target)?,
    }
    setup.tokenizer.save(target)?;
    template::write(target, &spec.preparation.template)?;
    let base = setup.state.history.iter().find(|at| at.step == 0).map(|at| &at.likelihood);
    let card = Card {
        job: &folder.job,
        facts: &setup.prepared.facts,
        trained_tokens: setup.state.trained_tokens,
        train_loss: setup.state.train_loss,
        base,
        tuned: Some(tuned),
    };
    write_synced(target, "README.md", model_card(&card).as_bytes())?;
    Ok(())
}

/// The forms that the job asks for beside the adapter, from the files of base and adapter and in f32: what trained may hold
/// its weights in another type.
fn further_forms(folder: &JobFolder, setup: &Setup, target: &Path, watch: &mut Watch) -> Result<(), EngineError> {
    let formats = &folder.job.spec.export;
    if formats.is_empty() {
        return Ok(());
    }
    let is_model = matches!(setup.trainer.trainable(), Trainable::Weights(_));
    let source = ModelSource::open(&if is_model { target.to_owned() } else { folder.base() })?;
    let loaded =
        CausalLm::load(&source, Device::Cpu, Kind::Float, &mut |done, total| watch.flow(Phase::Exporting, done, total));
    let model = watch.settle(loaded)?;
    let adapter = if is_model { None } else { Some(Adapter::load(&model, target)?) };
    // The template it was trained with is beside the adapter, whatever the base model's own is.
    let tokenizer = read_tokenizer(target, setup.facts.vocab_size)?;
    let name = &folder.job.base_model;
    let tuned = Tuned { name, source: &source, model: &model, adapter: adapter.as_ref(), tokenizer: Some(&tokenizer) };
    for (done, format) in formats.iter().enumerate() {
        let mut tick = || watch.tick(Phase::Exporting, done as u64, formats.len() as u64);
        tick()?;
        match format.file_name() {
            None => tuned.write_merged(Dtype::Float32, target, MERGED_PREFIX)?,
            Some(name) => tuned.write_gguf(*format, &target.join(name), &mut tick)?,
        }
    }
    Ok(())
}

/// The whole model, also where only some of its layers were trained.
fn save_model(folder: &JobFolder, model: &CausalLm, target: &Path) -> Result<(), EngineError> {
    tensor_file::save(&target.join(MODEL_TENSORS_FILE), &model.parameters())?;
    for (name, text) in ModelSource::open(&folder.base())?.export_configs()? {
        write_synced(target, name, text.as_bytes())?;
    }
    Ok(())
}

/// Every file of a folder, sorted by name, on disk for good.
fn list(folder: &Path) -> Result<Vec<FileEntry>, EngineError> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(at("listing", folder))? {
        let entry = entry.map_err(at("listing", folder))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.sort_unstable();
    names
        .iter()
        .map(|name| {
            let path = folder.join(name);
            fs::File::open(&path).and_then(|file| file.sync_all()).map_err(at("syncing", &path))?;
            Ok(entry_of(folder, name)?)
        })
        .collect()
}
