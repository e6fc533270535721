//! Fills the folder of a `train` attempt with what an engine reads.

use std::{
    ffi::OsStr,
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use finetuned_protocol::{
    engine::{
        ADAPTER_FOLDER, BASE_LINK, CHECKPOINTS_FOLDER, EngineJob, FOLDER_VERSION, JOB_FILE, KNOWN_ANSWERS_FILE,
        MANIFEST_FILE, TRAIN_DATA, VALID_DATA,
    },
    error::{ErrorCode, JobError},
    export::is_of_the_adapter,
    spec::AnswersSpec,
};
use finetuned_store::{Checkpoint, LeasedFile, StoredFile};

use crate::{
    attempt::Attempt,
    continued,
    error::{AttemptError, disk_trouble},
};

/// Lays out `folder`; gives the step of the checkpoint that the engine will resume, where there is one.
///
/// # Errors
/// Files that cannot be fetched or written, a base model that is not on this host, a lost lease.
pub async fn lay_out(attempt: &Attempt, folder: &Path) -> Result<Option<u32>, AttemptError> {
    fetch_data(attempt, folder).await?;
    link_base(attempt, folder)?;
    continued::fetch_adapter(attempt, folder).await?;
    let resumed = fetch_checkpoint(attempt, folder).await?;
    write_known_answers(attempt, folder).await?;
    // Last, so that a folder with a job is a whole one.
    write_job(&engine_job(attempt)?, folder)?;
    Ok(resumed)
}

/// Lays out `folder` for asking the published model and its base.
///
/// # Errors
/// See [`lay_out`].
pub async fn lay_out_published(attempt: &Attempt, folder: &Path, answers: &AnswersSpec) -> Result<(), AttemptError> {
    fetch_data(attempt, folder).await?;
    link_base(attempt, folder)?;
    fetch_published(attempt, folder).await?;
    write_known_answers(attempt, folder).await?;
    let mut job = engine_job(attempt)?;
    job.spec.answers = answers.clone();
    write_job(&job, folder)
}

/// Fetches what the job published into `adapter/`.
async fn fetch_published(attempt: &Attempt, folder: &Path) -> Result<(), AttemptError> {
    let job = &attempt.lease.job;
    let files = attempt.persist("listing artifacts", || attempt.store.artifacts(job.tenant, job.id)).await?;
    let place = folder.join(ADAPTER_FOLDER);
    fs::create_dir(&place).map_err(AttemptError::io("making a folder for an adapter"))?;
    for file in files.into_iter().filter(|file| is_of_the_adapter(&file.name)) {
        let path = place.join(plain_name(&file.name)?);
        attempt.persist("fetching an adapter", || attempt.store.fetch_blob(&file.content, &path)).await?;
    }
    Ok(())
}

/// What earlier attempts have answered.
async fn write_known_answers(attempt: &Attempt, folder: &Path) -> Result<(), AttemptError> {
    let task = attempt.lease.key.task;
    let known = attempt.persist("reading answers", || attempt.store.answers_so_far(task)).await?;
    if known.is_empty() {
        return Ok(());
    }
    let mut text = Vec::new();
    for row in &known {
        serde_json::to_writer(&mut text, row).map_err(io::Error::from).map_err(AttemptError::io("writing answers"))?;
        text.push(b'\n');
    }
    fs::write(folder.join(KNOWN_ANSWERS_FILE), text).map_err(AttemptError::io("writing answers"))
}

/// Fetches the datasets of a task into `folder`.
///
/// # Errors
/// See [`lay_out`].
pub async fn fetch_data(attempt: &Attempt, folder: &Path) -> Result<(), AttemptError> {
    let data = folder.join(TRAIN_DATA);
    fs::create_dir_all(data.parent().unwrap_or(folder)).map_err(AttemptError::io("making a folder for data"))?;
    fetch(attempt, &attempt.lease.training, &data).await?;
    match &attempt.lease.validation {
        Some(file) => fetch(attempt, file, &folder.join(VALID_DATA)).await,
        None => Ok(()),
    }
}

async fn fetch(attempt: &Attempt, file: &LeasedFile, path: &Path) -> Result<(), AttemptError> {
    attempt.persist("fetching a dataset", || attempt.store.fetch_blob(&file.content, path)).await
}

/// Where the base model lies on this host.
///
/// # Errors
/// It is not there; another worker may have it.
pub fn base_path(attempt: &Attempt) -> Result<PathBuf, AttemptError> {
    let model = &attempt.lease.base_model;
    fs::canonicalize(&model.path).map_err(|error| {
        tracing::error!(path = %model.path.display(), %error, "the base model is not on this host");
        let message = format!("The base model {} is not on the worker's host", model.name);
        AttemptError::Crashed(JobError::new(ErrorCode::InvalidModel, message).hint("Add the model again."))
    })
}

fn link_base(attempt: &Attempt, folder: &Path) -> Result<(), AttemptError> {
    symlink(base_path(attempt)?, folder.join(BASE_LINK)).map_err(AttemptError::io("linking the base model"))
}

/// Fetches the newest checkpoint whose stored bytes are whole.
async fn fetch_checkpoint(attempt: &Attempt, folder: &Path) -> Result<Option<u32>, AttemptError> {
    for checkpoint in &attempt.lease.checkpoints {
        let place = folder.join(CHECKPOINTS_FOLDER).join(format!("step-{}", checkpoint.step));
        match fetch_files(attempt, checkpoint, &place).await {
            Ok(()) => return Ok(Some(checkpoint.step)),
            Err(AttemptError::Store { source, .. })
                if source.is_of_stored_bytes() || disk_trouble(&source).is_none() =>
            {
                tracing::error!(step = checkpoint.step, error = %source, "a stored checkpoint is damaged; trying an older");
                fs::remove_dir_all(&place).map_err(AttemptError::io("removing a damaged checkpoint"))?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

async fn fetch_files(attempt: &Attempt, checkpoint: &Checkpoint, place: &Path) -> Result<(), AttemptError> {
    fs::create_dir_all(place).map_err(AttemptError::io("making a folder for a checkpoint"))?;
    for StoredFile { name, content } in in_order(&checkpoint.files) {
        let path = place.join(plain_name(name)?);
        attempt.persist("fetching a checkpoint", || attempt.store.fetch_blob(content, &path)).await?;
    }
    Ok(())
}

/// The manifest last, so that a folder with one is a whole one.
fn in_order(files: &[StoredFile]) -> Vec<&StoredFile> {
    let mut files: Vec<&StoredFile> = files.iter().collect();
    files.sort_by_key(|file| file.name == MANIFEST_FILE);
    files
}

/// `name` where it is the name of a file and nothing that leads elsewhere.
///
/// # Errors
/// A name with a path in it.
pub fn plain_name(name: &str) -> Result<&str, AttemptError> {
    if Path::new(name).file_name() == Some(OsStr::new(name)) {
        return Ok(name);
    }
    let source = io::Error::new(io::ErrorKind::InvalidInput, format!("{name:?} is not a file's name"));
    Err(AttemptError::Io { doing: "reading a list of files", source })
}

fn write_job(job: &EngineJob, folder: &Path) -> Result<(), AttemptError> {
    let text = serde_json::to_vec_pretty(job).map_err(io::Error::from).map_err(AttemptError::io("writing a job"))?;
    fs::write(folder.join(JOB_FILE), text).map_err(AttemptError::io("writing a job"))
}

fn engine_job(attempt: &Attempt) -> Result<EngineJob, AttemptError> {
    let lease = &attempt.lease;
    let Some(spec) = lease.job.effective.clone() else {
        let error = JobError::new(ErrorCode::InternalError, "The job has no effective settings");
        return Err(AttemptError::Failed(error));
    };
    Ok(EngineJob {
        folder_version: FOLDER_VERSION,
        job_id: lease.job.id,
        task_id: lease.key.task,
        epoch: lease.key.epoch,
        base_model: lease.base_model.name.clone(),
        base_model_sha256: lease.base_model.sha256.clone(),
        training_file_sha256: lease.training.content.sha256.clone(),
        validation_file_sha256: lease.validation.as_ref().map(|file| file.content.sha256.clone()),
        spec,
        device: attempt.options.device,
        threads: attempt.options.threads,
        // Rounded up: an engine must not end before its worker would hold it.
        keepalive_timeout_seconds: attempt.options.timings.keepalive_timeout().as_secs_f64().ceil() as u64,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_a_way_in_them_are_refused() {
        assert!(plain_name("adapter_model.safetensors").is_ok());
        for name in ["", ".", "..", "/etc/passwd", "../job.json", "a/b", "a/"] {
            assert!(plain_name(name).is_err(), "{name:?}");
        }
    }
}
