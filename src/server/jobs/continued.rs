//! A job that goes on from a tuned model: the hosted API names that model as `model`; `continue_from` says it outright.

use finetuned_protocol::{
    ids::{FileId, JobId},
    request::{AdapterFilesRequest, CreateJobRequest},
    status::JobStatus,
    tuning::{AdapterSpec, TuningSpec},
};
use finetuned_store::{BaseModel, Caller, File, Job, Model, StoreError};
use finetuned_weights::adapter_config::AdapterConfig;

use crate::{http::error::ApiError, state::App};

const PARAM: &str = "continue_from";
const CONFIG_PARAM: &str = "continue_from_files.adapter_config";
const MODEL_PARAM: &str = "continue_from_files.adapter_model";
/// Longest config of an adapter; peft writes about a kilobyte.
const MAX_CONFIG_BYTES: u64 = 256 * 1024;

/// A request whose `model` is a tuned one, in the other spelling: its base model, and `continue_from`.
///
/// # Errors
/// `continue_from` names another model.
pub async fn named_by_its_model(
    app: &App,
    caller: &Caller,
    request: CreateJobRequest,
) -> Result<CreateJobRequest, ApiError> {
    let tuned = match app.store.get_model(caller.tenant, &request.model).await {
        Ok(Model::Tuned(tuned)) => tuned,
        // What is wrong with it is told where it is looked up for good.
        Ok(Model::Base(_)) | Err(StoreError::NotFound { .. }) => return Ok(request),
        Err(error) => return Err(error.into()),
    };
    let id = tuned.job.to_string();
    if request.continue_from.as_ref().is_some_and(|other| *other != tuned.name && *other != id) {
        let message = format!("`{PARAM}` and `model` name different models; give one of them");
        return Err(ApiError::invalid(PARAM, message));
    }
    let request = CreateJobRequest { model: tuned.base_model, continue_from: Some(id), ..request };
    // What the adapter brings may not be asked for beside it, in this spelling either.
    request.check()?;
    Ok(request)
}

/// The request with the id of the job to go on from, and what that job made. `model` is the request's base model.
///
/// # Errors
/// There is no such model or job, or it cannot be gone on from.
pub async fn settle(
    app: &App,
    caller: &Caller,
    request: CreateJobRequest,
    model: &BaseModel,
) -> Result<(CreateJobRequest, Option<AdapterSpec>), ApiError> {
    if let Some(files) = &request.continue_from_files {
        let spec = uploaded(app, caller, files).await?;
        return Ok((request, Some(spec)));
    }
    let Some(name) = request.continue_from.clone() else { return Ok((request, None)) };
    let job = earlier_job(app, caller, &name).await?;
    let refuse = |reason: String| Err(ApiError::invalid(PARAM, format!("`{name}` cannot be gone on from: {reason}")));
    if job.status != JobStatus::Succeeded {
        return refuse(format!("its job is `{}`", job.status));
    }
    if job.base_model != model.name {
        return refuse(format!("it was trained on `{}` and not on `{}`", job.base_model, model.name));
    }
    if job.base_model_sha256 != model.sha256 {
        return refuse(format!("the weights of `{}` are others than it was trained on", model.name));
    }
    match job.effective.map(|spec| spec.tuning) {
        Some(TuningSpec::Adapter(spec)) => {
            Ok((CreateJobRequest { continue_from: Some(job.id.to_string()), ..request }, Some(spec)))
        }
        _ => refuse("it is a whole model; register it with `finetuned models add` and name it as `model`".to_owned()),
    }
}

/// The settings of an adapter that was uploaded as two files. Its tensors are held against the model when training starts.
async fn uploaded(app: &App, caller: &Caller, files: &AdapterFilesRequest) -> Result<AdapterSpec, ApiError> {
    let AdapterFilesRequest { adapter_config, adapter_model } = files;
    file(app, caller, adapter_model, MODEL_PARAM).await?;
    let content = file(app, caller, adapter_config, CONFIG_PARAM).await?.content;
    if content.bytes > MAX_CONFIG_BYTES {
        let message =
            format!("`{adapter_config}` has {} bytes; an adapter_config.json has about a thousand", content.bytes);
        return Err(ApiError::invalid(CONFIG_PARAM, message));
    }
    let text = app.store.get_blob_bytes(content.id).await?;
    let refused =
        |reason: String| ApiError::invalid(CONFIG_PARAM, format!("`{adapter_config}` cannot be used: {reason}"));
    let text = std::str::from_utf8(&text).map_err(|_| refused("it is not UTF-8 text".to_owned()))?;
    Ok(AdapterConfig::parse(text).map_err(|error| refused(error.to_string()))?.spec)
}

async fn file(app: &App, caller: &Caller, name: &str, param: &'static str) -> Result<File, ApiError> {
    let missing =
        || ApiError::invalid(param, format!("no file is called `{name}`; upload it with the purpose `user_data`"));
    let id = name.parse::<FileId>().map_err(|_| missing())?;
    match app.store.get_file(caller.tenant, id).await {
        Err(StoreError::NotFound { .. }) => Err(missing()),
        file => Ok(file?),
    }
}

async fn earlier_job(app: &App, caller: &Caller, name: &str) -> Result<Job, ApiError> {
    let missing = || ApiError::invalid(PARAM, format!("no tuned model and no job is called `{name}`"));
    let id = match name.parse::<JobId>() {
        Ok(id) => id,
        Err(_) => match app.store.get_model(caller.tenant, name).await {
            Ok(Model::Tuned(tuned)) => tuned.job,
            Ok(Model::Base(_)) | Err(StoreError::NotFound { .. }) => return Err(missing()),
            Err(error) => return Err(error.into()),
        },
    };
    match app.store.get_job(caller.tenant, id).await {
        Err(StoreError::NotFound { .. }) => Err(missing()),
        job => Ok(job?),
    }
}
