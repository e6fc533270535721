//! `POST /v1/fine_tuning/jobs/estimate`: what a job would be and take, without making it.

mod warnings;

use std::{
    ops::ControlFlow,
    time::{Duration, Instant},
};

use axum::{Json, extract::State};
use finetuned_dataset::{PrepareError, Survey, Watch, survey};
use finetuned_protocol::{
    inspection::{JobEstimate, SpeedSource},
    request::CreateJobRequest,
    resolve::resolve,
    spec::Estimate,
};
use finetuned_store::{BaseModel, Caller, MeasuredSpeed};
use finetuned_weights::planner;

use super::create::{Checked, check};
use crate::{
    http::{
        auth::Authenticated,
        body::JsonBody,
        error::{ApiError, Code, ErrorResponse},
        query::{NoParameters, Query},
    },
    scratch::Scratch,
    state::App,
};

const LONGEST: Duration = Duration::from_secs(600);

/// Say what a job would be: its settings without an `auto`, the rows it would use, and what it would take. Nothing is
/// stored.
#[utoipa::path(
    post, path = "/v1/fine_tuning/jobs/estimate", tag = "fine-tuning",
    request_body = CreateJobRequest,
    responses(
        (status = 200, body = JobEstimate),
        (status = 400, body = ErrorResponse, description = "What creating the job, or its validation, would refuse"),
    ),
)]
pub async fn estimate_job(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    Query(NoParameters): Query<NoParameters>,
    JsonBody(request): JsonBody<CreateJobRequest>,
) -> Result<Json<JobEstimate>, ApiError> {
    let _place = app.upload_place().await?;
    let checked = check(&app, &caller, request).await?;
    let survey = look(&app, &checked).await?;
    let Checked { request, model, tuning, preparation, .. } = checked;
    let effective = resolve(&request, preparation, tuning, &survey.facts)?;
    let planned = planner::estimate(&model.facts, &effective, &survey.facts, request.kept_checkpoints());
    let (estimate, speed) = timed(&app, &caller, &model, planned).await?;
    let Survey { facts, dropped_by_rule, .. } = survey;
    Ok(Json(JobEstimate {
        warnings: warnings::about(&request, &model.facts, &effective, &facts),
        tokens_per_epoch: facts.train_tokens,
        steps: effective.total_steps,
        disk_bytes: estimate.disk.stored_bytes,
        dataset: facts,
        dropped_by_rule,
        estimate,
        speed,
        effective,
    }))
}

/// Reads the rows as the validation would.
async fn look(app: &App, checked: &Checked) -> Result<Survey, ApiError> {
    let scratch = Scratch::new()?;
    let train = scratch.fetch(app, &checked.training_file, "train").await?;
    let valid = match &checked.validation_file {
        Some(file) => Some(scratch.fetch(app, file, "valid").await?),
        None => None,
    };
    let tokenizer = app.tokenizers.of(&checked.model).await?;
    let spec = checked.preparation.clone();
    let until = Instant::now() + LONGEST;
    let work = move || {
        let _scratch = scratch;
        let mut go_on = |_, _| if Instant::now() < until { ControlFlow::Continue(()) } else { ControlFlow::Break(()) };
        let watch = Watch { progress: &mut go_on, found: &mut |_, _| {} };
        survey(&spec, &train, valid.as_deref(), &tokenizer, watch)
    };
    tokio::task::spawn_blocking(work).await.map_err(ApiError::internal)?.map_err(refusal)
}

/// What the validation would fail by.
fn refusal(error: PrepareError) -> ApiError {
    let (code, param) = (Code::InvalidTrainingFile, "training_file");
    let (findings, total) = match &error {
        PrepareError::Rows { findings, total, .. } => (findings, *total),
        PrepareError::NothingToTrain { findings, dropped, .. } => (findings, *dropped),
        PrepareError::Cancelled => {
            let message = format!("the files take more than {} seconds; create the job instead", LONGEST.as_secs());
            return ApiError::busy(message);
        }
        PrepareError::Tokenizer { .. } | PrepareError::Read(_) => return ApiError::internal(error),
    };
    let (code, param) = match &error {
        PrepareError::Rows { file: finetuned_dataset::SourceFile::Validation, .. } => {
            (Code::InvalidValidationFile, "validation_file")
        }
        _ => (code, param),
    };
    let details = findings.iter().take(100).filter_map(|finding| serde_json::to_value(finding).ok()).collect();
    ApiError::new(code, error.to_string()).param(param).details(details, total)
}

/// The planner's estimate, with its time by the speed that earlier jobs of the model reached, where there are any.
async fn timed(
    app: &App,
    caller: &Caller,
    model: &BaseModel,
    planned: Estimate,
) -> Result<(Estimate, SpeedSource), ApiError> {
    match app.store.measured_speed(caller.tenant, &model.name).await? {
        Some(MeasuredSpeed { tokens_per_second, jobs }) if tokens_per_second > 0.0 => {
            let seconds = (planned.tokens as f64 / tokens_per_second).ceil() as u64;
            Ok((Estimate { seconds, ..planned }, SpeedSource::Measured { tokens_per_second, jobs }))
        }
        _ => Ok((planned, SpeedSource::Assumed)),
    }
}
