//! The adapter as peft saves it, or the model as transformers does, with everything a user needs beside it.

use std::{fs, path::Path};

use finetuned_model::{CausalLm, Trainable, tensor_file};
use finetuned_protocol::{
    engine::{FileEntry, Phase},
    evaluation::Likelihood,
};
use finetuned_weights::{MODEL_TENSORS_FILE, ModelSource};

use crate::{
    disk::{at, entry_of, fresh_folder, sync_folder, write_synced},
    error::EngineError,
    job::JobFolder,
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
    let written = write_files((folder, setup), tuned, &target);
    if written.is_err()
        && let Err(error) = crate::disk::remove_folder(&target)
    {
        tracing::error!(%error, "an unfinished export stays");
    }
    watch.tick(Phase::Exporting, 1, 1)?;
    written
}

fn write_files(
    (folder, setup): (&JobFolder, &Setup),
    tuned: &Likelihood,
    target: &Path,
) -> Result<Vec<FileEntry>, EngineError> {
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
    sync_folder(target)?;
    list(target)
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
