//! The adapter of an earlier job that a job goes on from.

use std::{fs, path::Path};

use finetuned_protocol::{
    engine::INITIAL_ADAPTER_FOLDER,
    error::{ErrorCode, JobError},
    ids::JobId,
    tuning::{AdapterSpec, TuningSpec},
};
use finetuned_store::StoreError;

use crate::{attempt::Attempt, error::AttemptError, layout::plain_name};

/// What the earlier job made; `None` where the job starts afresh.
///
/// # Errors
/// There is no such job any more, or it made no adapter.
pub async fn adapter_spec(attempt: &Attempt) -> Result<Option<AdapterSpec>, AttemptError> {
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
    let Some(id) = earlier_job(attempt)? else { return Ok(()) };
    let tenant = attempt.lease.job.tenant;
    let files = found(attempt.persist("listing an adapter", || attempt.store.artifacts(tenant, id)).await, id)?;
    if files.is_empty() {
        return Err(refused(id));
    }
    let place = folder.join(INITIAL_ADAPTER_FOLDER);
    fs::create_dir(&place).map_err(AttemptError::io("making a folder for an adapter"))?;
    for file in files {
        let path = place.join(plain_name(&file.name)?);
        attempt.persist("fetching an adapter", || attempt.store.fetch_blob(&file.content, &path)).await?;
    }
    Ok(())
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
