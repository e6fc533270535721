//! The adapter of an earlier job, or an uploaded one, that a job goes on from.

use std::{fs, path::Path};

use finetuned_protocol::{
    engine::INITIAL_ADAPTER_FOLDER,
    error::{ErrorCode, JobError},
    export::is_of_the_adapter,
    ids::JobId,
    tuning::{AdapterSpec, TuningSpec},
};
use finetuned_store::{File, StoreError};
use finetuned_weights::adapter_config::AdapterConfig;

use crate::{attempt::Attempt, error::AttemptError, layout::plain_name};

/// Names of an adapter's files in peft's layout.
const CONFIG_FILE: &str = "adapter_config.json";
const TENSORS_FILE: &str = "adapter_model.safetensors";

/// What the earlier job made; `None` where the job starts afresh.
///
/// # Errors
/// There is no such job any more, or it made no adapter.
pub async fn adapter_spec(attempt: &Attempt) -> Result<Option<AdapterSpec>, AttemptError> {
    if let Some(files) = &attempt.lease.job.request.continue_from_files {
        let config = uploaded(attempt, &files.adapter_config).await?;
        let id = config.content.id;
        let text = attempt.persist("reading an adapter's config", || attempt.store.get_blob_bytes(id)).await?;
        let parsed = AdapterConfig::parse(&String::from_utf8_lossy(&text));
        return parsed.map(|config| Some(config.spec)).map_err(|error| unusable(&error.to_string()));
    }
    let Some(id) = earlier_job(attempt)? else { return Ok(None) };
    let tenant = attempt.lease.job.tenant;
    let job = found(attempt.persist("reading an earlier job", || attempt.store.get_job(tenant, id)).await, id)?;
    match job.effective.map(|spec| spec.tuning) {
        Some(TuningSpec::Adapter(spec)) => Ok(Some(spec)),
        _ => Err(refused(id)),
    }
}

/// Fetches the earlier job's adapter into the attempt's folder, where the job goes on from one.
///
/// # Errors
/// There is no such adapter any more, or its files cannot be fetched or written.
pub async fn fetch_adapter(attempt: &Attempt, folder: &Path) -> Result<(), AttemptError> {
    let place = folder.join(INITIAL_ADAPTER_FOLDER);
    let make = || fs::create_dir(&place).map_err(AttemptError::io("making a folder for an adapter"));
    if let Some(files) = &attempt.lease.job.request.continue_from_files {
        make()?;
        for (id, name) in [(&files.adapter_config, CONFIG_FILE), (&files.adapter_model, TENSORS_FILE)] {
            let (file, path) = (uploaded(attempt, id).await?, place.join(name));
            attempt.persist("fetching an adapter", || attempt.store.fetch_blob(&file.content, &path)).await?;
        }
        return Ok(());
    }
    let Some(id) = earlier_job(attempt)? else { return Ok(()) };
    let tenant = attempt.lease.job.tenant;
    let files = found(attempt.persist("listing an adapter", || attempt.store.artifacts(tenant, id)).await, id)?;
    if files.is_empty() {
        return Err(refused(id));
    }
    make()?;
    for file in files.into_iter().filter(|file| is_of_the_adapter(&file.name)) {
        let path = place.join(plain_name(&file.name)?);
        attempt.persist("fetching an adapter", || attempt.store.fetch_blob(&file.content, &path)).await?;
    }
    Ok(())
}

/// A file of the adapter that a client uploaded.
async fn uploaded(attempt: &Attempt, id: &str) -> Result<File, AttemptError> {
    let gone = || unusable(&format!("the file {id} is no longer there"));
    let file = id.parse().map_err(|_| gone())?;
    let tenant = attempt.lease.job.tenant;
    match attempt.persist("reading an uploaded adapter", || attempt.store.get_file(tenant, file)).await {
        Err(AttemptError::Store { source: StoreError::NotFound { .. }, .. }) => Err(gone()),
        file => file,
    }
}

fn unusable(reason: &str) -> AttemptError {
    let message = format!("The uploaded adapter cannot be gone on from: {reason}");
    AttemptError::Failed(JobError::new(ErrorCode::InvalidSettings, message).param("continue_from_files"))
}

/// The job that `continue_from` names. The server settles it to an id before it makes the job.
fn earlier_job(attempt: &Attempt) -> Result<Option<JobId>, AttemptError> {
    let Some(name) = &attempt.lease.job.request.continue_from else { return Ok(None) };
    let id = name.parse().map_err(|error| {
        tracing::error!(name, %error, "a job goes on from what is no job");
        AttemptError::Failed(JobError::new(ErrorCode::InternalError, "The job has no id of a job to go on from"))
    })?;
    Ok(Some(id))
}

fn found<T>(result: Result<T, AttemptError>, id: JobId) -> Result<T, AttemptError> {
    match result {
        Err(AttemptError::Store { source: StoreError::NotFound { .. }, .. }) => Err(refused(id)),
        result => result,
    }
}

fn refused(id: JobId) -> AttemptError {
    let message = format!("The job {id}, which training was to go on from, has no adapter");
    AttemptError::Failed(JobError::new(ErrorCode::InvalidSettings, message).param("continue_from"))
}
