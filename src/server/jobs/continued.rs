//! A job that goes on from a tuned model: the hosted API names that model as `model`; `continue_from` says it outright.

use finetuned_protocol::{
    ids::JobId,
    request::CreateJobRequest,
    status::JobStatus,
    tuning::{AdapterSpec, TuningSpec},
};
use finetuned_store::{BaseModel, Caller, Job, Model, StoreError};

use crate::{http::error::ApiError, state::App};

const PARAM: &str = "continue_from";

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
