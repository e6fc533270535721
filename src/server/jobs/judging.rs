//! Whether the judge that a request names may be asked.

use finetuned_outbound::OutboundError;
use finetuned_protocol::{evaluation_spec::EvaluationSpec, ids::TenantId, judge::JudgePlace, spec::AnswersSpec};
use finetuned_store::StoreError;

use crate::{http::error::ApiError, state::App};

const PARAM: &str = "evaluation.judge";

/// # Errors
/// There is no such judge, the operator does not have it on the list, it lies where it may not, or there is nothing for it
/// to judge.
pub async fn check_judge(
    app: &App,
    tenant: TenantId,
    (evaluation, answers): (&EvaluationSpec, &AnswersSpec),
) -> Result<(), ApiError> {
    let Some(judge) = &evaluation.judge else { return Ok(()) };
    if answers.rows == 0 {
        let message =
            format!("`{PARAM}` judges answers, and `answers.rows` is 0; ask for some, or leave the judge out");
        return Err(ApiError::invalid("answers.rows", message));
    }
    match &judge.place {
        JudgePlace::ServiceModel { name } => check_model(app, tenant, name).await,
        JudgePlace::Endpoint { url, model } => check_endpoint(app, url.as_deref(), model.as_deref()).await,
    }
}

async fn check_model(app: &App, tenant: TenantId, name: &str) -> Result<(), ApiError> {
    let param = format!("{PARAM}.service_model");
    match app.store.served_model(tenant, name).await {
        Ok(_) => Ok(()),
        Err(StoreError::NotFound { .. }) => {
            let message = format!("`{param}`: no model is called `{name}`; GET /v1/models lists what there is");
            Err(ApiError::invalid(&param, message))
        }
        Err(StoreError::Conflict { message }) => Err(ApiError::invalid(&param, format!("`{param}`: {message}"))),
        Err(error) => Err(error.into()),
    }
}

async fn check_endpoint(app: &App, url: Option<&str>, model: Option<&str>) -> Result<(), ApiError> {
    let param = if url.is_some() { format!("{PARAM}.url") } else { PARAM.to_owned() };
    let judges = &app.options.judges;
    let Some(endpoint) = judges.find(url) else {
        let message = match url {
            Some(url) => {
                format!("`{param}`: `{url}` is not on the operator's list of judges (`finetuned serve --judges`)")
            }
            None => format!(
                "`{param}`: the operator has no judge (`finetuned serve --judge-url`); name a model of this service as \
                 `service_model`"
            ),
        };
        return Err(ApiError::invalid(&param, message));
    };
    if model.is_none() && endpoint.model.is_none() {
        let message =
            format!("`{PARAM}.model`: name the judging model, since the operator's list has none for this judge");
        return Err(ApiError::invalid(format!("{PARAM}.model"), message));
    }
    match app.outbound.look_up(&endpoint.url).await {
        Err(error @ (OutboundError::Refused | OutboundError::Url(_))) => {
            let message = format!(
                "`{param}`: the judge cannot be called: {error}; the operator allows it with \
                 `finetuned serve --allow-outbound`"
            );
            Err(ApiError::invalid(&param, message))
        }
        // One that is down degrades the report, and not the job.
        _ => Ok(()),
    }
}
